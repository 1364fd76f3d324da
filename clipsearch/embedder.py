"""The vectors of what is asked: texts, through a cache, and pictures, from the store where they are there."""

from collections.abc import Sequence
from functools import partial
from numbers import Integral
from typing import cast

import numpy as np

from . import bank
from .encoders import notice_script
from .errors import ModelError
from .labels import TextModel
from .pictures import Pictures
from .progress import progress_bar
from .query_cache import cached, recall
from .reader import Reader
from .results import Hit
from .search import Picture, encode_picture
from .spaces import Spaces
from .types import Embeddings, as_embeddings

NEUTRAL = "neutral.sqlite"  # the cache of neutral captions, which no query is to push out
TOGETHER = 64  # neutral captions encoded at a time


class Embedder:
    """Embeds queries with the model in use, which is loaded when first needed."""

    def __init__(self, spaces: Spaces, reader: Reader, pictures: Pictures) -> None:
        self._spaces, self._reader, self._pictures = spaces, reader, pictures
        self._neutral: dict[tuple[object, bank.Language], Embeddings] = {}

    def texts(self, texts: Sequence[str]) -> Embeddings:
        """The vectors of texts as queries, float32 (n, dim), unit rows."""
        notice_script(
            self._spaces.model, texts
        )  # the encoder does, too, but is not asked where all are cached
        return cached(self._cache_key(), texts, self._encode_texts)

    def picture(self, picture: "Picture | Hit | int") -> Embeddings:
        """The vector of a picture of the collection, or of any other, float32 (1, dim)."""
        searcher = self._reader.searcher()
        if searcher and isinstance(picture, Hit | Integral):
            id = picture.id if isinstance(picture, Hit) else int(picture)
            return searcher.embedding(self._pictures.content(id))
        return encode_picture(cast("Picture", picture), self._spaces.encoder)

    def neutral(self, language: bank.Language) -> Embeddings:
        """The vectors of the neutral captions of a language, float32 (B, dim); encoded once for a model."""
        key = self._cache_key(), language
        if key not in self._neutral:
            texts = bank.captions(language)
            self._neutral[key] = (self._cached if self._all_cached(texts) else self._encode_neutral)(texts)
        return self._neutral[key]

    def knows_neutral(self, language: bank.Language) -> bool:
        """Whether the neutral captions of a language were encoded with this model before."""
        key = self._cache_key(), language
        return key in self._neutral or self._all_cached(bank.captions(language))

    def _encode_neutral(self, texts: Sequence[str]) -> Embeddings:
        parts = []
        with progress_bar("calibrating", None, unit="captions", total=len(texts)) as bar:
            for start in range(0, len(texts), TOGETHER):
                parts.append(self._cached(texts[start : start + TOGETHER]))
                bar.update(len(parts[-1]))
        return np.concatenate(parts)

    def _cached(self, texts: Sequence[str]) -> Embeddings:
        return cached(self._cache_key(), texts, self._encode_texts, file=NEUTRAL)

    def _all_cached(self, texts: Sequence[str]) -> bool:
        name, dim, marks = self._cache_key()
        last = recall(NEUTRAL, f"{name} {dim} {marks}", texts[-1:], np.float32) if marks else {}
        return bool(last)

    def text_model(self) -> TextModel:
        """What a classifier needs of the model."""
        encoder = self._spaces.encoder
        scale, bias = (getattr(encoder, name, None) for name in ("logit_scale", "logit_bias"))
        device = partial(getattr, encoder, "device", "cpu")
        return TextModel(self._spaces.model, self._cache_key(), self._encode_texts, scale, bias, device)

    def _encode_texts(self, texts: Sequence[str]) -> Embeddings:
        encoder = self._spaces.encoder
        try:
            vectors = as_embeddings(encoder.encode_texts(texts, role="query"), dim=encoder.dim)
        except ValueError as error:
            model = self._spaces.model
            raise ModelError(f"{model!r} gave no usable vectors for {len(texts)} texts: {error}") from error
        if len(vectors) != len(texts):
            raise ModelError(f"{self._spaces.model!r} gave {len(vectors)} vectors for {len(texts)} texts")
        return vectors

    def _cache_key(self) -> tuple[str, int, str]:
        """Under what the vectors of texts are kept; no fingerprint: they are not."""
        space = self._spaces.in_use()
        return (space.model, space.dim, space.fingerprint) if space else ("", 0, "")
