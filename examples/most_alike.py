"""List the pairs of pictures in a collection that are most alike, with plain NumPy.

python examples/most_alike.py photos.clipsearch
"""

import sys

import numpy as np

import clipsearch as cs


def main(collection: str) -> None:
    with cs.Collection(collection, read_only=True) as photos:
        ids, vectors = photos.embeddings()  # unit rows: a dot product is a cosine
        paths = photos.paths()
        cosines = np.triu(vectors @ vectors.T, k=1)
        for place in np.argsort(-cosines, axis=None)[:5]:
            one, other = np.unravel_index(place, cosines.shape)
            print(f"{cosines[one, other]:.3f}  {paths[ids[one]]}  {paths[ids[other]]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
