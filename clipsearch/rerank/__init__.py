"""A second look at the best hits: scores of how well pictures fit a text, and what they are worth."""
