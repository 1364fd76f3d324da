"""Write tasks for Label Studio in which every picture has its label already, to be checked by people.

python examples/label_studio_tasks.py ~/Photos cat,dog,car
"""

import sys
from pathlib import Path

import clipsearch as cs


def main(folder: str, names: str) -> None:
    with cs.Collection("photos.clipsearch", model="builtin") as photos:
        photos.add(folder)
        labels = photos.classify(names.split(","))
    for row in labels:
        for guess in row.guesses[:1]:
            print(f"{guess.score:.3f}  {guess.label}  {row.picture.path}")
    tasks = labels.label_studio("tasks.json", root=Path(folder).absolute())
    print(f"import {tasks}; the labelling setup is {tasks.with_suffix('.xml')}")


if __name__ == "__main__":
    main(*sys.argv[1:])
