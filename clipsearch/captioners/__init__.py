"""Models that write texts about pictures and answer questions about them. Importing them loads no torch."""

from .local import LocalVLM

__all__ = ["LocalVLM"]
