"""Label the pictures of any source, without a collection to keep."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .collection import Collection
from .encoders import AnyModel
from .labels import DEFAULT, LabelResults, LabelSpec, read_labels, read_templates
from .sources import SourceSpec


def label(
    source: SourceSpec,
    labels: LabelSpec,
    *,
    model: AnyModel | None = None,
    device: str = "auto",
    precision: str = "auto",
    keep: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    **how: Any,
) -> LabelResults:
    """Say of every picture of a source which of some labels fits it.

    Args:
        source: whatever `Collection.add` takes: a folder, a pattern, a zip file, pictures, …
        labels: what to tell apart.
        model: as for `Collection`; None is siglip2-b16.
        device: as for `Collection`.
        precision: as for `Collection`.
        keep: a collection to keep the vectors in. A call that is stopped goes on from there, and one
            with other labels reads no picture again. None: they are deleted.
        progress: show bars; None does where a terminal is watching.
        how: templates, multi, scores, unknown, threshold, examples, k: as for `Collection.classify`.

    Returns:
        Every picture once, in the order of the source; those that cannot be read too.

    Raises:
        LabelError: labels or templates are not to be used; nothing was read then.
        SourceError: the source is absent or holds no picture.
    """
    labels = read_labels(labels, least=1 if how.get("multi") else 2)
    how["templates"] = read_templates(how.get("templates", DEFAULT))
    with (
        place(keep) as folder,
        Collection(folder, model=model, device=device, precision=precision) as photos,
    ):
        photos.add(source, progress=progress)
        return photos.classify(labels, progress=progress, **how)


@contextmanager
def place(keep: str | os.PathLike[str] | None) -> Iterator[Path]:
    """Where the vectors go: a collection to keep, or one that goes away."""
    if keep is not None:
        yield Path(keep)
        return
    with TemporaryDirectory(prefix="clipsearch-", ignore_cleanup_errors=True) as temporary:
        yield Path(temporary) / "labels.clipsearch"
