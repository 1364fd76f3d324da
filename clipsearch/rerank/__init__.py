"""Second stages of a search."""
