"""What a vision-language model is shown of pictures that were found."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from .decode import content_digest, decode
from .errors import ImageError
from .results import Hit, caption_of
from .store import Store
from .types import Candidate

if TYPE_CHECKING:
    from PIL.Image import Image

VLM_SIDE = 512  # pixels


def pixels(read: "Callable[[], bytes | Image]", sha256: bytes) -> "Image":
    """A picture for a vision-language model, RGB and upright, if it still is the content that was added.

    A large JPEG comes reduced; its short side keeps at least twice VLM_SIDE pixels.

    Raises:
        ImageError: it is not, or cannot be read.
        SourceError: it is gone, or the place it came from is.
        OSError: the file cannot be read.
    """
    data = read()
    if content_digest(data) != sha256:
        raise ImageError("it has changed since it was added; add its source again")
    return decode(data, min_side=VLM_SIDE).image


def candidates(store: Store, hits: Sequence[Hit]) -> list[Candidate]:
    """What a reranker sees of some hits, in order."""
    found = store.sha256s_of_items([hit.id for hit in hits])
    digests = [found.get(hit.id, b"removed %d" % hit.id) for hit in hits]  # of no content: a moment ago
    return [
        Candidate(hit.id, digest, hit.cosine, caption_of(hit) or None, partial(pixels, hit.read, digest))
        for hit, digest in zip(hits, digests, strict=True)
    ]
