"""Look at pictures and their labels in FiftyOne, with their vectors for its plots.

python examples/fiftyone_dataset.py ~/Photos cat,dog,car
"""

import sys

import fiftyone

import clipsearch as cs


def main(folder: str, names: str) -> None:
    with cs.Collection("photos.clipsearch", model="builtin") as photos:
        photos.add(folder)
        labels = photos.classify(names.split(","))
        ids, vectors = photos.embeddings()
        paths = photos.paths()
    dataset = fiftyone.Dataset.from_dir(
        dataset_type=fiftyone.types.FiftyOneImageClassificationDataset,
        labels_path=str(labels.fiftyone("labels.json")),
        label_field="clipsearch",
    )
    by_path = {paths[id]: vector for id, vector in zip(ids, vectors, strict=True)}
    for sample in dataset:
        if sample.filepath in by_path:
            sample["vector"] = by_path[sample.filepath]
            sample.save()
            print(f"{sample.clipsearch.confidence if sample.clipsearch else 0:.3f}  {sample.filepath}")
    print("fiftyone.launch_app(dataset) shows it")


if __name__ == "__main__":
    main(*sys.argv[1:])
