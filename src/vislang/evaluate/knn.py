"""k nearest neighbours: how well the features of alike images lie together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.errors import UserError
from vislang.evaluate.classified import score_classes
from vislang.evaluate.probe import CHOICES, choose, space_request
from vislang.evaluate.requests import Embeddings, Requests, need
from vislang.evaluate.scores import Scores
from vislang.metrics.classify import accuracy, ranks
from vislang.metrics.features import unit
from vislang.metrics.neighbours import nearest, votes

if TYPE_CHECKING:
    from vislang.data.sample import Source


class NearestNeighbours:
    """Weighted k-NN classification on cosine similarity.

    Each of the k nearest training samples votes for its class with weight exp(cosine / T). Wu et
    al. 2018, arXiv:1805.01978; k = 20 and T = 0.07 as in ITRA and DINO. `plain_accuracy` gives
    each neighbour one vote; equal votes count against the model.

    Args:
        k: neighbours.
        temperature: T; None gives each neighbour one vote.
        space: features (before the head) or embedding.
    """

    name = "knn"

    def __init__(self, k: int = 20, temperature: float | None = 0.07, space: str = "features"):
        choose("knn: space", space, CHOICES["space"])
        if not isinstance(k, int) or k < 1:
            raise UserError(f"knn: k must be a whole number of at least 1, got {k!r}.")
        if temperature is not None and not temperature > 0:
            raise UserError(f"knn: temperature must be above 0 or none, got {temperature}.")
        self.k, self.temperature, self.space = k, temperature, space

    def requests(self, source: Source) -> Requests:
        """Features and labels of both sources."""
        need(source, "label", self.name)
        return space_request(self.space)

    def score(self, embeddings: Embeddings) -> Scores:
        """Accuracy on the test samples."""
        train, test, how = embeddings.with_train()
        notes = [*embeddings.notes, f"Neighbours from: {how}."]
        if self.k > len(train.label):
            notes.append(f"k was {self.k}, but there are only {len(train.label)} samples.")
        index, similarity = nearest(
            unit(test.space(self.space)), unit(train.space(self.space)), self.k
        )
        scores = votes(index, similarity, train.label, embeddings.class_count, self.temperature)
        shown = np.linspace(0, len(index) - 1, min(6, len(index))).astype(int).tolist()
        names = embeddings.class_names
        examples = [_example(row, index, similarity, train, test, names) for row in shown]
        result = score_classes(
            self.name, scores, test.label, embeddings.class_names, test.ids, notes=notes
        )
        plain = votes(index, similarity, train.label, embeddings.class_count, None)
        result.values["plain_accuracy"] = accuracy(ranks(plain, test.label))
        return result if embeddings.train is not None else _with_examples(result, examples)

    def settings(self) -> dict[str, Any]:
        """All options."""
        return {"k": self.k, "temperature": self.temperature, "space": self.space}


def _example(row, index, similarity, train, test, names) -> dict[str, Any]:
    """A test image with its nearest training images; both lie in the same source."""
    label = test.label[row]
    answers = [
        {"id": train.ids[j], "score": float(s), "right": bool(train.label[j] == label)}
        for j, s in zip(index[row][:5].tolist(), similarity[row][:5].tolist())
    ]
    query = {"id": test.ids[row], "label": names[label]}
    right = bool(answers[0]["right"])
    return {"kind": "image_to_image", "query": query, "right": right, "answers": answers}


def _with_examples(scores: Scores, examples: list[dict[str, Any]]) -> Scores:
    from dataclasses import replace

    return replace(scores, examples=[*(scores.examples or []), *examples])
