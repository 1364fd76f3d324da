"""What every test may ask for: pictures, collections of them, and no network."""

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CLIPSEARCH_QUERY_CACHE"] = "0"  # those that test the cache switch it on, in a folder of theirs
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photos and vectors, where this machine has them."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CLIPSEARCH_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"needs the test data: no folder {folder} (set CLIPSEARCH_TEST_DATA)")
    return folder
