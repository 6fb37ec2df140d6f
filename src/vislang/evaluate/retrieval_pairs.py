"""Images with their captions, cut as the published protocols cut them; answers to single queries.

N: images with a caption, M: captions, D: width of the shared space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.errors import UserError
from vislang.metrics.rank import Ranks

if TYPE_CHECKING:
    from jaxtyping import Float, Int

SHOWN = 6  # examples of each direction and verdict


@dataclass(frozen=True)
class Pairs:
    """Unit rows of images and captions; owner[m] is the image that caption m describes."""

    image: Float[np.ndarray, "N D"]
    text: Float[np.ndarray, "M D"]
    owner: Int[np.ndarray, " M"]
    texts: list[str]

    def first_captions(self, most: int, notes: list[str]) -> Pairs:
        """With at most so many captions an image, the first ones; what is left out is noted."""
        order = np.argsort(self.owner, kind="stable")
        sizes = np.bincount(self.owner, minlength=len(self.image))
        place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        kept = np.sort(order[place < most])
        if dropped := len(self.text) - len(kept):
            notes.append(f"{dropped} captions beyond the first {most} of an image were left out.")
        if fewer := int((sizes < most).sum()):
            notes.append(f"{fewer} images have fewer than {most} captions.")
        return self._taken(np.ones(len(self.image), bool), kept)

    def folds(self, size: int, notes: list[str]) -> list[Pairs]:
        """Consecutive folds of `size` images; what does not fill a fold is left out and noted."""
        n = len(self.image)
        if n < size:
            raise UserError(f"retrieval: a fold has {size} images, but there are only {n}.")
        if n % size:
            notes.append(f"{n % size} images do not fill a fold of {size} and were left out.")
        return [self._images(first, first + size) for first in range(0, n - size + 1, size)]

    def _images(self, first: int, last: int) -> Pairs:
        rows = np.arange(len(self.image))
        kept = np.flatnonzero((self.owner >= first) & (self.owner < last))
        return self._taken((rows >= first) & (rows < last), kept)

    def _taken(self, images: np.ndarray, captions: np.ndarray) -> Pairs:
        place = np.cumsum(images) - 1
        return Pairs(
            self.image[images], self.text[captions], place[self.owner[captions]],
            [self.texts[row] for row in captions.tolist()],
        )  # fmt: skip


def examples(rank: Ranks, pairs: Pairs, ids: Sequence[str]) -> list[dict[str, Any]]:
    """A few queries each way, found and not found at 1, spread evenly over the source."""
    image, text, owner, texts = pairs.image, pairs.text, pairs.owner, pairs.texts
    shown = []
    for kind, place, query, answers in (
        ("image_to_text", rank.image_to_text, image, text),
        ("text_to_image", rank.text_to_image, text, image),
    ):
        for right in (False, True):
            rows = np.flatnonzero((place == 0) == right)
            if not len(rows):
                continue
            for row in rows[np.linspace(0, len(rows) - 1, min(SHOWN, len(rows))).astype(int)]:
                score = answers @ query[row]
                best = np.argsort(-score, kind="stable")[:5].tolist()
                to_text = kind == "image_to_text"
                shown.append({
                    "kind": kind,
                    "query": {"id": ids[row]} if to_text else {"text": texts[row]},
                    "right": right,
                    "rank": int(place[row]) + 1,
                    "answers": [
                        {
                            **({"text": texts[j]} if to_text else {"id": ids[j]}),
                            "score": float(score[j]),
                            "right": bool(owner[j] == row if to_text else owner[row] == j),
                        }
                        for j in best
                    ],
                })  # fmt: skip
    return shown
