"""FAISS, or the line that repairs it.

Three packages own the folder `faiss/`: the one installed last wins, and uninstalling any of them
empties the folder, which then imports without an error and without a single name.
"""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .errors import ClipsearchError

WHEELS = ("faiss-cpu", "faiss-gpu-cuvs", "faiss-gpu")


@cache  # looking up what is installed takes as long as scanning 10,000 vectors
def load_faiss() -> Any:
    """The module `faiss`, whole.

    Raises:
        ClipsearchError: it is absent or emptied, or another wheel's files took its place; the
            message has the command that repairs it.
    """
    try:
        import faiss
    except ImportError as error:
        raise _broken(f"cannot be imported ({error})") from error
    if not hasattr(faiss, "IndexFlatIP"):
        raise _broken("is an empty folder: a package that shared it was uninstalled")
    wants_gpu = "faiss-gpu-cuvs" in _installed() or "faiss-gpu" in _installed()
    if wants_gpu and not hasattr(faiss, "StandardGpuResources"):
        raise _broken("was overwritten by faiss-cpu")
    return faiss


def _installed() -> list[str]:
    return [name for name in WHEELS if _version(name)]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _broken(what: str) -> ClipsearchError:
    wheel = next((name for name in _installed() if name != "faiss-cpu"), "faiss-cpu")
    return ClipsearchError(
        f"faiss {what}; repair it with: pip install --force-reinstall --no-deps '{wheel}>=1.15.1'"
    )
