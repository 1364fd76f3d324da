"""JSON that others wrote, which may say anything."""

import json
from collections.abc import Iterable
from typing import Any

MAX_DEPTH = 100  # of lists and objects in each other: what looks at a value calls itself as often


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: it is no JSON, or lists and objects in it are in each other more than MAX_DEPTH deep.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise _too_deep() from None
    level = [value]
    for _ in range(MAX_DEPTH):
        if not (level := [inner for one in level for inner in _inside(one)]):
            return value
    if any(isinstance(one, list | dict) for one in level):
        raise _too_deep()
    return value


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _too_deep() -> ValueError:
    return ValueError(f"lists and objects are in each other more than {MAX_DEPTH} deep")
