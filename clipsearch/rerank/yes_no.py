"""The usual second look: a vision-language model is asked whether a picture shows what was asked for."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..captioners import load_vlm
from ..encoders.names import short
from ..errors import ModelError, QueryError
from ..types import VLM, Candidate
from .fusion import WEIGHT, How

if TYPE_CHECKING:
    from PIL.Image import Image

Numbers: TypeAlias = npt.NDArray[np.float64]

logger = logging.getLogger("clipsearch")

PROMPT = 'Does this picture show "{query}"? Answer with one word, yes or no.'
YES, NO = ("yes", "Yes", "YES"), ("no", "No", "NO")
LOW_MASS = 0.3  # P(yes) + P(no) below which the model was hardly answering the question


class YesNoReranker:
    """Scores pictures by log P(yes) - log P(no), as VQAScore does (Lin et al., arXiv 2404.01291).

    One forward pass for each picture, the picture before the text. See `Reranker` for the attributes.
    """

    needs = "pixels"

    def __init__(
        self,
        vlm: str | os.PathLike[str] | VLM,
        *,
        depth: int = 20,
        budget: float | None = None,
        weight: float = WEIGHT,
        how: How = "z",
        batch_size: int = 8,
        prompt: str = PROMPT,
        yes: Sequence[str] = YES,
        no: Sequence[str] = NO,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        """Judge with a model.

        Args:
            vlm: a hub id or a directory, a `cs.HttpVLM`, or a model of your own.
            depth: how many of the best are judged.
            budget: seconds after which no further picture is judged; None: all are.
            weight: of its scores beside the first stage's, from 0 to 1.
            how: they are fused, "z" or "rrf"; see `fused`.
            batch_size: pictures judged at a time.
            prompt: the question; {query} stands for the query.
            yes: spellings that count as yes.
            no: spellings that count as no.
            device: of a local model, see `Collection`.
            precision: likewise.
        """
        if isinstance(yes, str) or isinstance(no, str):
            raise QueryError(f"yes and no are lists of spellings, got {yes!r} and {no!r}")
        self._vlm = load_vlm(vlm, device=device, precision=precision)
        self.depth, self.budget, self.weight, self.how = depth, budget, weight, how
        self.batch_size = batch_size
        self._prompt, self._yes, self._no = prompt, list(yes), list(no)
        self._warned = False

    @property
    def name(self) -> str:
        """What it is called in results."""
        return f"yes-no:{short(self._vlm.model_id)}"

    def load(self) -> None:
        """Read the model now, if it can be told to."""
        getattr(self._vlm, "load", lambda: None)()

    def spec(self) -> Mapping[str, Any]:
        """All that decides a score."""
        words = {"prompt": self._prompt, "yes": self._yes, "no": self._no}
        return {"model": self._vlm.model_id, "vlm": dict(self._vlm.spec()), **words}

    def score(self, query: str, candidates: Sequence[Candidate]) -> Numbers:
        """Log-odds of yes for n pictures, float64 (n,)."""
        question = self._prompt.replace("{query}", query)
        images = [candidate.image() for candidate in candidates]
        odds, mass = self._asked(images, question)
        if mass.size and not self._warned and np.median(mass) < LOW_MASS:
            self._warned = True
            logger.warning(
                "%s hardly answers with yes or no (it does so with a probability of %.2f): "
                "its scores may mean little; another prompt may help",
                self._vlm.model_id,
                np.median(mass),
            )
        return odds

    def _asked(self, images: "list[Image]", question: str) -> tuple[Numbers, Numbers]:
        given = self._vlm.log_odds(images, question, yes=self._yes, no=self._no)
        try:
            odds, mass = (np.asarray(numbers, np.float64) for numbers in given)
        except (TypeError, ValueError) as error:
            wanted = "two arrays, of log-odds and of probabilities"
            raise ModelError(f"{self._vlm.model_id!r} gave {given!r:.80}; expected {wanted}") from error
        return odds, mass
