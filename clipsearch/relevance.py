"""How well a query fits a picture, beside how well neutral ones do: a number that can be compared.

A cosine means something within one query: 0.3 may be the best or the worst of a model's. What can be
compared is

    fit = (cosine - log(mean over b of exp(sharpness * cosine of b)) / sharpness) / spread

where b runs over neutral queries that are not about the same as this one: by how much it fits better than
they do. The logarithm is the normalisation of query banks (Bogolin et al. 2022, "Cross Modal Retrieval with
Querybank Normalisation", their inverted softmax), per picture as for a model trained with a softmax, where
it is the log of p(query | picture) / p(query). Spread is that of neutral queries' cosines, so fits of any
model have one unit. Leaving out neutral queries about the same follows NegLabel (Jiang et al. 2024).

relevance = 1 / (1 + exp(-STEEP * (fit - usual))), and `usual` is what one in ten neutral queries reaches
somewhere among 1,000 pictures of the collection.
"""

from functools import cached_property

import numpy as np
import numpy.typing as npt

from .types import Embeddings

RELEVANT = 0.5
"""From here a picture is said to be relevant."""

SHARPNESS = 3.0  # in units of 1 / spread; 2 to 4 do the same
STEEP = 1.7  # logistic fits to pictures of classes that were left out gave 0.9 to 2.6
SAME = 2.0  # standard deviations: neutral queries this much nearer to the query than most mean about the same
ASKED = 256  # neutral queries that are asked to learn what is usual
BEST = 10  # pictures by cosine among which each finds its best fit


class Background:
    """Neutral queries, and how well they fit some pictures of a collection."""

    def __init__(self, neutral: Embeddings, pictures: Embeddings, *, usual: float, own: bool = False) -> None:
        """Take what is compared with.

        Args:
            neutral: float32 (B, dim), unit rows: queries about no collection in particular, in mixed order.
            pictures: float32 (n, dim), unit rows, a sample of the collection, n at least 1.
            usual: the share of neutral queries that find nothing as fit as a relevance of 0.5.
            own: the neutral queries are the pictures themselves, and none finds itself.
        """
        self._neutral, self._pictures, self._usual, self._own = neutral, pictures, usual, own

    def relevance(
        self, query: npt.NDArray[np.float32], cosines: npt.NDArray[np.float32], vectors: Embeddings
    ) -> npt.NDArray[np.float64]:
        """How relevant pictures are for a query, 0 to 1.

        Args:
            query: (dim,), unit length.
            cosines: (n,), of the pictures with the query.
            vectors: (n, dim), the pictures.

        Returns:
            (n,), comparable across queries, collections and models as far as they go.
        """
        above = self._fit(query, cosines, vectors) - self._centre
        return 1 / (1 + np.exp(-STEEP * np.clip(above, -100, 100)))

    def _fit(
        self, query: npt.NDArray[np.float32], cosines: npt.NDArray[np.float32], vectors: Embeddings
    ) -> npt.NDArray[np.float64]:
        near = self._neutral @ query  # (B,)
        other = self._neutral[near <= near.mean() + SAME * near.std()]
        sharpness = SHARPNESS / self._spread
        usual = sharpness * (vectors @ other.T).astype(np.float64)  # (n, others)
        most = usual.max(1, keepdims=True)
        level = np.log(np.exp(usual - most).mean(1)) + most[:, 0]
        return np.asarray((cosines - level / sharpness) / self._spread)

    @cached_property
    def _spread(self) -> float:
        """The standard deviation of a picture's cosines with neutral queries, the mean over pictures."""
        return max(float((self._pictures @ self._neutral.T).std(1).mean()), 1e-6)

    @cached_property
    def _centre(self) -> float:
        """The fit that few neutral queries reach anywhere among the pictures."""
        every = len(self._neutral) / min(ASKED, len(self._neutral))
        asked = (np.arange(min(ASKED, len(self._neutral))) * every).astype(np.int64)
        return float(np.quantile([self._best(place) for place in asked], self._usual))

    def _best(self, place: int) -> float:
        query = self._neutral[place]
        cosines = self._pictures @ query
        if self._own:
            cosines[place] = -2  # below every cosine
        best = np.argsort(-cosines, kind="stable")[:BEST]
        return float(self._fit(query, cosines[best], self._pictures[best]).max())
