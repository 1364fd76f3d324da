"""A LangChain retriever that answers with pictures, for the chains that take one.

python examples/langchain_retriever.py ~/Photos "a dog on grass"
"""

import sys

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict

import clipsearch as cs


class PictureRetriever(BaseRetriever):
    """Finds pictures; a document's text is the caption if there is one, else the path."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    photos: cs.Collection
    k: int = 4
    where: str | None = None

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        hits = self.photos.search(query, k=self.k, where=self.where)
        return [
            Document(
                page_content=str(hit.metadata.get("caption", hit.path)),
                metadata={"id": hit.id, "path": hit.path, "score": hit.score},
            )
            for hit in hits
        ]


def main(folder: str, query: str) -> None:
    with cs.Collection("photos.clipsearch", model="builtin") as photos:
        photos.add(folder)
        for document in PictureRetriever(photos=photos, k=3).invoke(query):
            print(f"{document.metadata['score']:.3f}  {document.page_content}")


if __name__ == "__main__":
    main(*sys.argv[1:])
