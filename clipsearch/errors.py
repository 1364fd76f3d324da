"""Everything clipsearch raises on purpose.

ClipsearchError
 ├─ ImageError            one picture cannot be read; the reason is the message
 ├─ SourceError           a place to take pictures from is absent, empty or not understood
 ├─ QueryError            a query is not one clipsearch can answer
 ├─ LayoutError           an index layout is unknown or cannot be built
 ├─ LabelError            labels, prompt templates or answers that clipsearch cannot use
 ├─ ModelError            a model is unknown or cannot be loaded whole
 │   └─ ModelMismatchError   its vectors are not comparable with the collection's
 ├─ ServerError           a model's server is down, refuses, or gives what is no answer
 ├─ CollectionError       a folder is not a collection, or not one that this version reads
 │   ├─ LockedError          another process is writing to it
 │   └─ DamagedError         its files are not what was written
 └─ MissingExtraError     an optional package is needed; the pip command is in the message

Anything else that escapes is a bug in clipsearch.
"""

from importlib.util import find_spec

SHOWN = 40  # characters of a text before and after the place of an error in it


class ClipsearchError(Exception):
    """The root: catch this to catch all of them."""


class ImageError(ClipsearchError):
    """One picture cannot be read; the message is the reason, without the picture's name."""


class SourceError(ClipsearchError):
    """A place to take pictures from is absent, empty or not understood."""


class QueryError(ClipsearchError):
    """A query is not one clipsearch can answer."""


class LayoutError(ClipsearchError):
    """An index layout is unknown or cannot be built."""


class LabelError(ClipsearchError):
    """Labels, prompt templates or answers that clipsearch cannot use."""


class ModelError(ClipsearchError):
    """A model is unknown or cannot be loaded whole."""


class ModelMismatchError(ModelError):
    """The model is not the one a collection's vectors were made with."""


class ServerError(ClipsearchError):
    """A model's server is down, refuses, or gives what is no answer."""


class CollectionError(ClipsearchError):
    """A folder is not a collection, or not one that this version reads."""


class LockedError(CollectionError):
    """Another process is writing to the collection."""


class DamagedError(CollectionError):
    """The files of a collection are not what was written."""


class MissingExtraError(ClipsearchError):
    """An optional package is needed."""

    def __init__(self, module: str, *, extra: str) -> None:
        super().__init__(f"this needs the package {module!r}: pip install 'clipsearch[{extra}]'")


def misread(name: str, text: str, at: int, problem: str) -> QueryError:
    """What is wrong with a text that somebody wrote, and at which of its characters, from 0."""
    start, end = max(0, at - SHOWN), at + SHOWN
    part = "…" * (start > 0) + text[start:end] + "…" * (end < len(text))
    return QueryError(f"{name}, at character {at + 1} of [{part}]: {problem}")


def require(module: str, *, extra: str) -> None:
    """Raise MissingExtraError, naming the pip command, unless `module` can be imported."""
    if find_spec(module) is None:
        raise MissingExtraError(module, extra=extra)
