"""Count the pictures of each camera in a pandas table, and the mean score of each for some words.

python examples/to_pandas.py ~/Photos "a dog on grass"
"""

import sys

import pandas

import clipsearch as cs


def main(folder: str, query: str) -> None:
    with cs.Collection("photos.clipsearch", model="builtin") as photos:
        photos.add(folder)
        photos.export("photos.parquet", format="parquet")
        scores = photos.search(query, k=len(photos)).to_pandas().set_index("id")["score"]
    table = pandas.read_parquet("photos.parquet").set_index("id")
    table["score"] = scores  # of one that came with the pictures we take no notice
    if "camera" not in table:  # no picture knows it
        table["camera"] = "unknown"
    for camera, group in table.groupby(table["camera"].fillna("unknown")):
        print(f"{group['score'].mean():.3f}  {camera}: {len(group)} pictures")


if __name__ == "__main__":
    main(*sys.argv[1:])
