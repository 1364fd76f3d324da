"""Vision-language models: what writes captions, and answers yes or no about a picture."""
