"""What is in a collection, as JSON values."""

import json
from typing import Any

import numpy as np

from .captions import Captioner, captioners, written
from .index import Keeper
from .spaces import Spaces
from .store import DESCRIPTION, Space, Store
from .tiles import boxes_of


def overview(store: Store, spaces: Spaces, keeper: Keeper) -> dict[str, Any]:
    """Everything that `Collection.info` tells."""
    about: dict[str, Any] = json.loads((store.path / DESCRIPTION).read_bytes())
    return {
        "path": str(store.path),
        **about,
        **store.counts(),
        "tiles": store.tiles() or None,
        "sources": [{"kind": row.kind, "root": row.root} for row in store.sources()],
        "models": [_of_space(store, space, keeper) for space in spaces.all()],
        "captioners": [_of_captioner(store, captioner) for captioner in captioners(store)],
    }


def shown_contents(store: Store, space: Space) -> int:
    """How many contents that some present item shows have a vector in a space."""
    snapshot = store.snapshot(space)
    return len(np.setdiff1d(snapshot.contents, snapshot.hidden))


def _of_space(store: Store, space: Space, keeper: Keeper) -> dict[str, Any]:
    snapshot = store.snapshot(space)
    tiled = snapshot.having(max(2, len(boxes_of(store.tiles()))))
    return {
        "model": space.model,
        "in_use": space.live,
        "dim": space.dim,
        "vectors": len(snapshot),
        "shown": len(np.setdiff1d(snapshot.contents, snapshot.hidden)),
        "tiled": len(np.setdiff1d(tiled, snapshot.hidden)),
        "segments": len(snapshot.segments),
        "bytes": sum(segment.vectors.nbytes for segment in snapshot.segments),
        "index": keeper.describe(snapshot),
        "fingerprint": space.fingerprint,
    }


def _of_captioner(store: Store, captioner: Captioner) -> dict[str, Any]:
    have, failed = written(store, captioner)
    about = {"id": captioner.id, "in_use": captioner.live, "captions": len(have), "failed": len(failed)}
    return {**about, "model": captioner.model, "prompt": captioner.spec["prompt"], "spec": captioner.spec}
