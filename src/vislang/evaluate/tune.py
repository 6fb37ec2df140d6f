"""Fine-tuning as an evaluation: how well a model's image side learns a set of classes.

Every choice (the rate, the share of WiSE-FT) is made on held-out training samples, then the
chosen one is trained again on all of them and asked once for the test samples. The ways:

    whole            the tower and the head
    adapters, last   small parts put into the tower, or its last blocks; the rest keeps its weights
    LP-FT            start="probe": a linear probe first, so that the head does not distort the
                     features (Kumar et al. 2022, arXiv:2202.10054)
    WiSE-FT          wise=(0, 0.5, 1): weights between the zero-shot model and the tuned one
                     (Wortsman et al. 2022, arXiv:2109.01903)

n, m: training and test samples, C: classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from vislang.devices import autocast, pick_device, pick_precision
from vislang.errors import UserError
from vislang.evaluate.elevater.anchored import fit_path, probabilities, thresholds
from vislang.evaluate.tuned import Classifier, CosineHead, prepare_side, trainable
from vislang.models.dual import Side
from vislang.models.wise import check_alpha, interpolate_states
from vislang.train.optim import Schedule

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn

STARTS = ("text", "probe", "zero")
SCALE = 100.0  # of the class prompts in the head, as in zero-shot classification
PROBE_PENALTY = 1e-3  # of the probe that LP-FT starts from
_JUDGED = 256  # pictures in a forward pass without gradient


class Rows(Protocol):
    """Pictures by row."""

    def __len__(self) -> int: ...

    def rows(self, rows: Tensor | Sequence[int]) -> Tensor:
        """[b, 3, H, W]."""
        ...


@dataclass(frozen=True)
class TuneOptions:
    """How to fine-tune.

    Args:
        part: whole, adapters, last or head.
        blocks: of part last.
        adapter, adapter_options: of part adapters.
        start: the head begins as the class prompts (text), as a linear probe of the features
            (probe, which is LP-FT) or at 0 (zero).
        rates: learning rates to choose from.
        wise: shares of the tuned weights to choose from; 0 is the model as it was.
        epochs, batch_size, warmup, weight_decay: of AdamW with half a cosine; warmup is a share.
        seed: of the order of the samples.
    """

    part: str = "whole"
    blocks: int = 1
    adapter: str = "lora"
    adapter_options: Mapping[str, Any] = field(default_factory=dict)
    start: str = "text"
    rates: tuple[float, ...] = (1e-5, 1e-4, 1e-3)
    wise: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    epochs: int = 10
    batch_size: int = 64
    warmup: float = 0.1
    weight_decay: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rates", "wise"):  # a file has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.start not in STARTS:
            raise UserError(f"start must be one of {', '.join(STARTS)}, got {self.start!r}.")
        if not self.rates or not self.wise or self.epochs < 1 or self.batch_size < 1:
            raise UserError("Fine-tuning needs rates, wise, and at least 1 epoch and sample.")
        for alpha in self.wise:
            check_alpha(alpha)

    def as_settings(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


@dataclass(frozen=True)
class Tuned:
    """What fine-tuning gave.

    Args:
        logits: of the test samples [m, C].
        rate, alpha: what was chosen.
        tried: (rate, alpha, score on the held-out samples).
        trainable: numbers that were trained.
        classifier: the model, its weights already those of `alpha`.
    """

    logits: np.ndarray
    rate: float
    alpha: float
    tried: list[tuple[float, float, float]]
    trainable: int
    classifier: Classifier


def fine_tune(
    side: Side,
    train: Rows,
    target: np.ndarray,
    test: Rows,
    divided: tuple[Sequence[int] | np.ndarray, Sequence[int] | np.ndarray],
    score: Callable[[np.ndarray, np.ndarray], float],
    text: Float[np.ndarray, "C D"] | None,
    classes: int,
    options: TuneOptions | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> Tuned:
    """Choose on held-out samples, train on all, answer the test samples.

    Args:
        side: an image side; left as it is.
        train: pictures to learn from.
        target: theirs: classes [n], or 0 and 1 [n, C].
        test: pictures to answer.
        divided: rows of `train` to learn from, and held out, while choosing.
        score: (probabilities, target) -> the larger the better; of equals the first choice, that
            with the smaller rate and share, is taken.
        text: unit embeddings of the class prompts, or None.
        classes: C.
        options: how.
        device, precision: as everywhere.
    """
    options = options or TuneOptions()
    where = pick_device(device)
    trainer = Trainer(side.to(where), text, classes, options, where, precision)
    learnt, held = (np.asarray(rows, np.int64) for rows in divided)
    tried: list[tuple[float, float, float]] = []
    if len(options.rates) * len(options.wise) > 1:
        if not len(held):
            raise UserError("No training sample can be held out: give one rate and one share.")
        for rate in options.rates:
            start, model = trainer.run(train, target, learnt, rate)
            for alpha in options.wise:
                move(model, start, trainer.end, alpha)
                rows = probabilities(trainer.answer(model, train, held), target.ndim == 2)
                tried.append((rate, alpha, score(rows, target[held])))
        rate, alpha, _ = max(tried, key=lambda one: one[2])
    else:
        rate, alpha = options.rates[0], options.wise[0]
    start, model = trainer.run(train, target, np.arange(len(target)), rate)
    move(model, start, trainer.end, alpha)
    logits = trainer.answer(model, test, np.arange(len(test)))
    return Tuned(logits, rate, alpha, tried, trainable(model), model)


def move(
    model: nn.Module, start: Mapping[str, Tensor], end: Mapping[str, Tensor], alpha: float
) -> None:
    """Put the weights of a model between its start and its end."""
    model.load_state_dict(interpolate_states(start, end, alpha))


class Trainer:
    """Trains a side with a head again and again, each time from the same start."""

    def __init__(
        self,
        side: Side,
        text: np.ndarray | None,
        classes: int,
        options: TuneOptions,
        device: torch.device,
        precision: str,
    ):
        if options.start == "text" and text is None:
            raise UserError(
                "The head cannot begin as the class prompts: the model has no text side."
                " Set start to probe or zero."
            )
        self.side, self.options, self.device = side, options, device
        self.precision = pick_precision(precision, device)
        zero = np.zeros((classes, side.width))
        self.text = SCALE * text if text is not None else zero
        self.end: dict[str, Tensor] = {}

    def run(
        self, pictures: Rows, target: np.ndarray, rows: np.ndarray, rate: float
    ) -> tuple[dict[str, Tensor], Classifier]:
        """(weights of the zero-shot model, the tuned model); `end` holds the tuned weights."""
        o = self.options
        torch.manual_seed(o.seed)
        side = prepare_side(self.side, o.part, o.blocks, o.adapter, o.adapter_options)
        text = torch.from_numpy(self.text if o.start != "zero" else 0 * self.text).float()
        model = Classifier(side, CosineHead(text)).to(self.device)
        if target.ndim == 2 and o.start != "zero":
            shift = thresholds(self.answer(model, pictures, rows), target[rows])
            with torch.no_grad():
                model.head.bias.sub_(torch.from_numpy(shift))  # type: ignore[union-attr,operator]
        start = state_of(model)
        if o.start == "probe":
            self._probe(model, pictures, target, rows)
        self._train(model, pictures, target, rows, rate)
        self.end = state_of(model)
        return start, model

    def _probe(self, model: Classifier, pictures: Rows, target: np.ndarray, rows) -> None:
        """Fit the head to the features as they are; LP-FT's first half."""
        x = self._forward(model.side, pictures, rows)
        head = fit_path(x, target[rows], self.text, [1.0, 0.1, 0.01, PROBE_PENALTY])[-1]
        weight = head.anchor + head.weight / head.spread
        bias = head.bias - head.weight @ head.mean / head.spread
        with torch.no_grad():
            model.head.weight.copy_(torch.from_numpy(weight))  # type: ignore[union-attr,operator]
            model.head.bias.copy_(torch.from_numpy(bias))  # type: ignore[union-attr,operator]

    def _train(self, model: Classifier, pictures: Rows, target, rows, rate: float) -> None:
        o = self.options
        decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
        rest = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": o.weight_decay},
                  {"params": rest, "weight_decay": 0.0}]  # fmt: skip
        optimizer = torch.optim.AdamW(groups, lr=rate)
        each = math.ceil(len(rows) / o.batch_size)
        steps = each * o.epochs
        schedule = Schedule(rate, 0.0, round(o.warmup * steps), steps)
        rng, step = np.random.default_rng(o.seed), 0
        goal = torch.from_numpy(np.asarray(target))
        for _ in range(o.epochs):
            order = rng.permutation(rows)
            for at in range(0, len(order), o.batch_size):
                part = torch.from_numpy(order[at : at + o.batch_size])
                for group in optimizer.param_groups:
                    group["lr"] = schedule.rate(step)
                train_step(model, optimizer, pictures.rows(part), goal[part], self.device,
                           self.precision)  # fmt: skip
                step += 1

    def answer(self, model: nn.Module, pictures: Rows, rows: Iterable[int]) -> np.ndarray:
        """Logits in float64."""
        return self._forward(model, pictures, rows)

    def _forward(self, module: nn.Module, pictures: Rows, rows: Iterable[int]) -> np.ndarray:
        return forward(module, pictures, list(rows), self.device, self.precision)


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    image: Tensor,
    target: Tensor,
    device: torch.device,
    precision: str = "fp32",
) -> float:
    """One step of (binary) cross-entropy; the loss before it."""
    model.train()
    optimizer.zero_grad(set_to_none=True)
    target = target.to(device)
    with autocast(device, precision):
        logits = model(image.to(device)).float()
    if target.ndim == 2:
        loss = F.binary_cross_entropy_with_logits(logits, target.float())
    else:
        loss = F.cross_entropy(logits, target)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


@torch.no_grad()
def forward(
    module: nn.Module, pictures: Rows, rows: Sequence[int], device: torch.device, precision: str
) -> Float[np.ndarray, "b D"]:
    """What a module makes of these pictures, in eval mode, float64."""
    module.eval()
    parts = []
    with autocast(device, precision):
        for at in range(0, len(rows), _JUDGED):
            found = module(pictures.rows(rows[at : at + _JUDGED]).to(device))
            parts.append(found.double().cpu().numpy())
    return np.concatenate(parts)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
