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
        SourceError: it is no such file.
    """
    with open(native(path), "rb") as file:
        content = json.load(file)
    try:
        images = [(image["id"], image["file_name"]) for image in content["images"]]
        names = {category["id"]: category["name"] for category in content.get("categories", [])}
        captions, categories = _by_image(content.get("annotations", []), names)
    except (TypeError, KeyError, AttributeError) as error:
        why = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise SourceError(f"expected COCO's format: images with id and file_name, but {why}") from error
    for id, file_name in images:
        row = {"file_name": file_name, "image_id": id}
        yield row | _listed("caption", captions.get(id)) | _listed("categories", categories.get(id))


def _by_image(
    annotations: list[dict[str, Any]], names: dict[Any, str]
) -> tuple[dict[Any, list[str]], dict[Any, list[str]]]:
    """The captions, and the names of the categories, of each picture by its id."""
    captions: dict[Any, list[str]] = {}
    categories: dict[Any, dict[str, None]] = {}  # in place of an ordered set
    for annotation in annotations:
        if "caption" in annotation:
            captions.setdefault(annotation["image_id"], []).append(annotation["caption"].strip())
        if "category_id" in annotation:
            categories.setdefault(annotation["image_id"], {})[names[annotation["category_id"]]] = None
    return captions, {id: list(found) for id, found in categories.items()}


def _listed(name: str, values: list[str] | None) -> dict[str, Any]:
    return {name: values} if values else {}
