"""The toolkit's linear probe on stored features: many rates and weight decays at a time.

    head(x) = s (W BN(x) + b),   BN without scale and shift,   s = 1 unless asked

by SGD with momentum 0.9 at a constant rate, batches of 64. With a frozen tower the features never
change, and BN's statistics depend on the order of the batches alone, which is the same in every
training: so all trainings of a search see the same batches, and are one matrix product each.

n, m: samples learnt from and judged, D: width, C: classes, K: trainings side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from vislang.errors import UserError
from vislang.metrics.elevater import elevater_metric

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

BATCH, MOMENTUM = 64, 0.9
NORM_MOMENTUM, NORM_EPSILON = 0.1, 1e-5  # of torch's BatchNorm1d
_NUMBERS = 1 << 25  # in the arrays of one block of trainings


@dataclass(frozen=True)
class Probed:
    """What is learnt from and judged on.

    Args:
        train: features [n, D], in the toolkit's order.
        target: class of each sample [n]; of a multi-label set 0 or 1 [n, C].
        judged: features of the validation or test samples [m, D].
        label: theirs, likewise.
        metric: one of METRICS; 11point_mAP is trained with binary cross-entropy.
        start: weights to start from [C, D], usually the class prompts' embeddings.
        batch_norm: normalise features by the batch's mean and variance.
        unit: then scale rows to length 1.
        scale: s.
    """

    train: Float[Tensor, "n D"]
    target: Int[Tensor, "*n"] | Float[Tensor, "n C"]
    judged: Float[Tensor, "m D"]
    label: np.ndarray
    metric: str
    start: Float[Tensor, "C D"]
    batch_norm: bool = True
    unit: bool = False
    scale: float = 1.0

    @property
    def several(self) -> bool:
        """Whether a sample may have several classes."""
        return self.target.ndim == 2


@dataclass(frozen=True)
class Trained:
    """K trainings.

    Args:
        best: highest score over the epochs [K].
        best_epoch: the first epoch that has it [K].
        last: score after the last epoch [K].
        best_rows, last_rows: softmax probabilities there [K, m, C], where they were kept.
    """

    best: np.ndarray
    best_epoch: np.ndarray
    last: np.ndarray
    best_rows: np.ndarray | None = None
    last_rows: np.ndarray | None = None


def batches_of(n: int, epochs: int, seed: int = 0, batch: int = BATCH) -> Iterator[list[Tensor]]:
    """For each epoch, the positions of its batches: the order of torch's DataLoader.

    One of a single sample is left out: it has no variance.
    """
    rng = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        torch.empty((), dtype=torch.int64).random_(generator=rng)  # the loader's own seed
        order = torch.randperm(n, generator=rng)
        torch.randperm(n, generator=rng)  # its sampler draws an order more than it uses
        yield [part for part in order.split(batch) if len(part) > 1]


def lenient_metric(metric: str, rows: Float[np.ndarray, "m C"], label: np.ndarray) -> float:
    """The metric, where a training may have run away: as the toolkit would have counted it.

    numpy's argmax takes the first that is not a number; the other metrics fail there, which
    counts 0.
    """
    if metric in ("accuracy", "mean-per-class"):
        rows = np.where(np.isfinite(rows), rows, 2.0)
    try:
        return elevater_metric(metric, rows, label)
    except UserError:
        return 0.0


def train_heads(
    task: Probed,
    rates: Sequence[float],
    decays: Sequence[float],
    epochs: int,
    keep: bool = False,
) -> Trained:
    """Train a head for each pair of rate and weight decay.

    Args:
        task: data.
        rates, decays: K of each.
        epochs: to train.
        keep: keep probabilities; else scores alone.
    """
    classes, width = task.start.shape
    each = classes * width * 3 + len(task.judged) * classes * (3 if keep else 1)
    block = max(1, _NUMBERS // max(each, 1))
    parts = [
        _train(task, rates[at : at + block], decays[at : at + block], epochs, keep)
        for at in range(0, len(rates), block)
    ]

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    rows = [joined("best_rows"), joined("last_rows")] if keep else [None, None]
    return Trained(joined("best"), joined("best_epoch"), joined("last"), *rows)


@torch.no_grad()
def _train(
    task: Probed, rates: Sequence[float], decays: Sequence[float], epochs: int, keep: bool
) -> Trained:
    k, (classes, width) = len(rates), task.start.shape
    weight = task.start.float().repeat(k, 1, 1)  # [K, C, D]
    bias = torch.zeros(k, classes)
    rate, decay = (torch.tensor(values, dtype=torch.float32) for values in (rates, decays))
    speed: list[Tensor] = []
    norm = _Norm(width, task)
    best, at = np.full(k, -np.inf), np.zeros(k, np.int64)
    last, best_rows, rows = np.zeros(k), None, np.empty(0)
    for epoch, parts in enumerate(batches_of(len(task.train), epochs)):
        for part in parts:
            x = norm.train(task.train[part])
            error = _error(_logits(x, weight, bias, task.scale), task.target[part])
            flat = error.reshape(len(part), -1)
            gradients = [(flat.T @ x).view_as(weight), flat.sum(0).view_as(bias)]
            for i, (value, gradient) in enumerate(zip((weight, bias), gradients)):
                shape = (-1,) + (1,) * (value.ndim - 1)
                gradient = gradient * task.scale + decay.view(shape) * value
                if len(speed) <= i:
                    speed.append(gradient)
                else:
                    speed[i].mul_(MOMENTUM).add_(gradient)
                value -= rate.view(shape) * speed[i]
        found = _logits(norm.judge(task.judged), weight, bias, task.scale).softmax(-1)
        rows = found.transpose(0, 1).contiguous().numpy()  # [K, m, C]
        last = np.array([lenient_metric(task.metric, one, task.label) for one in rows])
        better = last > best
        best[better], at[better] = last[better], epoch
        if keep:
            best_rows = rows.copy() if best_rows is None else best_rows
            best_rows[better] = rows[better]
    return Trained(best, at, last, best_rows, rows if keep else None)


class _Norm:
    """Batch normalisation without scale and shift, and perhaps rows of length 1 behind it."""

    def __init__(self, width: int, task: Probed):
        self.on, self.unit = task.batch_norm, task.unit
        self.mean, self.variance = torch.zeros(width), torch.ones(width)

    def train(self, x: Tensor) -> Tensor:
        return self._pass(x, True)

    def judge(self, x: Tensor) -> Tensor:
        return self._pass(x, False)

    def _pass(self, x: Tensor, training: bool) -> Tensor:
        x = x.float()
        if self.on:
            x = F.batch_norm(x, self.mean, self.variance, training=training,
                             momentum=NORM_MOMENTUM, eps=NORM_EPSILON)  # fmt: skip
        return F.normalize(x, dim=-1) if self.unit else x


def _logits(x: Tensor, weight: Tensor, bias: Tensor, scale: float) -> Tensor:
    """[n, D], [K, C, D] -> [n, K, C], as one product."""
    k, classes, width = weight.shape
    flat = torch.addmm(bias.view(-1), x, weight.view(-1, width).T)
    return (flat * scale if scale != 1 else flat).view(len(x), k, classes)


def _error(logits: Tensor, target: Tensor) -> Tensor:
    """The gradient of the mean loss with respect to the logits [n, K, C]."""
    n = len(logits)
    if target.ndim == 2:
        return (logits.sigmoid() - target.float()[:, None]) / (n * target.shape[1])
    error = logits.softmax(-1)
    error[torch.arange(n), :, target] -= 1
    return error / n
