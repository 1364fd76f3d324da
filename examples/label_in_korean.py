"""Label the pictures of a folder in Korean, with a model that knows it.

python examples/label_in_korean.py ~/Photos 고양이,개,자동차
"""

import sys

import clipsearch as cs


def taken_of(name: str) -> str:
    """A photo was taken of it: the particle is 을 after a consonant, else 를."""
    ends_in_consonant = (ord(name[-1]) - ord("가")) % 28 > 0
    return f"{name}{'을' if ends_in_consonant else '를'} 찍은 사진"


TEMPLATES = ["{} 사진", "{}의 사진", taken_of]


def main(folder: str, names: str, model: str = "siglip2-b16") -> None:
    labels = cs.label(folder, names.split(","), model=model, templates=TEMPLATES, keep="labels.clipsearch")
    print(labels)
    for row in labels:
        for guess in row.guesses[:1]:
            print(f"{guess.score:.3f}  {', '.join(row.labels) or row.verdict}  {row.picture.path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
