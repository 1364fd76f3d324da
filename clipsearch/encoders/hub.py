"""Files of the Hugging Face hub: from its cache if they are there, else downloaded, else a quick error.

Caches, tokens, mirrors (HF_ENDPOINT), proxies and HF_HUB_OFFLINE work as they do everywhere.
"""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from ..errors import ModelError

logger = logging.getLogger("clipsearch")

_BUILTIN = "in a new collection, take the small model that comes with clipsearch: model='builtin'"
_PATIENCE = 3.0  # seconds for the hub to say anything at all
_TOKENIZER_MARKS = ("tokenizer_config.json", "tokenizer.json")
_TOKENIZER_FILES = ("tokenizer*", "*.model", "vocab*", "merges.txt", "special_tokens_map.json",
                    "added_tokens.json", "config.json")  # fmt: skip

_MODEL_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
_MODEL_WEIGHTS = ("*.safetensors", "*.bin")


def cached(repo: str, filename: str) -> Path | None:
    """Where a file of a repository lies in the cache, or None. Touches no network."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repo, filename)
    except HFValidationError as error:
        raise ModelError(f"{repo!r} is no name of a Hugging Face repository: expected org/name") from error
    return Path(found) if isinstance(found, str) else None


def fetch(repo: str, filenames: Sequence[str], *, model: str) -> Path:
    """The first of several files that a repository has; downloaded if the cache has none of them.

    Raises:
        ModelError: none is there, or the hub cannot be reached; within 5 seconds.
    """
    for filename in filenames:
        if path := cached(repo, filename):
            return path
    require_connection(model)
    try:
        return _download(repo, filenames)
    except Exception as error:  # whatever the transport of the day raises
        wanted = " or ".join(filenames)
        raise ModelError(
            f"cannot load {model!r}: the download of {wanted} from {repo} failed ({error}). {ways_out()}"
        ) from error


def tokenizer_files(repo: str, *, model: str) -> Path:
    """The folder of a repository's tokenizer, downloaded if need be."""
    for mark in _TOKENIZER_MARKS:
        if path := cached(repo, mark):
            return path.parent
    require_connection(model)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, allow_patterns=list(_TOKENIZER_FILES)))
    except Exception as error:  # whatever the transport of the day raises
        raise ModelError(
            f"cannot load {model!r}: the download of its tokenizer from {repo} failed ({error}). {ways_out()}"
        ) from error


def repository(repo: str, *, model: str, instead: str = _BUILTIN) -> Path:
    """The folder of a whole model in transformers' or sentence-transformers' format, downloaded if need be.

    Args:
        repo: org/name.
        model: what the user calls it, for the error.
        instead: the last way out that the error names.

    Raises:
        ModelError: it is not here and the hub cannot be reached; within 5 seconds.
    """
    for mark in ("modules.json", "config.json"):
        path = cached(repo, mark)
        if path and any(path.parent.rglob(weights) for weights in _MODEL_WEIGHTS):
            return path.parent
    require_connection(model, instead=instead)
    from huggingface_hub import HfApi, snapshot_download

    try:
        names = HfApi().list_repo_files(repo)
        safe = any(name.endswith(".safetensors") for name in names)
        patterns = [*_MODEL_FILES, _MODEL_WEIGHTS[0] if safe else _MODEL_WEIGHTS[1]]
        logger.info("downloading %s", repo)
        return Path(snapshot_download(repo, allow_patterns=patterns))
    except Exception as error:  # whatever the transport of the day raises
        raise ModelError(
            f"cannot load {model!r}: the download of {repo} failed ({error}). {ways_out(instead)}"
        ) from error


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer in Hugging Face's format."""
    return any((folder / mark).is_file() for mark in _TOKENIZER_MARKS)


def require_connection(model: str, *, instead: str = _BUILTIN) -> None:
    """Raise ModelError, naming the ways out, unless the hub answers within a few seconds."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise ModelError(
            f"{model!r} is not on this machine, and HF_HUB_OFFLINE forbids to fetch it. {ways_out(instead)}"
        )
    if not _answers(constants.ENDPOINT):
        raise ModelError(
            f"{model!r} is not on this machine, and {constants.ENDPOINT} does not answer. {ways_out(instead)}"
        )


def ways_out(instead: str = _BUILTIN) -> str:
    """What a user without the weights can do."""
    return (
        "Either run this once with a network, so that it is downloaded; or give a local directory "
        f"that holds a model; or {instead}."
    )


def _answers(endpoint: str) -> bool:
    from huggingface_hub import get_session

    answers: list[bool] = []

    def ask() -> None:
        try:
            get_session().head(endpoint, timeout=_PATIENCE)
        except Exception:  # refused, unknown host, no route, silence: all of them mean no
            return
        answers.append(True)

    # In a thread, for looking up a host's name obeys no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE + 0.5)
    return bool(answers)


def _download(repo: str, filenames: Sequence[str]) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    for filename in filenames:
        try:
            size = get_hf_file_metadata(hf_hub_url(repo, filename)).size
        except EntryNotFoundError:
            continue
        logger.info("downloading %s of %s: %.0f MB", filename, repo, (size or 0) / 1e6)
        return Path(hf_hub_download(repo, filename))
    raise FileNotFoundError(f"it has none of {', '.join(filenames)}")
