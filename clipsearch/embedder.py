"""The vectors of what is asked: texts, through a cache, and pictures, from the store where they are there."""

from collections.abc import Sequence
from functools import partial
from numbers import Integral
from typing import TypeAlias, cast

import numpy as np

from . import bank
from .arguments import Picture, encode_picture
from .encoders import notice_script, stranger
from .errors import ModelError, QueryError
from .labels import TextModel
from .pictures import Pictures
from .progress import progress_bar
from .query_cache import cached, kept
from .reader import Reader
from .results import Hit
from .spaces import Spaces
from .types import Embeddings, as_embeddings, fingerprint_of

Key: TypeAlias = tuple[str, int, str]
"""A model's name, dimension and fingerprint."""

NEUTRAL = "neutral.sqlite"  # the cache of neutral captions, which no query is to push out
TOGETHER = 64  # neutral captions encoded at a time


class Embedder:
    """Embeds queries with the model in use, which is loaded when first needed."""

    def __init__(self, spaces: Spaces, reader: Reader, pictures: Pictures) -> None:
        self._spaces, self._reader, self._pictures = spaces, reader, pictures
        self._neutral: dict[Key, Embeddings] = {}

    @property
    def model(self) -> str:
        """The id of the model in use."""
        return self._spaces.model

    def stranger(self, texts: Sequence[str]) -> str | None:
        """The first of some texts that is in a script which the model does not know."""
        return stranger(self._spaces.model, texts)

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
            return searcher.embedding(self._pictures.content(picture))
        return encode_picture(cast("Picture", picture), self._spaces.encoder)

    def neutral(self, language: bank.Language) -> Embeddings:
        """The vectors of the neutral captions of a language, float32 (B, dim); encoded once for a model."""
        texts = bank.captions(language)
        if language == "korean" and self.stranger(texts):
            raise QueryError(f"{self.model} knows English only: calibrating it in Korean would mean nothing")
        key = self._neutral_key(language)
        if key not in self._neutral:
            whole = kept(NEUTRAL, " ".join(map(str, key))) == len(texts)
            self._neutral[key] = self._cached(key, texts) if whole else self._encode_neutral(key, texts)
        return self._neutral[key]

    def knows_neutral(self, language: bank.Language) -> bool:
        """Whether the neutral captions of a language were encoded with this model before."""
        if self._spaces.in_use() is None:
            return False
        key = self._neutral_key(language)
        known = key in self._neutral or (bool(key[2]) and kept(NEUTRAL, " ".join(map(str, key))))
        return known is True or known == len(bank.captions(language))

    def _neutral_key(self, language: bank.Language) -> Key:
        """Under what they are kept; before the first add that of the model which it will use."""
        name, dim, marks = self._cache_key()
        if self._spaces.in_use() is None:
            encoder = self._spaces.encoder
            name, dim, marks = encoder.model_id, encoder.dim, fingerprint_of(encoder)
        return f"{language} {name}", dim, marks

    def _encode_neutral(self, key: Key, texts: Sequence[str]) -> Embeddings:
        parts = []
        with progress_bar("calibrating", None, unit="captions", total=len(texts)) as bar:
            for start in range(0, len(texts), TOGETHER):
                parts.append(self._cached(key, texts[start : start + TOGETHER]))
                bar.update(len(parts[-1]))
        return np.concatenate(parts)

    def _cached(self, key: Key, texts: Sequence[str]) -> Embeddings:
        return cached(key, texts, self._encode_texts, file=NEUTRAL)

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
