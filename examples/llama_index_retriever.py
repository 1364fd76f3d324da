"""A LlamaIndex retriever that answers with pictures, for its query engines.

python examples/llama_index_retriever.py ~/Photos "a dog on grass"
"""

import sys

from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import ImageNode, NodeWithScore, QueryBundle

import clipsearch as cs


class PictureRetriever(BaseRetriever):
    """Finds pictures; a node's text is the caption if there is one."""

    def __init__(self, photos: cs.Collection, *, k: int = 4) -> None:
        super().__init__()
        self._photos, self._k = photos, k

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = self._photos.search(query_bundle.query_str, k=self._k)
        return [
            NodeWithScore(
                node=ImageNode(
                    text=str(hit.metadata.get("caption", "")),
                    image_path=hit.path,
                    metadata={"id": hit.id, "path": hit.path},
                ),
                score=hit.score,
            )
            for hit in hits
        ]


def main(folder: str, query: str) -> None:
    with cs.Collection("photos.clipsearch", model="builtin") as photos:
        photos.add(folder)
        for found in PictureRetriever(photos, k=3).retrieve(query):
            print(f"{found.score:.3f}  {found.node.metadata['path']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
