"""A zero-shot classifier: label vectors made from texts, and what they say of pictures' vectors.

Formulas. c is a cosine, s the model's logit scale, b its logit bias.

- softmax, for one label a picture (CLIP; Radford et al. 2021): p_l = exp(s c_l) / sum_j exp(s c_j).
- sigmoid, for several, of models trained with it (SigLIP; Zhai et al. 2023): p_l = 1 / (1 + exp(-s c_l - b)).
- contrast, for several, of all other models: the share of the B background words that fit the picture
  less than the label does, the best of them counted softly (`share_above`). So no two models' scores mean
  different things.
- none of these: with r the share of the background words that fit better than the best of L labels,
  1 - (1 - r)^L is the chance that of L words drawn from the background one fits better than that; L is taken
  to be B where it is more.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import LabelError
from ..query_cache import cached
from ..types import Embeddings, as_embeddings
from .best import Best, Product, Weights, on_device, on_host, scaled
from .labelset import Label, LabelSet
from .templates import Templates, open_clip_metadata, read_templates

ScoreKind = Literal["softmax", "sigmoid", "contrast"]
Encode = Callable[[Sequence[str]], Embeddings]

DEFAULT_SCALE = 100.0  # of an encoder that tells none: CLIP's
SAME = 0.99  # cosine from which on a word is the label
RELATED = 4.0  # standard deviations above a label's mean from which a background word is taken for a synonym
BLOCK = 16_000_000  # cosines computed at a time, 64 MB
LABELS_TOGETHER = 64  # encoded before they are kept, so that a stop costs little


class TextModel(NamedTuple):
    """What a classifier needs of an encoder: its text side.

    Attributes:
        name: its id.
        key: id, dimension and fingerprint, by which label vectors are kept.
        encode: gives float32 (n, dim) unit rows for n texts.
        scale, bias: logit scale and logit bias; None where it has none.
        device: tells where it computes; asking may import torch.
    """

    name: str
    key: tuple[str, int, str]
    encode: Encode
    scale: float | None = None
    bias: float | None = None
    device: Callable[[], str] = lambda: "cpu"


class Scores(NamedTuple):
    """What a classifier says of n pictures: their k best labels."""

    top: npt.NDArray[np.int32]  # (n, k) positions of labels, best first; -1 where nothing is known
    scores: npt.NDArray[np.float32]  # (n, k) probabilities, or shares for "contrast"
    cosines: npt.NDArray[np.float32]  # (n, k)
    unknown: npt.NDArray[np.float32]  # (n,) chance that none of the labels fits; nan where not asked

    def at(self, rows: slice | npt.NDArray[np.int64]) -> "Scores":
        """The scores of some pictures."""
        return Scores(self.top[rows], self.scores[rows], self.cosines[rows], self.unknown[rows])

    def spread(self, rows: npt.NDArray[np.int64]) -> "Scores":
        """The scores of pictures of which each has one of these rows, (m,); -1 gives -1 and nan."""
        blank = np.full((1, self.top.shape[1]), np.nan, np.float32)
        nothing = Scores(np.full(blank.shape, -1, np.int32), blank, blank, blank[:, 0])
        return joined([self, nothing], self.top.shape[1]).at(rows)  # -1 is the last


@dataclass(frozen=True)
class Classifier:
    """Label vectors and how to read them.

    Attributes:
        vectors: float32 (L, dim), unit rows: one for each label.
        background: float32 (B, dim), unit rows, of words that are none of the labels; (0, dim): not asked.
        kind: how cosines become scores; see above.
        scale, bias: of the model.
        shift: float32 (L, dim), what examples add to the logits, or None; see `refine`.
        asks: whether a picture may be none of the labels.
        device: of the matrix products: "cpu" (by NumPy), "cuda", "cuda:1", "mps".
    """

    vectors: Embeddings
    background: Embeddings
    kind: ScoreKind
    scale: float
    bias: float = 0.0
    shift: npt.NDArray[np.float32] | None = None
    asks: bool = True
    device: str = "cpu"

    def __call__(self, embeddings: Embeddings, k: int) -> Scores:
        """Score pictures.

        Args:
            embeddings: float32 (n, dim), unit rows; n may be 0.
            k: how many labels to give for each, at most L.
        """
        step = max(1, BLOCK // (len(self.vectors) + len(self.background)))
        blocks = (embeddings[i : i + step] for i in range(0, len(embeddings), step))
        return joined([self._scores(self._product(block, k)) for block in blocks], k)

    def _scores(self, best: Best) -> Scores:
        if self.kind == "softmax":
            scores = np.exp(best.logits - best.excess[:, None])
        elif self.kind == "sigmoid":
            scores = 1 / (1 + np.exp(-best.logits - self.bias))
        else:
            scores = 1 - best.share
        fits = (1 - best.share[:, 0]) ** max(1, min(len(self.vectors), len(self.background)))
        unknown = 1 - fits if self.asks else np.full(len(fits), np.nan)
        return Scores(best.top.astype(np.int32), scores, best.cosines, unknown.astype(np.float32))

    @cached_property
    def _product(self) -> Product:
        return (
            partial(on_host, self._weights) if self.device == "cpu" else on_device(self._weights, self.device)
        )

    @property
    def _weights(self) -> Weights:
        return Weights(self.vectors, self.background, self.scale, self.shift)

    def logits(self, embeddings: Embeddings) -> npt.NDArray[np.float32]:
        """What softmax and sigmoid are taken of, float32 (n, L)."""
        return scaled(self._weights, embeddings, embeddings @ self.vectors.T)


def build_classifier(
    labels: LabelSet,
    templates: Templates,
    model: TextModel,
    *,
    multi: bool = False,
    scores: str = "auto",
    unknown: bool = True,
    done: Callable[[int], object] = bool,
) -> Classifier:
    """Make a classifier of texts alone.

    Args:
        labels: what to tell apart.
        templates: what a label's names are put into.
        model: whose text tower encodes them.
        multi: a picture may have several labels, or none.
        scores: "softmax", "sigmoid", "contrast" or "auto": softmax for one label a picture; for
            several, sigmoid where the model has a logit bias, else contrast.
        unknown: give pictures a chance to be none of these. About 1,000 words more are encoded, once.
        done: called with how many labels have become vectors, several times.

    Raises:
        LabelError: there are no such scores, or sigmoid for a model without a logit bias.
    """
    kind = _kind(scores, multi, model)
    vectors = label_vectors(labels, templates, model, done)
    needed = unknown or kind == "contrast"
    return Classifier(
        vectors,
        background(vectors, model, done) if needed else vectors[:0],
        kind,
        DEFAULT_SCALE if model.scale is None else model.scale,
        model.bias or 0.0,
        asks=unknown,
    )


def _kind(scores: str, multi: bool, model: TextModel) -> ScoreKind:
    several: ScoreKind = "contrast" if model.bias is None else "sigmoid"
    kinds: dict[str, ScoreKind] = {"sigmoid": "sigmoid", "contrast": "contrast"}
    kinds |= {"auto": several} if multi else {"auto": "softmax", "softmax": "softmax"}
    if scores not in kinds:
        raise LabelError(f"found scores={scores!r}; expected one of {', '.join(map(repr, kinds))}")
    if scores == "sigmoid" and model.bias is None:
        raise LabelError(f"{model.name!r} was not trained for sigmoid scores: use 'contrast', or 'auto'")
    return kinds[scores]


def label_vectors(
    labels: LabelSet, templates: Templates, model: TextModel, done: Callable[[int], object] = bool
) -> Embeddings:
    """One vector for each label, float32 (L, dim), unit rows.

    The mean of the unit vectors of all its prompts, brought back to unit length (prompt ensembling,
    Radford et al. 2021, section 3.1.4). Vectors made before come from the cache.
    """
    prompts = [_prompts(label, templates) for label in labels]
    by_key = {_key(texts): texts for texts in prompts}
    keys, rows = [_key(texts) for texts in prompts], []
    for start in range(0, len(keys), LABELS_TOGETHER):
        part = keys[start : start + LABELS_TOGETHER]
        rows.append(cached(model.key, part, lambda new: _ensembles([by_key[k] for k in new], model.encode)))
        done(len(part))
    return np.concatenate(rows)


def _key(prompts: Sequence[str]) -> str:
    """What a group of prompts is kept under: one alone is a query like any other."""
    if len(prompts) == 1:
        return prompts[0]
    return "prompts " + hashlib.sha256(json.dumps(prompts).encode()).hexdigest()


def _prompts(label: Label, templates: Templates) -> list[str]:
    names = (label.name, *label.synonyms)
    return list(label.prompts) or [text for name in names for text in templates.prompts(name)]


def _ensembles(prompts: Sequence[Sequence[str]], encode: Encode) -> Embeddings:
    """The mean direction of each group of texts, which are encoded together."""
    texts = list(dict.fromkeys(text for group in prompts for text in group))
    place = {text: row for row, text in enumerate(texts)}
    vectors = encode(texts)
    return as_embeddings([vectors[[place[text] for text in group]].mean(0) for group in prompts])


def background(vectors: Embeddings, model: TextModel, done: Callable[[int], object] = bool) -> Embeddings:
    """Vectors of the words that pictures may show beside the labels: float32 (B, dim), unit rows.

    They are the names of ImageNet's classes without those that mean about the same as a label, which
    would be labels and no background (the idea of NegLabel, Jiang et al. 2024, whose negative labels
    are words far from the labels).
    """
    names = list(dict.fromkeys(open_clip_metadata("IMAGENET_CLASSNAMES")))
    words = label_vectors(LabelSet(tuple(map(Label, names))), read_templates("photo"), model, done)
    near = words @ vectors.T  # (B, L)
    far = np.minimum(near.mean(0) + RELATED * near.std(0), SAME)
    rest: Embeddings = words[(near < far).all(1)]
    return rest


def score_all(
    classify: Classifier, blocks: Iterable[Embeddings], k: int, done: Callable[[int], object] = bool
) -> Scores:
    """The scores of many pictures, whose vectors come a block at a time."""
    parts = []
    for block in blocks:
        parts.append(classify(block, k))
        done(len(block))
    return joined(parts, k)


def joined(parts: Sequence[Scores], k: int) -> Scores:
    """One after the other; no parts give (0, k)."""
    empty = np.empty((0, k), np.float32)
    first = Scores(empty.astype(np.int32), empty, empty, empty.sum(1))
    return Scores(*map(np.concatenate, zip(first, *parts, strict=True)))
