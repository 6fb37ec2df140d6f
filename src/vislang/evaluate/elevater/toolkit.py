"""The toolkit's fine-tuning: SGD at a constant rate over the image side and the head.

The classifier, the order of the batches and the choice of the epoch are those of its linear probe;
with nothing of the side trained it is that probe with pictures encoded anew in every epoch, which
is what the toolkit does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from vislang.evaluate.elevater.linear import MOMENTUM, batches_of, lenient_metric
from vislang.evaluate.elevater.search import EPOCHS, FINAL_EPOCHS, Chosen, Pair, search
from vislang.evaluate.tune import Rows, forward, train_step
from vislang.evaluate.tuned import Classifier, NormHead, prepare_side, trainable

if TYPE_CHECKING:
    from vislang.models.dual import Side


@dataclass(frozen=True)
class Finished:
    """One training.

    Args:
        best, best_epoch, best_rows: the score, the first epoch that has it, probabilities [m, C].
        last, last_rows: after the last epoch.
        trainable: numbers that were trained.
    """

    best: float
    best_epoch: int
    best_rows: np.ndarray
    last: float
    last_rows: np.ndarray
    trainable: int


class Toolkit:
    """Trainings of one image side by the toolkit's rules.

    Args:
        side: left as it is.
        start: weights that the head begins with [C, D].
        metric: by which epochs are compared.
        part, blocks: what is trained (see `prepare_side`); whole in the toolkit's fine-tuning, head
            in its linear probe.
        device, precision: where and how.
        batch_norm, unit, scale: of the head.
    """

    def __init__(
        self,
        side: Side,
        start: np.ndarray,
        metric: str,
        part: str = "whole",
        blocks: int = 1,
        device: torch.device | None = None,
        precision: str = "fp32",
        **head: bool | float,
    ):
        self.side, self.start, self.metric = side, start, metric
        self.part, self.blocks, self.head = part, blocks, head
        self.device, self.precision = device or torch.device("cpu"), precision

    def train(
        self,
        train: Rows,
        target: np.ndarray,
        rows: Sequence[int],
        judged: tuple[Rows, np.ndarray, Sequence[int]],
        rate: float,
        decay: float,
        epochs: int,
    ) -> Finished:
        """Train on some rows; judge others after each epoch.

        Args:
            train, target: pictures and classes.
            rows: of these to learn from, in the toolkit's order.
            judged: pictures, classes, and which rows of them.
            rate, decay, epochs: of SGD.
        """
        torch.manual_seed(0)
        weight = torch.from_numpy(np.asarray(self.start, np.float32))
        head = NormHead(weight, **self.head)  # type: ignore[arg-type]
        model = Classifier(prepare_side(self.side, self.part, self.blocks), head).to(self.device)
        moved = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(moved, rate, momentum=MOMENTUM, weight_decay=decay)
        goal, chosen = torch.from_numpy(np.asarray(target)), torch.as_tensor(list(rows))
        pictures, label, asked = judged
        best, at, last = -np.inf, 0, 0.0
        best_rows = last_rows = np.empty(0)
        for epoch, parts in enumerate(batches_of(len(chosen), epochs)):
            for part in parts:
                own = chosen[part]
                train_step(model, optimizer, train.rows(own), goal[own], self.device,
                           self.precision)  # fmt: skip
            logits = forward(model, pictures, asked, self.device, self.precision)
            last_rows = torch.from_numpy(logits).float().softmax(-1).numpy()
            last = lenient_metric(self.metric, last_rows, label[asked])
            if last > best:
                best, at, best_rows = last, epoch, last_rows
        return Finished(best, at, best_rows, last, last_rows, trainable(model))

    def search(
        self, train: Rows, target: np.ndarray, learnt: Sequence[int], held: Sequence[int]
    ) -> Chosen:
        """The pair of rate and weight decay, by up to 90 trainings of ten epochs."""

        def scores(pairs: list[Pair]) -> list[float]:
            judged = (train, target, held)
            return [self.train(train, target, learnt, judged, *pair, EPOCHS).best for pair in pairs]

        return search(scores)

    def final(
        self, train: Rows, target: np.ndarray, rows: Sequence[int], test: Rows, label: np.ndarray,
        rate: float, decay: float, epochs: int = FINAL_EPOCHS,
    ) -> Finished:  # fmt: skip
        """The last training, on learnt and held-out samples together."""
        judged = (test, label, range(len(test)))
        return self.train(train, target, rows, judged, rate, decay, epochs)
