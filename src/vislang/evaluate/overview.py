"""A look at the shared space: how far the modalities lie apart, how it is filled, a map.

n: images looked at, D: width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.data.prompts import SETS, fill
from vislang.errors import UserError
from vislang.evaluate.probe import choose
from vislang.evaluate.requests import Embeddings, Requests
from vislang.evaluate.retrieval import number_texts
from vislang.evaluate.scores import Scores
from vislang.metrics import features
from vislang.metrics.flatten import flatten
from vislang.metrics.intervals import (
    Interval,
    bootstrap_mean,
    from_draws,
    jackknife,
    resampled_counts,
)

if TYPE_CHECKING:
    from jaxtyping import Float

    from vislang.data.sample import Source

MAPS = ("tsne", "pca", "none")
RESAMPLES = 200


class Overview:
    """Modality gap, alignment, uniformity, dimensions in use; cosines of a few pairs; a map.

    Each image is taken with its first caption. Sources without captions give the image part, and
    a cosine matrix of images and class names.

    Args:
        most: images looked at, spread evenly over the source.
        map: tsne, pca or none.
        map_points: images on the map.
        pairs: images and texts of the cosine matrix.
        seed: of resamples and map.
    """

    name = "overview"

    def __init__(
        self, most: int = 2000, map: str = "tsne", map_points: int = 500, pairs: int = 10,
        seed: int = 0,
    ):  # fmt: skip
        choose("overview: map", map, MAPS)
        for name, value in (("most", most), ("map_points", map_points)):
            if not isinstance(value, int) or value < 3:
                raise UserError(
                    f"overview: {name} must be a whole number of at least 3: {value!r}."
                )
        self.most, self.map, self.map_points = most, map, map_points
        self.pairs, self.seed = pairs, seed

    def requests(self, source: Source) -> Requests:
        """Images, and captions or class names where the source has them."""
        captions = "text" in source.gives
        names = () if captions else source.classes[: self.pairs]
        texts = tuple(fill(SETS["simple"][0], name) for name in names)
        return Requests(images=True, captions=captions, texts=texts, text_optional=True)

    def score(self, embeddings: Embeddings) -> Scores:
        """The numbers, the cosine matrix and the map."""
        n = len(embeddings.ids)
        if n < 3:
            raise UserError(f"overview needs at least 3 usable images, got {n}.")
        chosen = np.unique(np.linspace(0, n - 1, min(n, self.most)).astype(int))
        image = features.unit(np.asarray(embeddings.images)[chosen])
        values = self._one_side("image", image)
        texts: list[str] = []
        owner = embeddings.caption_owner
        if embeddings.captions is not None and owner is not None and len(owner):
            rows, first = np.unique(owner, return_index=True)  # first caption of each image
            both = np.isin(rows, chosen)
            rows, first = rows[both], first[both]
            if len(rows) >= 3:
                text = features.unit(np.asarray(embeddings.captions)[first])
                paired = features.unit(np.asarray(embeddings.images)[rows])
                texts = [embeddings.caption_texts[i] for i in first.tolist()]
                values |= self._both_sides(paired, text) | self._one_side("text", text)
        if texts:
            cosine = self._cosine([embeddings.ids[r] for r in rows.tolist()], texts, paired, text)
        else:
            cosine = self._class_cosine(embeddings)
        return Scores(
            self.name, len(chosen), values, cosine=cosine, map=self._map(embeddings),
            notes=list(embeddings.notes),
        )  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """All options."""
        return {
            "most": self.most, "map": self.map, "map_points": self.map_points,
            "pairs": self.pairs, "seed": self.seed,
        }  # fmt: skip

    def _one_side(self, side: str, rows: Float[np.ndarray, "n D"]) -> dict[str, Interval]:
        def leave_out(measure: Callable[[np.ndarray], float]) -> Interval:
            return jackknife(lambda kept: measure(rows[kept]), len(rows), seed=self.seed)

        return {
            f"{side}_uniformity": _uniformity(rows, self.seed),
            f"{side}_dimensions": leave_out(features.effective_rank),
            f"{side}_spread": leave_out(features.spread),
            f"{side}_self_similarity": leave_out(features.self_similarity),
        }

    def _both_sides(
        self, image: Float[np.ndarray, "n D"], text: Float[np.ndarray, "n D"]
    ) -> dict[str, Interval]:
        draws = np.concatenate([
            np.linalg.norm((w @ image - w @ text) / len(image), axis=1)
            for w in resampled_counts(len(image), RESAMPLES, self.seed)
        ])  # fmt: skip
        gap = features.modality_gap(image, text)
        apart = features.alignment(image, text)
        return {
            "modality_gap": from_draws(gap, draws, len(image), centred=True),
            "alignment": bootstrap_mean(apart, seed=self.seed),
            "paired_cosine": bootstrap_mean(1 - apart / 2, seed=self.seed),
        }

    def _cosine(self, ids, texts, image, text) -> dict[str, Any]:
        """Pairs whose captions differ, spread evenly."""
        first = np.unique(number_texts(texts)[0], return_index=True)[1]
        count = min(self.pairs, len(first))
        rows = first[np.linspace(0, len(first) - 1, count).astype(int)]
        return {
            "ids": [ids[row] for row in rows],
            "texts": [texts[row] for row in rows],
            "matrix": (image[rows] @ text[rows].T).astype(float).round(4).tolist(),
        }

    def _class_cosine(self, embeddings: Embeddings) -> dict[str, Any] | None:
        """One image of each class beside the classes' names."""
        names = [fill(SETS["simple"][0], name) for name in embeddings.classes[: self.pairs]]
        names = [name for name in names if name in embeddings.prompts]
        if not names:
            return None
        _, first = np.unique(embeddings.label, return_index=True)
        rows = [int(row) for row in first if 0 <= embeddings.label[row] < len(names)]
        image = features.unit(np.asarray(embeddings.images)[rows])
        text = features.unit(embeddings.prompt_embeddings(names))
        return {
            "ids": [embeddings.ids[row] for row in rows],
            "texts": names,
            "matrix": (image @ text.T).astype(float).round(4).tolist(),
        }

    def _map(self, embeddings: Embeddings) -> dict[str, Any] | None:
        if self.map == "none":
            return None
        n = len(embeddings.ids)
        rows = np.unique(np.linspace(0, n - 1, min(n, self.map_points)).astype(int))
        points = features.unit(np.asarray(embeddings.images)[rows]).astype(np.float64)
        place, method = flatten(points, self.map, self.seed)
        names = embeddings.class_names
        label = embeddings.label[rows].tolist()
        return {
            "ids": [embeddings.ids[row] for row in rows],
            "x": place[:, 0].round(4).tolist(),
            "y": place[:, 1].round(4).tolist(),
            "label": [names[k] if k >= 0 else "" for k in label],
            "method": method,
        }


def _uniformity(rows: Float[np.ndarray, "n D"], seed: int) -> Interval:
    """Uniformity with a bootstrap; a row that is drawn twice is no pair with itself."""
    value = features.uniformity(rows)
    k = features.kernel(rows)
    np.fill_diagonal(k, 0.0)
    draws = []
    for weights in resampled_counts(len(rows), RESAMPLES, seed):
        w = weights.astype(np.float64)
        pairs = len(rows) ** 2 - (w**2).sum(axis=1)
        draws.append(np.log(((w @ k) * w).sum(axis=1) / pairs))
    return from_draws(value, np.concatenate(draws), len(rows), centred=True)
