"""Embeddings in two dimensions, to be looked at.  n: points, D: width."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float


def flatten(
    points: Float[np.ndarray, "n D"], method: str = "tsne", seed: int = 0
) -> tuple[Float[np.ndarray, "n 2"], str]:
    """Two coordinates for each point, the same each time, and the name of the method.

    Few or coinciding points, of which t-SNE makes nothing, are projected (PCA).
    """
    from threadpoolctl import threadpool_limits

    centred = points - points.mean(axis=0)
    with threadpool_limits(1):
        u, s, _ = np.linalg.svd(centred, full_matrices=False)
        flat = np.zeros((len(points), 2))
        flat[:, : min(2, len(s))] = (u * s)[:, :2]
        # Which way an axis points is arbitrary: let its largest coordinate be positive.
        far = np.abs(flat).argmax(axis=0)
        flat *= np.where(flat[far, [0, 1]] < 0, -1, 1)
        if method == "pca" or len(points) < 10 or np.std(flat[:, 0]) < 1e-6:
            return flat, "PCA"
        from sklearn.manifold import TSNE

        start = flat / np.std(flat[:, 0]) * 1e-4
        perplexity = min(30.0, (len(points) - 1) / 3)
        # pyright takes init for a string because its default is one.
        made = TSNE(init=start, perplexity=perplexity, random_state=seed, n_jobs=1)  # type: ignore[arg-type]
        return made.fit_transform(points.astype(np.float32)).astype(np.float64), "t-SNE"
