"""Make the golden copy of the format: once for each format, by hand, never by a test.

    python tests/make_golden.py tests/golden/v1

test_golden.py says what is in it. Do not make a copy anew that was ever published: collections of
that format are on people's disks.
"""

import io
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image

import clipsearch
from clipsearch import ingest
from clipsearch.store import Store
from clipsearch.testing import ColourEncoder
from clipsearch.types import Item
from clipsearch.writer import writing


class Photos:
    """Pictures that were once in a folder /photos."""

    kind, root, lists_all, options = "folder", "/photos", True, {}

    def __init__(self, pictures):
        self.pictures = pictures  # {key: colour, or the bytes of a file}

    def items(self):
        for key in self.pictures:
            yield self.item(key)

    def item(self, key):
        if key not in self.pictures:
            return None
        data = self.pictures[key]
        data = data if isinstance(data, bytes) else painted(data)
        return Item(key, lambda: data, f"{len(data)}-1700000000000000000", {"album": "golden"})

    def path(self, key):
        return f"/photos/{key}"


class Backwards(ColourEncoder):
    """A second model: (blue, green, red)."""

    model_id = "backwards"

    def encode_images(self, images):
        return np.ascontiguousarray(super().encode_images(images)[:, ::-1])

    def fingerprint(self):
        return "backwards-1"


def painted(colour):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(file, "PNG")
    return file.getvalue()


def main(path):
    ingest.COMMIT_PICTURES = 3
    pictures = {
        "red.png": (255, 0, 0),
        "a/orange.png": (255, 128, 0),
        "a/b/olive.png": (128, 128, 0),
        "navy.png": (0, 0, 128),
        "again.png": (255, 0, 0),  # the bytes of red.png
        "e\u0301.png": (0, 255, 0),  # decomposed
        "\u00e9.png": (0, 255, 255),  # composed
        "\udcff.png": (255, 0, 255),  # a byte that is not UTF-8
        "broken.png": b"\x89PNG\r\n\x1a\n and no more",
        "gone.png": (250, 5, 0),
        "removed.png": (240, 0, 10),
    }
    with clipsearch.Collection(path, model=ColourEncoder()) as photos:
        photos.add(Photos(pictures), batch_size=3, progress=False)
        photos.remove("/photos/removed.png")
        del pictures["removed.png"], pictures["gone.png"]
        photos.add(Photos(pictures), progress=False)
    with closing(Store(path)) as store:
        with writing(store) as writer:
            space = writer.add_space(model="backwards", fingerprint="backwards-1", dim=3)
        ingest.ingest(store, space, Photos(pictures), Backwards(), progress=False)
    (path / "write.lock").unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
