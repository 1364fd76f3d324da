"""The words that every room shares: arrays, items and the contracts a user's own class may fulfil."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

Embeddings: TypeAlias = npt.NDArray[np.float32]
"""float32, C order, shape (n, dim), unit rows: a dot product is a cosine."""

FOREIGN = "foreign:"
"""Begins the name under which vectors of a model are kept that another program made with it."""

Role: TypeAlias = Literal["query", "document"]


@dataclass(frozen=True, slots=True)
class Item:
    """One picture of a source.

    Attributes:
        key: its name inside the source: posix path, member name, or what the user called it.
        read: returns the encoded file, or a PIL image where the user handed one over. May raise
            OSError or ImageError: the picture is then recorded as failed.
        stamp: changes whenever the picture does (size and modification time of a file); equal
            stamps mean that it need not be read again. None: it must be read to know.
        metadata: what the source knows of it, as JSON values; kept with the item.
    """

    key: str
    read: Callable[[], "bytes | Image"]
    stamp: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """A place pictures come from.

    Attributes:
        kind: how it is read ("folder", "zip", …).
        root: where it is: an absolute path or pattern; ("kind", root) is the identity of a source.
        lists_all: whether `items` names everything there is, so that an item it no longer
            names is gone. False for lists and iterators, which may be given piece by piece, and
            where a part could not be listed: ask when `items` has ended.
        options: JSON values that, with kind and root, open it again.
    """

    kind: str
    root: str
    lists_all: bool
    options: Mapping[str, Any]

    def items(self) -> Iterator[Item]:
        """Yield every picture, in a stable order, reading none of them.

        Raises:
            SourceError: the root is absent, unreadable or holds no picture at all.
        """

    def item(self, key: str) -> Item | None:
        """The picture of that key as it is now, or None when it is gone."""

    def path(self, key: str) -> str:
        """What to show a person: the file's absolute path, or the archive's path and the member."""


@runtime_checkable
class Encoder(Protocol):
    """Turns pictures and texts into vectors of one space.

    Implement these four names and all of clipsearch works with your model; there is nothing to
    register and no base class. Rows need not have unit length: clipsearch normalises them.

    Optional attributes: `logit_scale` (already exponentiated: 100 for CLIP), `logit_bias`,
    `fingerprint() -> str` (changes when weights or preprocessing do), `close()`, `device`,
    `precision`, and the two methods of `Prepares`.
    """

    model_id: str
    dim: int

    def encode_images(self, images: "Sequence[Image]") -> Embeddings:
        """Encode n RGB pictures of any size to float32 (n, dim), in order; none give (0, dim)."""

    def encode_texts(self, texts: Sequence[str], *, role: Role = "query") -> Embeddings:
        """Encode n texts of any length to float32 (n, dim), in order; none give (0, dim)."""


def fingerprint_of(encoder: Encoder) -> str:
    """What tells an encoder's weights from others; empty when it does not say."""
    own = getattr(encoder, "fingerprint", None)
    return (own() if own else None) or ""


@runtime_checkable
class Prepares(Protocol):
    """What an encoder adds to split the work for the processor's threads from that for the device."""

    min_side: int | None
    """Shortest side, in pixels, the model looks at; None: it wants the native resolution."""

    def prepare(self, image: "Image") -> Any:
        """Resize and crop one RGB picture to what the model takes. Thread-safe; the result is opaque."""

    def encode_prepared(self, batch: Sequence[Any]) -> Embeddings:
        """Encode n prepared pictures to float32 (n, dim), in order; none give (0, dim)."""


@runtime_checkable
class VLM(Protocol):
    """A vision-language model: it writes a text about a picture, or answers yes or no.

    Implement these four names and your own model captions and reranks; there is no base class.
    """

    model_id: str

    def spec(self) -> Mapping[str, Any]:
        """What decides its answers, as JSON values: backend, model, digest of the weights, size of pictures.

        Answers are kept under it, so two that may answer differently must differ in it.
        """

    def generate(
        self, images: "Sequence[Image]", prompt: str | None = None, *, max_tokens: int = 64
    ) -> list[str]:
        """A text for each of n RGB pictures of any size, in order, without the prompt; none give [].

        `prompt` is the same for all; None is what the model is asked for a caption with. Greedy: the same
        picture gives the same text.

        Raises:
            ImageError: this one picture (n = 1) is refused.
            ModelError, ServerError: no picture can be answered now.
        """

    def log_odds(
        self, images: "Sequence[Image]", prompt: str, *, yes: Sequence[str], no: Sequence[str]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Whether each of n pictures is answered with yes.

        Returns:
            log P(yes) - log P(no) of the next token, float64 (n,), over all spellings in `yes` and `no`;
            and P(yes) + P(no), float64 (n,), the share of all answers that were either: low means that
            the prompt does not suit the model. nan where it is not known.
        """


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture that was found, as a reranker sees it.

    Attributes:
        id: the item's number.
        sha256: digest of its content: what a judgement of it is kept under.
        cosine: the first stage's score, if it is one.
        caption: what a captioner has written of it, or None.
        image: returns the picture, RGB and upright, decoded when first asked for.
    """

    id: int
    sha256: bytes
    cosine: float | None
    caption: str | None
    image: "Callable[[], Image]" = field(repr=False, compare=False)


class Reranker(Protocol):
    """Anything that scores how well pictures fit a text. Implement `score`, and `search` takes it as a stage.

    Optional attributes: `depth`, how many of the best it is asked for (20); `budget`, seconds after which
    no more are asked for (None: all); `weight` of its scores beside the first stage's, 0 to 1 (0.3); `how`
    they are fused, "z" (the default) or "rrf";
    `batch_size`, how many at a time (8); `needs`, "pixels" (the default), "caption" or "nothing": a
    candidate that has none is not given to it; `name`, what it is called in results; `load()`, which reads
    the model, before the budget's clock starts; `spec() -> Mapping`, all that decides its scores, as JSON
    values: they are then kept by query and content, with `needs = "caption"` by the caption too, and not
    asked for again; so they may depend on nothing else of a candidate.
    """

    def score(self, query: str, candidates: Sequence[Candidate]) -> npt.ArrayLike:
        """(n,) scores of n candidates, in order, higher is better: log-odds or a similarity; nan: none."""


def as_embeddings(vectors: npt.ArrayLike, *, dim: int | None = None) -> Embeddings:
    """Normalise rows to unit length: the one function that does.

    Args:
        vectors: numbers of shape (n, dim).
        dim: the dimension the rows must have; None accepts any.

    Returns:
        float32, C order, shape (n, dim). n may be 0.

    Raises:
        ValueError: it is no array of numbers, the shape is another one, or a row is zero or not
            finite and so has no direction.
    """
    try:
        rows = np.ascontiguousarray(vectors, dtype=np.float32)
    except (TypeError, RuntimeError) as error:
        hint = "a torch tensor wants .detach().float().cpu().numpy()"
        raise ValueError(f"{type(vectors).__name__} is no array of numbers ({error}); {hint}") from error
    if rows.ndim != 2 or (dim is not None and rows.shape[1] != dim):
        raise ValueError(f"embeddings must have shape (n, {dim or 'dim'}), got {rows.shape}")
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))[:, None]  # (n, 1)
    if not np.isfinite(norms).all() or not norms.all():
        bad = int(np.flatnonzero(~np.isfinite(norms[:, 0]) | (norms[:, 0] == 0))[0])
        raise ValueError(f"embedding {bad} has length {norms[bad, 0]}: it has no direction")
    return np.ascontiguousarray(rows / norms, dtype=np.float32)
