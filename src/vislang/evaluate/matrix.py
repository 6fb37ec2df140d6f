"""Every picture of a small source against every caption: the matrix of cosines.

N: pictures, M: captions, D: shared width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.errors import UserError
from vislang.evaluate.requests import Embeddings, Requests, need
from vislang.evaluate.scores import Scores
from vislang.metrics.features import unit
from vislang.metrics.intervals import normal_mean, wilson

if TYPE_CHECKING:
    from vislang.data.sample import Source


class Matrix:
    """Cosines of all pictures and captions; how often a picture's own caption is the highest.

    A caption that several pictures share is one row. Ties count against the model.

    Args:
        most: pictures; a source of more is refused, since nobody could read the matrix.
    """

    name = "matrix"

    def __init__(self, most: int = 100):
        if most < 2:
            raise UserError(f"matrix: most must be at least 2, got {most}.")
        self.most = most

    def requests(self, source: Source) -> Requests:
        """Images and captions."""
        need(source, "text", self.name)
        if len(source) > self.most:
            raise UserError(
                f"A cosine matrix of {len(source):,} pictures cannot be read: at most {self.most}."
                " `vislang evaluate --suite retrieval` judges large sources."
            )
        return Requests(images=True, captions=True)

    def score(self, embeddings: Embeddings) -> Scores:
        """The matrix, and the shares of rows and columns whose highest cosine is their own."""
        texts = list(dict.fromkeys(embeddings.caption_texts))
        if len(texts) < 2:
            raise UserError(f"matrix needs two different captions, got {len(texts)}.")
        first = [list(embeddings.caption_texts).index(text) for text in texts]
        image = unit(np.asarray(embeddings.images, np.float64))
        text = unit(np.asarray(embeddings.captions, np.float64)[first])
        cosine = image @ text.T  # [N, M]
        own = np.zeros(cosine.shape, bool)
        place = {text: column for column, text in enumerate(texts)}
        for caption, row in zip(embeddings.caption_texts, np.asarray(embeddings.caption_owner)):
            own[row, place[caption]] = True
        best = np.where(own, cosine, -np.inf)
        other = np.where(own, -np.inf, cosine)
        of_picture, of_caption = best.max(1) > other.max(1), best.max(0) > other.max(0)
        values = {
            "right_by_picture": wilson(int(of_picture.sum()), len(of_picture)),
            "right_by_caption": wilson(int(of_caption.sum()), len(of_caption)),
            "own_cosine": normal_mean(cosine[own]),
            "other_cosine": normal_mean(cosine[~own]),
        }
        shown = {
            "ids": list(embeddings.ids),
            "texts": texts,
            "matrix": cosine.round(4).tolist(),
        }
        return Scores(self.name, len(image), values, notes=list(embeddings.notes), cosine=shown)

    def settings(self) -> dict[str, Any]:
        """All options."""
        return {"most": self.most}
