"""What every objective is: needs, one scalar, parts for the log, and a hook after the step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from vislang.errors import UserError


class Objective(nn.Module):
    """A loss on the global batch, with the state that belongs to it.

    Subclasses set `needs` (keys of the batch, on the class or in the constructor) and write
    `forward(**rows)`, which gets exactly those keys and returns a scalar.

    `parts` holds detached scalars of the last call, for the log.

    Calling the object with more keys than it needs is fine; the rest is left out, so
    `objective(**model(**batch))` works. Autocast is off inside, and half-precision embeddings
    become fp32: softmaxes over a large batch need it.

    Raises:
        UserError: the batch lacks a key that the objective needs.
    """

    needs: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[str, Tensor] = {}

    def __call__(self, *rows: Tensor, **batch: Any) -> Tensor:
        if rows:
            batch = {**dict(zip(self.needs, rows)), **batch}
        missing = [key for key in self.needs if key not in batch]
        if missing:
            raise UserError(
                f"The objective {type(self).__name__} needs {', '.join(self.needs)};"
                f" the batch has no {', '.join(missing)}."
                " Use a source and augmentation that give it, or another objective."
            )
        given = {key: full_precision(batch[key]) for key in self.needs}
        device = next(iter(given.values())).device if given else torch.device("cpu")
        if not torch.is_autocast_enabled(device.type):  # entering the context costs 0.05 ms
            return super().__call__(**given)
        with torch.autocast(device.type, enabled=False):
            return super().__call__(**given)

    def after_step(self) -> None:
        """Called after each optimizer step: commit queues and averages, clamp, renormalise."""


def full_precision(value: Tensor) -> Tensor:
    """fp16 and bf16 as fp32, others as they are."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def new_log_scale(scale: float, learn: bool = True) -> nn.Parameter:
    """The logarithm of a logit scale (1 / temperature) as a parameter."""
    return nn.Parameter(torch.tensor(math.log(scale)), requires_grad=learn)


def clamp_log_scale(log_scale: nn.Parameter, max_scale: float) -> None:
    """Hold a learned log-scale in [0, ln max_scale], in place."""
    if log_scale.requires_grad:
        log_scale.data.clamp_(0.0, math.log(max_scale))


def positive(**values: float) -> None:
    """Refuse options that must be above zero.

    >>> positive(temperature=-1)
    Traceback (most recent call last):
    vislang.errors.UserError: temperature must be above 0, got -1.
    """
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"{name} must be above 0, got {value!r}.")


def one_of(allowed: tuple[str, ...], **values: str) -> None:
    """Refuse options that are none of the allowed words."""
    from vislang.lookup import nearest

    for name, value in values.items():
        if value not in allowed:
            raise UserError(
                f"{name} must be one of {', '.join(allowed)}, got {value!r}."
                f"{nearest(str(value), allowed)}"
            )
