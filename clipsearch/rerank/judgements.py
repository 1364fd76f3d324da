"""Judgements that were made before, kept in the user's cache folder.

Keys are all that decides a score: the reranker's spec, the query and the picture's content.
CLIPSEARCH_QUERY_CACHE=0 switches it off.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ..query_cache import recall, remember
from ..types import Candidate

FILE = "judgements.sqlite"


class Judgements:
    """The kept scores of one reranker for one query; `spec` None: none are kept."""

    def __init__(self, spec: Mapping[str, Any] | None, query: str, *, needs: str) -> None:
        self._spec, self._query, self._needs = spec, query, needs

    def known(self, candidates: Sequence[Candidate]) -> dict[bytes, float]:
        """The scores of those candidates that were judged before, by their content's digest."""
        if self._spec is None:
            return {}
        keys = {self._key(candidate): candidate.sha256 for candidate in candidates}
        found = recall(FILE, self._name, list(keys))
        return {keys[key]: float(score[0]) for key, score in found.items()}

    def keep(self, candidates: Sequence[Candidate], scores: Sequence[float]) -> None:
        """Keep new scores; what is no number is asked again."""
        if self._spec is not None:
            pairs = zip(candidates, scores, strict=True)
            made = {self._key(of): np.array([score]) for of, score in pairs if np.isfinite(score)}
            remember(FILE, self._name, made)

    @cached_property
    def _name(self) -> str:
        text = json.dumps(dict(self._spec or {}), sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def _key(self, candidate: Candidate) -> str:
        caption = candidate.caption if self._needs == "caption" else ""
        return json.dumps([candidate.sha256.hex(), caption, self._query])
