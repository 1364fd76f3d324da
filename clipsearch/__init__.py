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
    from .captioners.local import LocalVLM as LocalVLM
    from .captioning import CaptionReport as CaptionReport
    from .collection import Collection as Collection
    from .duplicates import DuplicateGroup as DuplicateGroup
    from .duplicates import Duplicates as Duplicates
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
    from .query import Query as Query
    from .report import Interrupted as Interrupted
    from .report import Report as Report
    from .rerank.by_caption import CaptionReranker as CaptionReranker
    from .rerank.itm import ItmReranker as ItmReranker
    from .rerank.pairs import PairReranker as PairReranker
    from .rerank.sheet import SheetReranker as SheetReranker
    from .rerank.yes_no import YesNoReranker as YesNoReranker
    from .results import Hit as Hit
    from .results import SearchResults as SearchResults
    from .types import VLM as VLM
    from .types import Candidate as Candidate
    from .types import Embeddings as Embeddings
    from .types import Encoder as Encoder
    from .types import Item as Item
    from .types import Reranker as Reranker
    from .zeroshot import label as label

_HOMES = {
    "Candidate": "types",
    "CaptionReport": "captioning",
    "CaptionReranker": "rerank.by_caption",
    "ClipsearchError": "errors",
    "Collection": "collection",
    "CollectionError": "errors",
    "DamagedError": "errors",
    "DuplicateGroup": "duplicates",
    "Duplicates": "duplicates",
    "Embeddings": "types",
    "Encoder": "types",
    "Hit": "results",
    "HttpVLM": "captioners.http",
    "ImageError": "errors",
    "Interrupted": "report",
    "Item": "types",
    "ItmReranker": "rerank.itm",
    "Label": "labels",
    "LabelError": "errors",
    "LabelResults": "labels",
    "LayoutError": "errors",
    "LocalVLM": "captioners.local",
    "LockedError": "errors",
    "MissingExtraError": "errors",
    "ModelError": "errors",
    "ModelMismatchError": "errors",
    "PairReranker": "rerank.pairs",
    "Query": "query",
    "QueryError": "errors",
    "Report": "report",
    "Reranker": "types",
    "SearchResults": "results",
    "ServerError": "errors",
    "SheetReranker": "rerank.sheet",
    "SourceError": "errors",
    "VLM": "types",
    "YesNoReranker": "rerank.yes_no",
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
