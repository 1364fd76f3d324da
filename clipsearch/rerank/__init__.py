"""Rerankers: what looks again at the best that a search has found."""
