"""A second look without pixels: how like the query is what a captioner wrote of a picture."""

from collections.abc import Sequence
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from ..encoders import AnyModel, load_encoder, resolve
from ..encoders.names import short
from ..query_cache import FILE, cached
from ..types import Candidate, Embeddings, Encoder, Role, as_embeddings, fingerprint_of
from .fusion import WEIGHT, How

CAPTIONS = "captions.sqlite"  # a file of their own: they would push out what people ask
TEXT_MODEL = "st:sentence-transformers/all-MiniLM-L6-v2"


class CaptionReranker:
    """Scores pictures by the cosine of the query and their caption, by a model of texts.

    Captions come from `Collection.caption`, or are a source's metadata of the name `caption`. Their vectors
    are kept, so a later search is one matrix product. With `retrieve`, pictures that are among the best by
    caption are judged too, though the first stage missed them.
    """

    needs = "caption"

    def __init__(
        self,
        text_model: AnyModel = TEXT_MODEL,
        *,
        depth: int = 100,
        weight: float = WEIGHT,
        how: How = "z",
        retrieve: bool = False,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        """Judge with a model of texts.

        Args:
            text_model: one of sentence-transformers, `st:` and a hub id, or a directory; or your own encoder.
            depth: how many of the best are judged, and found by their caption with `retrieve`.
            weight: of its scores beside the first stage's, from 0 to 1.
            how: they are fused, "z" or "rrf"; see `fused`.
            retrieve: let captions bring in pictures that the first stage missed.
            device: see `Collection`.
            precision: likewise.
        """
        self.text_model = resolve(text_model)
        self._load = partial(load_encoder, text_model, device=device, precision=precision)
        self.depth, self.batch_size, self.weight, self.how = depth, depth, weight, how
        self.retrieve = retrieve

    @property
    def name(self) -> str:
        """What it is called in results."""
        return f"{'hybrid' if self.retrieve else 'captions'}:{short(self.text_model)}"

    @cached_property
    def encoder(self) -> Encoder:
        """The model of texts, loaded now if it was not yet."""
        return self._load()

    def encode(self, texts: Sequence[str], role: Role) -> Embeddings:
        """Vectors of n texts, float32 (n, dim), unit rows; those asked before come from a cache."""
        encoder = self.encoder
        fingerprint = fingerprint_of(encoder)
        key = (f"{encoder.model_id} {role}", encoder.dim if fingerprint else 0, fingerprint)
        vectors = partial(self._vectors, role=role)
        return cached(key, texts, vectors, file=FILE if role == "query" else CAPTIONS)

    def _vectors(self, texts: Sequence[str], role: Role) -> Embeddings:
        return as_embeddings(self.encoder.encode_texts(texts, role=role))

    def score(self, query: str, candidates: Sequence[Candidate]) -> npt.NDArray[np.float32]:
        """Cosines of n captions to the query, float32 (n,)."""
        captions = [candidate.caption or "" for candidate in candidates]
        scores: npt.NDArray[np.float32] = self.encode(captions, "document") @ self.encode([query], "query")[0]
        return scores
