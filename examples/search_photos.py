"""Index a folder and show what it has for some words.

python examples/search_photos.py ~/Photos "a dog on grass" "a red car"
"""

import sys

import clipsearch as cs


def main(folder: str, *queries: str) -> None:
    with cs.Collection("photos.clipsearch", model="builtin") as photos:
        print(photos.add(folder))
        for results in photos.search_many(queries, k=3):
            print(f"\n{results.query}")
            for hit in results:
                print(f"  {hit.score:.3f}  {hit.path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
