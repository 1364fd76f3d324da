"""From stored vectors to a published index: built, tuned on held-out queries, put in place."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..bank import captions
from ..errors import LayoutError
from ..exact import ExactIndex
from ..spec import AUTO, Choice, choose, spec_of
from ..store import Snapshot, Space, Store
from ..types import Embeddings
from .approximate import TUNED_FOR
from .layout import make_layout
from .published import About, Tuned, Wish, publish
from .tuning import tune

logger = logging.getLogger("clipsearch")

TEXTS, IMAGES = 1000, 500  # held-out queries of each kind
LEAST = 100  # texts to tune on
SHIPPED = "captions that ship with clipsearch"
Encode = Callable[[Sequence[str]], Embeddings]


def chosen(snapshot: Snapshot, wanted: str, memory: int | None) -> Choice:
    """The layout that is wanted for a snapshot, and why."""
    if wanted != AUTO:
        return Choice(spec_of(wanted), "chosen by hand")
    return choose(len(shown_rows(snapshot)), snapshot.space.dim, memory)


def build(
    store: Store,
    space: Space,
    encode: Encode,
    *,
    wanted: Wish,
    queries: Sequence[str] | None = None,
    memory: int | None = None,
    done: Callable[[int], object] = lambda rows: None,
) -> About:
    """Build, tune and publish the index of a space; searches go on meanwhile.

    Args:
        store: the collection.
        space: whose vectors.
        encode: gives float32 (n, dim) unit rows for n texts.
        wanted: the layout, and the recall@10 to reach on text queries, and on pictures as queries.
        queries: texts to tune on; None: captions that ship with clipsearch.
        memory: bytes that an index chosen by "auto" may take; None: any.
        done: told how many more vectors are in.

    Raises:
        LayoutError: the layout is unknown or cannot be built of so few vectors.
        CollectionError: the disk is full or the folder cannot be written.
    """
    started = time.perf_counter()
    snapshot = store.snapshot(space)
    choice = chosen(snapshot, wanted.layout, memory)
    about = About(wanted, choice.spec.name, choice.why)
    if not choice.spec.factory:
        return publish(store, space, about, None, np.empty(0, np.int64))
    rows = shown_rows(snapshot)
    if not len(rows):
        raise LayoutError(f"there are no pictures to build {choice.spec.name!r} of; add some first")
    if len(rows) < choice.spec.min_rows:
        logger.info("%s pays from %s vectors on", choice.spec.name, f"{choice.spec.min_rows:,}")
    logger.info(f"building the index {choice.spec.name} of {len(rows):,} vectors: {choice.why}")
    layout = make_layout(choice.spec, rows, snapshot.vectors, space.dim, done=done)
    logger.info("tuning it")
    untuned = Tuned(choice.spec.probes, choice.spec.depth, 0.0, 0.0, 0, "nothing: the model encodes no texts")
    tuned = {"text": untuned} | {
        kind: tune(layout, asked, nearest, target=wanted.target_recall, source=source)
        for kind, (asked, nearest, source) in _held_out(snapshot, rows, encode, queries).items()
    }
    for short in _short_of(tuned, wanted.target_recall):
        logger.warning(short)
    about = replace(
        about,
        factory=choice.spec.written_out(len(rows), space.dim),
        tuned=tuned,
        seconds=round(time.perf_counter() - started, 1),
    )
    about = publish(store, space, about, layout, snapshot.contents[rows])
    logger.info(f"the index {about.layout} is in place, after {about.seconds:,.0f} s")
    return about


def shown_rows(snapshot: Snapshot) -> npt.NDArray[np.int64]:
    """The rows that may be found, ascending."""
    return np.arange(len(snapshot)) if snapshot.shown is None else np.flatnonzero(snapshot.shown)


def _held_out(
    snapshot: Snapshot, rows: npt.NDArray[np.int64], encode: Encode, queries: Sequence[str] | None
) -> dict[str, tuple[Embeddings, npt.NDArray[np.int64], str]]:
    """By kind: queries, the positions of their nearest vectors, (q, 10), and what they are."""
    exact, held = ExactIndex(snapshot), {}
    own = np.random.default_rng(1).permutation(rows)[:IMAGES]
    pictures = snapshot.vectors(own)
    contents = snapshot.contents
    near = [near.rows for near in exact.search(pictures, TUNED_FOR + snapshot.rows_each)]
    others = [
        found[contents[found] != contents[row]][:TUNED_FOR] for found, row in zip(near, own, strict=True)
    ]
    held["image"] = (pictures, _positions(rows, others), "stored vectors, each without itself")
    texts, source = _texts(queries)
    try:
        asked = encode(texts)
    except NotImplementedError as error:
        if queries is not None:
            raise
        logger.warning("the index is not tuned on texts, since the model encodes none: %r", error)
        return held
    near = [near.rows for near in exact.search(asked, TUNED_FOR)]
    held["text"] = (asked, _positions(rows, near), source)
    return held


def _texts(queries: Sequence[str] | None) -> tuple[list[str], str]:
    """Texts to tune on, at least LEAST of them, and what they are."""
    if queries is None:
        return captions()[:TEXTS], SHIPPED
    more = captions()[: max(0, LEAST - len(queries))]  # a few texts are sure of nothing
    return [*queries, *more], "texts that were given" + (f", and {len(more)} {SHIPPED}" if more else "")


def _positions(rows: npt.NDArray[np.int64], found: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """(q, 10) where among `rows` each found row is; -1 where fewer were found."""
    out = np.full((len(found), TUNED_FOR), -1, np.int64)
    for line, near in zip(out, found, strict=True):
        line[: len(near)] = np.searchsorted(rows, near)
    return out


def _short_of(tuned: Mapping[str, Tuned], target: float) -> Iterator[str]:
    """What to say of kinds of queries for which no setting reached the target."""
    for kind, found in tuned.items():
        if found.queries and found.at_least < target:
            yield (
                f"no setting of this index is sure to find {target:.0%} for {kind} queries: "
                f"{found.recall:.1%} found, at least {found.at_least:.1%}; "
                "a lower target_recall or another layout may fit better"
            )
