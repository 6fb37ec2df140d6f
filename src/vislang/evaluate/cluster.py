"""Clustering: how well k-means finds the classes without having seen a label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.errors import UserError
from vislang.evaluate.probe import CHOICES, choose
from vislang.evaluate.requests import Embeddings, Requests, need
from vislang.evaluate.scores import Scores
from vislang.metrics.cluster import agreements, contingency, k_means
from vislang.metrics.features import unit

if TYPE_CHECKING:
    from vislang.data.sample import Source

MOST_CLASSES = 100


class Clustering:
    """k-means with as many clusters as classes; AMI, NMI and ARI against the labels.

    Rows are normalised first. The clustering is the best of `starts` runs of Lloyd's algorithm
    from k-means++ seeds; the intervals are bootstraps over samples with the clustering held fixed.

    Args:
        clusters: number of clusters; None takes the number of classes that occur.
        space: embedding, or features (before the head).
        starts: runs with different seeds.
        steps: most iterations of a run.
        seed: of the seeds.
    """

    name = "cluster"

    def __init__(
        self,
        clusters: int | None = None,
        space: str = "embedding",
        starts: int = 5,
        steps: int = 100,
        seed: int = 0,
    ):
        choose("cluster: space", space, CHOICES["space"])
        for name, value in (("clusters", clusters), ("starts", starts), ("steps", steps)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UserError(f"cluster: {name} must be a whole number of at least 1: {value!r}.")
        self.clusters, self.space = clusters, space
        self.starts, self.steps, self.seed = starts, steps, seed

    def requests(self, source: Source) -> Requests:
        """Images and labels."""
        need(source, "label", self.name)
        return Requests(
            images=self.space == "embedding", features=self.space == "features", labels=True
        )

    def score(self, embeddings: Embeddings) -> Scores:
        """Agreement of clusters and classes."""
        chosen = embeddings.labelled()
        present = np.unique(chosen.label)
        k = self.clusters or len(present)
        n = len(chosen.label)
        if len(present) < 2 or k > n:
            raise UserError(
                f"cluster needs samples of two classes and as many samples as clusters; got {n}"
                f" samples of {len(present)} classes for {k} clusters."
            )
        points = unit(chosen.space(self.space))
        found = k_means(points, k, starts=self.starts, steps=self.steps, seed=self.seed)
        notes = list(embeddings.notes)
        if len(np.unique(found)) < k:
            notes.append(f"Only {len(np.unique(found))} of {k} clusters are not empty.")
        names = embeddings.class_names
        tables = {}
        if k <= MOST_CLASSES and len(present) <= MOST_CLASSES:
            counts = contingency(chosen.label, found)
            order = np.argsort(counts.argmax(0), kind="stable")  # clusters beside their classes
            tables["clusters"] = {
                "columns": ["class", *(f"cluster {i + 1}" for i in range(counts.shape[1]))],
                "rows": [
                    [names[label], *row[order].tolist()] for label, row in zip(present, counts)
                ],
            }
        values = agreements(chosen.label, found, seed=self.seed)
        return Scores(self.name, n, values, tables=tables, notes=notes)

    def settings(self) -> dict[str, Any]:
        """All options."""
        return {
            "clusters": self.clusters, "space": self.space, "starts": self.starts,
            "steps": self.steps, "seed": self.seed,
        }  # fmt: skip
