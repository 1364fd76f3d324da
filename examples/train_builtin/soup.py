"""Step 6, if there are two models: one of the means of their weights.

    python soup.py MODEL OTHER DIRECTORY [--share 0.5]

Models that began with the same weights can be averaged, and are better for it than each alone ("model
soups", Wortsman et al. 2022). Everything but the weights is MODEL's.
"""

import argparse
import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

WEIGHTS = "open_clip_model.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("model", "other", "directory"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="of OTHER")
    options = parser.parse_args()
    soup(options.model, options.other, options.directory, options.share)


def soup(model: Path, other: Path, directory: Path, share: float = 0.5) -> None:
    """Write the model whose weights are (1 - share) * model + share * other.

    Raises:
        SystemExit: the two have not the same weights, by name and shape.
    """
    one, two = load_file(model / WEIGHTS), load_file(other / WEIGHTS)
    if {name: value.shape for name, value in one.items()} != {
        name: value.shape for name, value in two.items()
    }:
        sys.exit(f"{model} and {other} are models of two kinds")
    mean = {
        name: value.float().lerp(two[name].float(), share).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in one.items()
    }
    shutil.copytree(model, directory, dirs_exist_ok=True)
    save_file(mean, directory / WEIGHTS)


if __name__ == "__main__":
    main()
