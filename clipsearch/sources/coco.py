"""What COCO's JSON says of its pictures: annotations of captions and of instances."""

import json
from collections.abc import Iterator
from typing import Any

from ..errors import SourceError
from .disk import native


def coco_rows(path: str) -> Iterator[dict[str, Any]]:
    """A row for each picture of a file in COCO's format.

    Each has `file_name`, `image_id`, and, where the file has them, `caption`, the list of all in order, and
    `categories`, the names of what was marked, each once. The whole file is read into memory.

    Raises:
        SourceError: it is no such file; or, when all pictures came, some annotations cannot be understood.
    """
    with open(native(path), "rb") as file:
        content = json.load(file)
    try:
        names = {category["id"]: category["name"] for category in content.get("categories") or []}
        told, wrong = _by_image(content.get("annotations") or [], names)
        rows = [
            {"file_name": image["file_name"], "image_id": image["id"]} | told.get(image["id"], {})
            for image in content["images"]
        ]
    except (TypeError, KeyError, AttributeError) as error:
        why = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise SourceError(f"expected COCO's format: images with id and file_name, but {why}") from error
    yield from rows
    if wrong:
        raise SourceError(
            f"{len(wrong):,} annotations are left out, first {wrong[0]}; expected an image_id, "
            "a text as caption, the category_id of a category that has a name"
        )


def _by_image(
    annotations: list[dict[str, Any]], names: dict[Any, str]
) -> tuple[dict[Any, dict[str, list[str]]], list[str]]:
    """Captions and names of categories of each picture by its id; and which annotations say neither."""
    told: dict[Any, dict[str, list[str]]] = {}
    wrong: list[str] = []
    for place, annotation in enumerate(annotations):
        try:
            known = told.setdefault(annotation["image_id"], {})
            if "caption" in annotation:
                caption = annotation["caption"].strip()
                known.setdefault("caption", []).append(caption)
            if "category_id" in annotation:
                name = names[annotation["category_id"]]
                if name not in known.setdefault("categories", []):
                    known["categories"].append(name)
        except (TypeError, KeyError, AttributeError) as error:
            wrong.append(f"annotations[{place}] ({error!r})")
    return told, wrong
