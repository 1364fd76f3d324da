"""Score every row of a Hugging Face dataset of vectors with `map`.

python examples/hugging_face_dataset.py ~/Photos "a dog on grass"
"""

import sys
from typing import Any

import datasets
import numpy as np

import clipsearch as cs


def main(folder: str, query: str) -> None:
    with cs.Collection("photos.clipsearch", model="builtin") as photos:
        photos.add(folder)
        photos.export("photos.parquet", format="parquet")
        (asked,) = photos.encode_texts([query])

    def score(rows: dict[str, Any]) -> dict[str, Any]:
        return {"score": np.array(rows["vector"], np.float32) @ asked}

    table = datasets.load_dataset("parquet", data_files="photos.parquet", split="train", cache_dir="cache")
    rows = table.map(score, batched=True)
    for row in sorted(rows, key=lambda row: -row["score"])[:3]:
        print(f"{row['score']:.3f}  {row['path']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
