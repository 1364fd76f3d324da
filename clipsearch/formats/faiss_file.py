"""A FAISS index of all vectors, and beside it a JSON file that says whose they are."""

import json
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import CollectionError
from ..faiss_check import load_faiss
from ..files import remove_durably, write_durably
from ..labels.outputs import shown
from .about import about, write_json
from .outgoing import Outgoing


def write(out: Outgoing, path: Path) -> int:
    """Write the index, which holds float16 values and finds by inner product, and NAME.json last.

    `ids` and `paths` of the JSON file are of position 0, 1, … of the index. FAISS makes its files from
    memory, so this takes two bytes of it for each number.

    Raises:
        CollectionError: the name ends in .json, a file cannot be written, or NAME.json is another's.
    """
    if path.suffix == ".json":
        raise CollectionError(f"found the name {path.name!r}; expected another ending, such as .faiss")
    _refuse_anothers(path.with_suffix(".json"), path.name)
    faiss = load_faiss()
    index = faiss.IndexScalarQuantizer(
        out.space.dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    ids: list[int] = []
    paths: list[str] = []
    for block in out.blocks():
        index.add(block.vectors)
        ids += [picture.id for picture in block.pictures]
        paths += [shown(picture.path) for picture in block.pictures]
    remove_durably(path.with_suffix(".json"))  # so that no index ever stands beside the ids of another
    write_durably(path, partial(_save, faiss, index))
    said = about(out, dtype="float16", pictures=len(ids))
    write_json(path.with_suffix(".json"), said | {"index": path.name, "ids": ids, "paths": paths})
    return len(ids)


def _refuse_anothers(path: Path, index: str) -> None:
    try:
        ours = json.loads(path.read_bytes()).get("index") == index
    except FileNotFoundError:
        return
    except (ValueError, AttributeError):
        ours = False
    if not ours:
        raise CollectionError(
            f"{path} is there and would be replaced, but is not of {index}; choose another name"
        )


def _save(faiss: Any, index: Any, file: BinaryIO) -> None:
    faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
