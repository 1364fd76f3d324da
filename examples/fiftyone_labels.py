"""Label a folder without training and write what FiftyOne loads, pictures staying where they are.

python examples/fiftyone_labels.py ~/Photos cat,dog,car
"""

import sys

import clipsearch as cs


def main(folder: str, names: str) -> None:
    with cs.Collection("photos.clipsearch", model="builtin") as photos:
        photos.add(folder)
        labels = photos.classify(names.split(","))
    for row in labels:
        for guess in row.guesses[:1]:
            print(f"{guess.score:.3f}  {guess.label}  {row.picture.path}")
    written = labels.fiftyone("labels.json")
    print(f"""In FiftyOne:
    dataset = fiftyone.Dataset.from_dir(
        dataset_type=fiftyone.types.FiftyOneImageClassificationDataset,
        labels_path={str(written)!r}, label_field="clipsearch",
    )
    fiftyone.launch_app(dataset)""")


if __name__ == "__main__":
    main(*sys.argv[1:])
