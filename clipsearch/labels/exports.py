"""Label results as what training and annotation tools load: an image folder, Label Studio, FiftyOne."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePath
from typing import Any
from unicodedata import normalize
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from ..decode import decode
from ..errors import CollectionError, ImageError, LabelError, SourceError
from ..files import make_folder
from ..progress import progress_bar
from ..render import printable
from ..sources.disk import native
from ..sources.names import is_picture
from .outputs import NAMES_AS_BYTES, is_utf8, listed, shown, write_text
from .results import Labelled, LabelResults, Pictured, Verdict

HOW = ("link", "symlink", "copy")
UNLABELLED = (f"_{Verdict.UNKNOWN}", f"_{Verdict.ABSTAINED}")  # folders of pictures without a label
LONGEST = 200  # bytes of a name: most systems take 255, and an ending and a number may follow
RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.|$)", re.I)  # on Windows
EDGES = re.compile(r"^(\.|__)[._]*|^ +|[. ]+$")  # hidden to a system or to `datasets`, lost on Windows
LOCAL_FILES = "/data/local-files/?d="  # where Label Studio serves what is below its document root

Taken = Counter[tuple[str, str]]  # how often a name was asked for, by folder and folded name


@dataclass(frozen=True, slots=True)
class Tree:
    """What image_folder did; `str` tells it in words.

    Attributes:
        folder: where, absolute.
        linked: how many pictures are links to their files.
        copied: how many are files of their own.
        failed: path of each picture that could not be read, and the reason.
    """

    folder: Path
    linked: int
    copied: int
    failed: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        done = f"{self.folder}: {self.linked:,} linked, {self.copied:,} copied"
        return printable(f"{done}, {len(self.failed):,} failed" if self.failed else done)


def image_folder(
    results: LabelResults,
    folder: str | os.PathLike[str],
    *,
    how: str = "link",
    unlabelled: bool = False,
    progress: bool | None = None,
) -> Tree:
    """Write labelled pictures as folder/LABEL/NAME, which torchvision and Hugging Face `datasets` load.

        torchvision.datasets.ImageFolder("folder")
        datasets.load_dataset("imagefolder", data_files={"train": "folder/**"})

    (With `data_dir` alone, `datasets` takes names such as "train" and "test" for splits.)

    Labels and names that some system does not allow are changed: what it does not allow becomes "_",
    and of names that are one but for case, later ones get " (2)", " (3)", in the order of labels and of
    ids. `labels.json` holds all labels in order, and which folder has which. `metadata.jsonl`, where
    `datasets` finds the labels themselves, has file_name, label, score and path of every picture.
    They are written last: where they are, the folder is complete.

    A picture stays the file it is (torchvision passes over GIF, AVIF, HEIC and RAW); one whose name
    does not end like a picture's becomes a PNG. A label of no picture has no folder.

    Args:
        results: what to write, with one label a picture.
        folder: it must be absent or empty.
        how: "link" for hard links, which take no space, but what is edited is edited in both places;
            "symlink" for symbolic links; "copy". Where no link can be made, as to another disk or
            to a member of an archive, there is a copy.
        unlabelled: also write the unknown and the abstained, to `_unknown` and `_abstained`.
        progress: show a bar; None does where a terminal is watching.

    Returns:
        How many were linked and copied, and which failed, when they were labelled or now.

    Raises:
        LabelError: a picture may have several labels, the folder is not empty, or `how` is none of these.
        CollectionError: it cannot be written.
    """
    if results.multi:
        others = "write_table to a .jsonl file, or fiftyone, write all of them"
        raise LabelError(f"a picture may have several labels here, but can be in one folder only: {others}")
    if how not in HOW:
        raise LabelError(f"found how={how!r}; expected one of {', '.join(map(repr, HOW))}")
    whole = _made(Path(folder).expanduser().absolute())
    folders, taken = _folders(results.labels.names), Taken()
    entries: list[str] = []
    failed: list[tuple[str, str]] = []
    linked = 0
    with progress_bar("image folder", progress, total=len(results)) as bar:
        for row in results:
            bar.update()
            if row.verdict is Verdict.FAILED:
                failed.append((row.picture.path, row.picture.reason))
            elif row.label or unlabelled:
                into = folders[row.label] if row.label else f"_{row.verdict}"
                try:
                    name, is_link = _put(row.picture, whole / into, how, taken)
                except (ImageError, SourceError, OSError) as error:
                    failed.append((row.picture.path, getattr(error, "strerror", None) or str(error)))
                    continue
                linked += is_link
                entries.append(_entry(row, f"{into}/{name}"))
    owners = {own: label for label, own in folders.items()}
    names = {"labels": results.labels.names, "folders": owners}
    write_text(whole / "labels.json", [json.dumps(names, indent=1)])
    write_text(whole / "metadata.jsonl", entries)
    return Tree(whole, linked, len(entries) - linked, tuple(failed))


def label_studio(
    results: LabelResults,
    path: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str],
    url_prefix: str = LOCAL_FILES,
) -> Path:
    """Write tasks with pre-annotations for Label Studio, and beside them the labelling setup they need.

    The setup is a file of the same name that ends in .xml. Its text goes into Settings > Labeling
    Interface > Code before the tasks are imported: Label Studio refuses labels that are not in it.
    Every picture is a task; its data are image (the address), id, path, verdict and reason. Those with
    a label have a prediction, with the model's id and the best label's score.

    For files of this machine start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and
    LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=`root`, and add the folder of the pictures, which it wants
    to be below `root`, as a storage of the kind "Local files".

    Args:
        results: what to write.
        path: the .json file to write; an existing one is replaced, and so is the setup.
        root: a folder above all the pictures, the one that is served.
        url_prefix: what the server calls that folder, such as "https://example.org/pictures/".

    Returns:
        Where the tasks were written, absolute.

    Raises:
        LabelError: the name does not end in .json, or a picture is no file below `root`.
        CollectionError: it cannot be written.
    """
    whole = _json_file(path)
    _check_files(results)
    top = os.path.abspath(os.path.expanduser(root))
    urls = [url_prefix + _below(picture, top) for picture in results.pictures]
    tasks = (json.dumps(_task(row, url, results.model)) for row, url in zip(results, urls, strict=True))
    write_text(whole.with_suffix(".xml"), [_setup(results)])
    write_text(whole, listed(tasks))
    return whole


def fiftyone(results: LabelResults, path: str | os.PathLike[str]) -> Path:
    """Write a labels.json from which FiftyOne loads labels and pictures, which stay where they are.

        fiftyone.Dataset.from_dir(
            dataset_type=fiftyone.types.FiftyOneImageClassificationDataset,
            labels_path="/home/me/labels.json", label_field="clipsearch",
        )

    "classes" are the labels. "labels" maps each absolute path to {"label": position in the classes,
    "confidence": score}, to a list of these where a picture may have several labels, and to null where
    nothing is said of it. "reasons", which FiftyOne ignores, tells why pictures could not be read; a
    picture whose name is not UTF-8 is only there, as FiftyOne cannot store such a name.

    Args:
        results: what to write.
        path: the .json file to write; an existing one is replaced.

    Returns:
        Where it was written, absolute.

    Raises:
        LabelError: the name does not end in .json, or a picture is no file of its own.
        CollectionError: it cannot be written.
    """
    whole = _json_file(path)
    _check_files(results)
    odd = {shown(p.path): "its name is not UTF-8" for p in results.pictures if not is_utf8(p.path)}
    reasons = odd | {shown(p.path): p.reason for p in results.pictures if p.reason}
    facts = f'"classes": {json.dumps(results.labels.names)}, "reasons": {json.dumps(reasons)}'
    targets = (target for target in _targets(results) if is_utf8(target[0]))
    entries = (f"{json.dumps(where)}: {json.dumps(said)}" for where, said in targets)
    write_text(whole, listed(entries, f'{{{facts}, "labels": {{', "}}"))
    return whole


def _made(folder: Path) -> Path:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise LabelError(f"{folder} is there already; expected an absent or empty folder")
    make_folder(folder)
    return folder


def _folders(labels: Iterable[str]) -> dict[str, str]:
    """A folder for each label; no two are one to any system."""
    taken = Taken({("", name): 1 for name in UNLABELLED})
    return {label: _free(_legal(label), "", taken) for label in labels}


def _legal(name: str) -> str:
    """A name near to this one that every system takes."""
    plain = "".join(char if char.isprintable() and char not in '<>:"/\\|?*' else "_" for char in name)
    stem, ending = _split(plain)
    short = stem.encode()[:LONGEST].decode(errors="ignore") + ending
    clean = EDGES.sub("_", short) or "_"
    return f"_{clean}" if RESERVED.match(clean) else clean


def _split(name: str) -> tuple[str, str]:
    return os.path.splitext(name) if is_picture(name) else (name, "")


def _free(name: str, folder: str, taken: Taken) -> str:
    """The name, or the first of "name (2)", "name (3)", … that the folder does not have; it is then taken."""
    stem, ending = _split(name)
    free = name
    while taken[folder, _folded(free)]:
        taken[folder, _folded(name)] += 1
        free = f"{stem} ({taken[folder, _folded(name)]}){ending}"
    taken[folder, _folded(free)] += 1
    return free


def _folded(name: str) -> str:
    return normalize("NFC", name).casefold()


def _put(picture: Pictured, folder: Path, how: str, taken: Taken) -> tuple[str, bool]:
    """Put a picture into a folder; returns the name it has there, and whether it is a link."""
    name = _legal(picture.key.rsplit("/", 1)[-1])
    linkable = how != "copy" and is_picture(name) and _is_file(picture.path)
    content, ending = (b"", "") if linkable else _content(picture, name)
    if not folder.is_dir():
        make_folder(folder)
    target = folder / _free(name + ending, folder.name, taken)
    is_link = linkable and _linked(picture.path, target, how)
    if not is_link:
        _write(target, content or _content(picture, name)[0])
    return target.name, is_link


def _is_file(path: str) -> bool:
    return os.path.isabs(path) and os.path.isfile(
        native(path)
    )  # a relative one is a key that was handed over


def _linked(path: str, target: Path, how: str) -> bool:
    """Link to a file; False where the system does not let us."""
    try:
        if how == "symlink":
            target.symlink_to(path)
        else:
            os.link(os.path.realpath(native(path)), target)  # of a link, the file that it leads to
    except OSError:
        return False
    return True


def _content(picture: Pictured, name: str) -> tuple[bytes, str]:
    """The bytes of a file, and what must be added to its name."""
    found = picture.read()
    if isinstance(found, bytes) and is_picture(name):
        return found, ""
    file = BytesIO()
    decode(found).image.save(file, "PNG")
    return file.getvalue(), ".png"


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise CollectionError(f"cannot write {path}: {error.strerror or error}") from error


def _entry(row: Labelled, file_name: str) -> str:
    about = {"file_name": file_name, "label": row.label, "score": row.guesses[0].score}
    return json.dumps(about | {"path": shown(row.picture.path)}) + "\n"


def _json_file(path: str | os.PathLike[str]) -> Path:
    whole = Path(path).expanduser().absolute()
    if whole.suffix.lower() != ".json":
        raise LabelError(f"found the name {whole.name!r}; expected one that ends in .json")
    return whole


def _check_files(results: LabelResults) -> None:
    """Refuse members of archives and pictures that were handed over, which no other tool can open."""
    sources = {picture.source for picture in results.pictures}
    archives = {source for source in sources if os.path.isfile(native(source))}
    for picture in results.pictures:
        if picture.source in archives or not os.path.isabs(picture.path):
            hint = "image_folder makes files of all pictures, which can be labelled and loaded instead"
            raise LabelError(f"{picture.path!r} is no file of its own, which other tools need: {hint}")


def _below(picture: Pictured, root: str) -> str:
    try:
        return quote(PurePath(picture.path).relative_to(root).as_posix(), errors=NAMES_AS_BYTES)
    except ValueError:
        raise LabelError(f"found root={root!r}; expected a folder above {picture.path!r}") from None


def _task(row: Labelled, url: str, model: str) -> dict[str, Any]:
    picture = row.picture
    about = {"image": url, "id": picture.id, "path": shown(picture.path), "verdict": str(row.verdict)}
    task: dict[str, Any] = {"data": about | {"reason": picture.reason}, "predictions": []}
    if row.labels:
        made = {"id": f"picture-{picture.id}", "type": "choices", "from_name": "choice", "to_name": "image"}
        result = [made | {"value": {"choices": list(row.labels)}}]
        score = row.guesses[0].score
        task["predictions"] = [{"model_version": model, "score": score, "result": result}]
    return task


def _setup(results: LabelResults) -> str:
    several = "multiple" if results.multi else "single"
    choices = [f"    <Choice value={quoteattr(name)}/>" for name in results.labels.names]
    image, control = '<Image name="image" value="$image"/>', '<Choices name="choice" toName="image"'
    lines = [
        "<View>",
        f"  {image}",
        f'  {control} choice="{several}">',
        *choices,
        "  </Choices>",
        "</View>",
        "",
    ]
    return "\n".join(lines)


def _targets(results: LabelResults) -> Iterator[tuple[str, Any]]:
    place = {name: number for number, name in enumerate(results.labels.names)}
    for row in results:
        scores = {guess.label: guess.score for guess in row.guesses}
        said = [{"label": place[name], "confidence": scores[name]} for name in row.labels]
        yield row.picture.path, (said if results.multi else said[0]) if said else None
