"""clipsearch: search and label a pile of pictures with plain words, with no training.

```python
import clipsearch as cs

photos = cs.Collection("photos.clipsearch", model="builtin")
print(photos.add("~/Photos"))
for hit in photos.search("a dog running on grass", k=10):
    print(f"{hit.score:.3f}  {hit.path}")
```
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .captioners.http import HttpVLM as HttpVLM
    from .collection import Collection as Collection
    from .encoders import load_encoder as load_encoder
    from .errors import ClipsearchError as ClipsearchError
    from .errors import CollectionError as CollectionError
    from .errors import DamagedError as DamagedError
    from .errors import ImageError as ImageError
    from .errors import LabelError as LabelError
    from .errors import LayoutError as LayoutError
    from .errors import LockedError as LockedError
    from .errors import MissingExtraError as MissingExtraError
    from .errors import ModelError as ModelError
    from .errors import ModelMismatchError as ModelMismatchError
    from .errors import QueryError as QueryError
    from .errors import ServerError as ServerError
    from .errors import SourceError as SourceError
    from .labels import Label as Label
    from .labels import LabelResults as LabelResults
    from .labels import read_labels as read_labels
    from .report import Interrupted as Interrupted
    from .report import Report as Report
    from .rerank.sheet import SheetReranker as SheetReranker
    from .results import Hit as Hit
    from .results import SearchResults as SearchResults
    from .types import Embeddings as Embeddings
    from .types import Encoder as Encoder
    from .types import Item as Item
    from .zeroshot import label as label

_HOMES = {
    "ClipsearchError": "errors",
    "Collection": "collection",
    "CollectionError": "errors",
    "DamagedError": "errors",
    "Embeddings": "types",
    "Encoder": "types",
    "Hit": "results",
    "HttpVLM": "captioners.http",
    "ImageError": "errors",
    "Interrupted": "report",
    "Item": "types",
    "Label": "labels",
    "LabelError": "errors",
    "LabelResults": "labels",
    "LayoutError": "errors",
    "LockedError": "errors",
    "MissingExtraError": "errors",
    "ModelError": "errors",
    "ModelMismatchError": "errors",
    "QueryError": "errors",
    "Report": "report",
    "SearchResults": "results",
    "ServerError": "errors",
    "SheetReranker": "rerank.sheet",
    "SourceError": "errors",
    "label": "zeroshot",
    "load_encoder": "encoders",
    "read_labels": "labels",
}

__all__ = list(_HOMES)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import clipsearch` itself costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'clipsearch' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
