"""K-means of an episode's embeddings.  n: rows, D: width, K: clusters."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from vislang.errors import UserError
from vislang.objectives.objective import one_of

TRAINED_ROWS = 256  # rows for each cluster that take part in training, as in faiss
SHAKE = 1 / 1024  # how far apart the halves of a split cluster start


@dataclass(frozen=True)
class Clusters:
    """What K-means found.

    Args:
        centroids: [K, D], means, not unit rows.
        labels: int64 [n], the nearest centroid of every row.
        errors: Σ squared distances to the nearest centroid after each iteration, over the rows
            that took part in training; of the best repetition.
        backend: "faiss" or "own".
    """

    centroids: Tensor
    labels: Tensor
    errors: tuple[float, ...]
    backend: str

    @property
    def sizes(self) -> Tensor:
        """int64 [K], rows of each cluster."""
        return torch.bincount(self.labels, minlength=len(self.centroids))


def kmeans(
    rows: Tensor,
    clusters: int,
    iterations: int = 20,
    repetitions: int = 1,
    seed: int = 1234,
    backend: str = "auto",
) -> Clusters:
    """Group rows around K centroids, by squared Euclidean distance (Lloyd 1982).

    At most 256 rows for each cluster, drawn at random, train the centroids; then every row gets
    its nearest one. An empty cluster takes over half of a large one. NaNs count as 0. The same
    seed gives the same result, on every process.

    Args:
        rows: [n, D].
        clusters: K.
        iterations: Lloyd's steps.
        repetitions: starts, of which the one with the least error is kept.
        seed: of the rows that train and of the first centroids.
        backend: "faiss", "own", or "auto": faiss when it is installed. Both minimise the same;
            they find different local minima.

    Raises:
        UserError: fewer rows than clusters.
    """
    one_of(("auto", "faiss", "own"), backend=backend)
    if len(rows) < clusters:
        raise UserError(
            f"K-means needs at least as many samples as clusters: got {len(rows)} samples for"
            f" {clusters} clusters. Use a longer episode or fewer clusters."
        )
    if backend == "auto":
        backend = "faiss" if find_spec("faiss") else "own"
    rows = torch.nan_to_num(rows.detach().float())
    run = _with_faiss if backend == "faiss" else _own
    centroids, errors = run(rows, clusters, iterations, repetitions, seed)
    return Clusters(centroids, nearest(rows, centroids)[0], tuple(errors), backend)


def nearest(rows: Tensor, centroids: Tensor, block: int = 8192) -> tuple[Tensor, Tensor]:
    """Index int64 [n] of each row's nearest centroid, and the squared distance [n]."""
    lengths = centroids.square().sum(1)
    index = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
    distance = rows.new_empty(len(rows))
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        # |x - c|² = |x|² - 2 x·c + |c|², of which |x|² does not matter for the choice.
        least, found = torch.addmm(lengths, part, centroids.T, alpha=-2).min(1)
        index[start : start + block] = found
        distance[start : start + block] = (least + part.square().sum(1)).clamp_min(0)
    return index, distance


def cluster_means(rows: Tensor, labels: Tensor, clusters: int) -> Tensor:
    """Mean of the rows of each cluster, [K, D]; zeros where a cluster is empty."""
    sums = rows.new_zeros(clusters, rows.shape[1]).index_add_(0, labels, rows)
    return sums / torch.bincount(labels, minlength=clusters).clamp(min=1)[:, None]


def _with_faiss(
    rows: Tensor, clusters: int, iterations: int, repetitions: int, seed: int
) -> tuple[Tensor, list[float]]:
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise UserError(
            "The K-means backend 'faiss' is not installed: pip install 'vislang[search]', or take"
            " backend 'own'."
        ) from error
    index = faiss.Kmeans(
        rows.shape[1],
        clusters,
        niter=iterations,
        nredo=repetitions,
        seed=seed % 2**31,
        max_points_per_centroid=TRAINED_ROWS,
        min_points_per_centroid=1,
    )
    index.train(rows.cpu().numpy())
    centroids = torch.from_numpy(np.array(index.centroids)).to(rows.device)
    # The best repetition's errors stand last, behind those of the repetitions before it.
    return centroids, np.asarray(index.obj, dtype=float)[-iterations:].tolist()


def _own(
    rows: Tensor, clusters: int, iterations: int, repetitions: int, seed: int
) -> tuple[Tensor, list[float]]:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(rows), generator=generator)
    rows = rows[order[: TRAINED_ROWS * clusters].to(rows.device)]
    best: tuple[Tensor, list[float]] | None = None
    for _ in range(repetitions):
        start = torch.randperm(len(rows), generator=generator)[:clusters].to(rows.device)
        centroids, errors = rows[start].clone(), []
        for _ in range(iterations):
            labels, distances = nearest(rows, centroids)
            errors.append(float(distances.sum()))
            centroids = cluster_means(rows, labels, clusters)
            _fill_empty(centroids, torch.bincount(labels, minlength=clusters), generator)
        errors.append(float(nearest(rows, centroids)[1].sum()))
        if best is None or errors[-1] < best[1][-1]:
            best = centroids, errors
    assert best is not None
    return best


def _fill_empty(centroids: Tensor, sizes: Tensor, generator: torch.Generator) -> None:
    """Give each empty cluster one half of a large one, both moved a little apart, in place."""
    sizes = sizes.cpu().double()
    signs = SHAKE * (1 - 2 * (torch.arange(centroids.shape[1], device=centroids.device) % 2))
    for empty in (sizes == 0).nonzero().flatten().tolist():
        weights = (sizes - 1).clamp(min=0)
        if not weights.sum() > 0:
            return  # nothing left to split: as many rows as clusters
        large = int(torch.multinomial(weights, 1, generator=generator))
        centroids[empty] = centroids[large] * (1 + signs)
        centroids[large] = centroids[large] * (1 - signs)
        sizes[empty] = sizes[large] // 2
        sizes[large] -= sizes[empty]
