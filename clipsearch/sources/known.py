"""What is known of a picture: names and values, which are kept as JSON."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cached_property
from pathlib import PurePath
from typing import Any
from uuid import UUID

import numpy as np

from ..errors import SourceError


class Known(Mapping[str, Any]):
    """What is known of a picture, read when it is first looked at: never for one that is unchanged.

    Args:
        load: gives the values; those that are None are left out, as nothing is known there.
    """

    def __init__(self, load: Callable[[], Mapping[str, Any]]) -> None:
        self._load = load

    @cached_property
    def _values(self) -> dict[str, Any]:
        return {str(name): value for name, value in self._load().items() if value is not None}

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def as_json(metadata: Mapping[str, Any]) -> str:
    """What is known of a picture as JSON.

    Numbers and arrays of NumPy become those of Python, dates and times ISO 8601; paths, UUIDs and spans of
    time become texts. A number that JSON cannot write, such as nan, is nothing known.

    Raises:
        SourceError: a value is of another kind.
    """
    return json.dumps({name: _value(name, value) for name, value in dict(metadata).items()})


def both(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """What two tell of one picture: once what they agree on, else the list of all."""
    told = {**first, **second}
    for name in first.keys() & second.keys():
        if first[name] != second[name]:
            listed = _listed(first[name])
            told[name] = [*listed, *(value for value in _listed(second[name]) if value not in listed)]
    return told


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _value(name: object, value: Any) -> Any:
    match value:
        case None | str() | bool() | int():
            return value
        case float() | Decimal():
            return float(value) if math.isfinite(value) else None
        case Mapping():
            return {inner: _value(name, one) for inner, one in value.items()}
        case list() | tuple():
            return [_value(name, one) for one in value]
        case datetime() | date() | time():
            return value.isoformat() if value == value else None  # NaT, which pandas has, equals nothing
        case PurePath() | UUID() | timedelta():
            return str(value)
        case np.ndarray() | np.generic() if value.dtype.kind in "mM":  # nanoseconds have no tolist() but ints
            return np.where(np.isnat(value), np.array(None), value.astype(str)).tolist()
        case np.ndarray() | np.generic() if value.dtype.kind not in "cSV":
            return _value(name, value.tolist())
    raise SourceError(
        f"found {type(value).__name__} {value!r:.80} in its metadata {name!r}; "
        "expected texts, numbers, true, false, None, dates, or lists and dicts of these"
    )
