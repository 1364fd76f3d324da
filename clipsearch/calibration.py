"""What is usual in a collection: neutral queries beside its pictures, for relevance and for sums of both."""

import re
from typing import Literal, TypeAlias

import numpy as np

from .bank import Language
from .embedder import Embedder
from .query import Query, totals
from .query_vectors import Means
from .relevance import Background
from .search import Searcher
from .types import Embeddings, as_embeddings

Kind: TypeAlias = Literal["english", "korean", "picture", "mixed"]
"""What a query is made of: texts in a language, pictures, or both."""

SAMPLE = 1000  # pictures
USUAL, USUAL_OF_PICTURES = 0.9, 0.5  # shares of neutral queries, and of pictures, that find nothing relevant
HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]")


class Calibration:
    """Backgrounds of the collection as it is searched now, each made when first needed."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._held: tuple[Searcher, Embeddings, dict[Kind, Background]] | None = None

    def ready(self, kind: Kind) -> bool:
        """Whether the neutral captions were encoded before that a kind of query is compared with."""
        return self._embedder.knows_neutral(_language(kind))

    def background(self, searcher: Searcher, kind: Kind) -> Background:
        """What queries of a kind are compared with; neutral captions are encoded now if they were not yet."""
        pictures, made = self._of(searcher)
        if kind not in made:
            made[kind] = self._made(pictures, kind)
        return made[kind]

    def means(self, searcher: Searcher) -> Means:
        """The mean of neutral captions and of the collection's pictures."""
        return Means(self._embedder.neutral("english").mean(0), self.pictures(searcher).mean(0))

    def pictures(self, searcher: Searcher) -> Embeddings:
        """Vectors of up to 1,000 pictures, evenly from all, float32 (n, dim)."""
        return self._of(searcher)[0]

    def _of(self, searcher: Searcher) -> tuple[Embeddings, dict[Kind, Background]]:
        held = self._held
        if held is None or held[0] is not searcher:
            held = self._held = searcher, searcher.sample(SAMPLE), {}
        return held[1:]

    def _made(self, pictures: Embeddings, kind: Kind) -> Background:
        if kind == "picture":
            return Background(pictures, pictures, usual=USUAL_OF_PICTURES, own=True)
        neutral = self._embedder.neutral(_language(kind))
        return Background(_centred(neutral) if kind == "mixed" else neutral, pictures, usual=USUAL)


def kind_of(unit: Query, vector: Embeddings, means: Means | None = None) -> Kind:
    """What a unit of a query is made of; a vector from elsewhere is of the modality whose mean is nearer."""
    leaves = [leaf for _, leaf in totals(unit)]
    kinds = {"picture" if leaf.kind in ("item", "image") else leaf.kind for leaf in leaves}
    if len(kinds) > 1:
        return "mixed"
    if kinds == {"embedding"} and means is not None:
        far = [float(np.linalg.norm(vector - mean)) for mean in means]
        return "english" if far[0] < far[1] else "picture"
    if kinds != {"text"}:
        return "picture"
    return language_of(*(leaf.value for leaf in leaves))


def language_of(*texts: str) -> Language:
    """The language of neutral captions that are compared with some texts."""
    return "korean" if any(map(HANGUL.search, texts)) else "english"


def _language(kind: Kind) -> Language:
    return "korean" if kind == "korean" else "english"


def _centred(neutral: Embeddings) -> Embeddings:
    """Texts as `combine` takes them into a sum with pictures."""
    return as_embeddings(neutral - neutral.mean(0))
