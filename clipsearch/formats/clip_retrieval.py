"""The folder of embeddings that clip-retrieval's inference writes and its index, and autofaiss, read.

img_emb/img_emb_0.npy          float16 (n, dim), unit rows
metadata/metadata_0.parquet    row j is of vector j: image_path, caption, and what else is known

Its readers sort the files by name, so numbers have as many digits as the number of files.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import SourceError, require
from ..files import make_folder
from .about import NAME, about, new_folder, read_about, write_json
from .arrow import kinds_of, rows, schema, table
from .incoming import Batch, Incoming, incoming, mapped
from .npy import ArrayFile
from .outgoing import TOGETHER, Block, Outgoing
from .parquet import opened

IMAGES, METADATA = "img_emb", "metadata"
PARTITION = 1_000_000  # pictures in a pair of files


def write(out: Outgoing, folder: Path) -> int:
    """Write the folder, and clipsearch.json last, which says the model: the layout itself does not.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    require("pyarrow", extra="parquet")
    with new_folder(folder):
        count = _write(out, folder)
        write_json(folder / NAME, about(out, dtype="float16", pictures=count))
    return count


def _write(out: Outgoing, folder: Path) -> int:
    for name in (IMAGES, METADATA):
        make_folder(folder / name)
    kinds = kinds_of(out.metadata())
    digits = len(str(-(-out.total // PARTITION)))
    blocks, count, number = _Whole(out.blocks()), 0, 0
    while number == 0 or not blocks.ended:
        count += _partition(blocks, folder, f"{number:0{digits}d}", out.space.dim, kinds)
        number += 1
    return count


class _Whole:
    """Blocks cut so that none crosses the end of a partition."""

    def __init__(self, blocks: Iterator[Block]) -> None:
        """Begin with the first block."""
        self._blocks, self._held = blocks, next(blocks, None)

    @property
    def ended(self) -> bool:
        """Whether there is no more."""
        return self._held is None

    def take(self, most: int) -> Block | None:
        """The next pictures, at most so many; None: there are no more."""
        if self._held is None:
            return None
        (pictures, vectors), self._held = self._held, None
        if len(pictures) > most:
            self._held = Block(pictures[most:], vectors[most:])
        else:
            self._held = next(self._blocks, None)
        return Block(pictures[:most], vectors[:most])


def _partition(blocks: _Whole, folder: Path, number: str, dim: int, kinds: dict[str, str]) -> int:
    from pyarrow.parquet import ParquetWriter

    columns = schema(kinds, path="image_path")
    with (
        ArrayFile(folder / IMAGES / f"img_emb_{number}.npy", np.dtype(np.float16), dim) as vectors,
        ParquetWriter(folder / METADATA / f"metadata_{number}.parquet", columns) as known,
    ):
        while vectors.rows < PARTITION and (block := blocks.take(PARTITION - vectors.rows)):
            vectors.append(block.vectors)
            known.write_table(table(block.pictures, kinds, columns))
        return vectors.rows


def read(folder: Path) -> Incoming:
    """What such a folder holds, whoever wrote it.

    Raises:
        SourceError: a file is absent, or its partner has another number of rows.
        MissingExtraError: pyarrow is not installed.
    """
    require("pyarrow", extra="parquet")
    pairs = [_pair(path, folder) for path in sorted((folder / IMAGES).glob("*.npy"))]
    if not pairs:
        raise SourceError(
            f"{folder} holds no {IMAGES}/*.npy; expected a folder of clip-retrieval's embeddings"
        )
    dims = sorted({vectors.shape[1] for vectors, _ in pairs})
    if len(dims) > 1:
        raise SourceError(f"{folder / IMAGES} holds vectors of {dims} numbers; expected one dimension")
    total = sum(len(vectors) for vectors, _ in pairs)
    batches = (batch for pair in pairs for batch in _batches(*pair))
    return incoming(read_about(folder / NAME), dims[0], total, batches)


def _pair(path: Path, folder: Path) -> tuple[npt.NDArray[Any], Path]:
    known = folder / METADATA / f"{path.stem.replace(IMAGES, METADATA, 1)}.parquet"
    vectors = mapped(path)
    with opened(known) as file:
        count = file.metadata.num_rows
    if count != len(vectors):
        raise SourceError(f"{known} has {count:,} rows for the {len(vectors):,} vectors of {path.name}")
    return vectors, known


def _batches(vectors: npt.NDArray[Any], known: Path) -> Iterator[Batch]:
    start = 0
    with opened(known) as file:
        for batch in file.iter_batches(TOGETHER):
            yield rows(batch, known, start + 1), vectors[start : start + len(batch)]
            start += len(batch)
