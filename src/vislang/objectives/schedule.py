"""Values that change over a run, as functions of the number of optimizer steps done."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vislang.errors import UserError


class Clock(nn.Module):
    """Counts optimizer steps; saved with the objective, so that schedules resume exactly.

    Args:
        steps: optimizer steps of the whole run; 0 when unknown.
    """

    def __init__(self, steps: int = 0):
        super().__init__()
        self.steps = steps
        self.done: Tensor
        self.register_buffer("done", torch.zeros((), dtype=torch.int64))

    def tick(self) -> None:
        """One more step is done."""
        self.done.add_(1)

    def step_of(self, when: float, name: str) -> int:
        """A number of steps; below 1 it is a fraction of the whole run.

        >>> Clock(steps=200).step_of(0.1, "warmup"), Clock().step_of(30, "warmup")
        (20, 30)
        """
        if when < 0:
            raise UserError(f"{name} must be 0 or more, got {when!r}.")
        if 0 < when < 1 and not self.steps:
            raise UserError(
                f"{name} is a fraction ({when!r}) of a run whose number of steps is unknown."
                " Give the number of steps, or the objective's option steps."
            )
        return round(when * self.steps) if when < 1 else round(when)

    def before(self, step: int) -> bool:
        """Whether fewer than `step` steps are done."""
        return step > 0 and int(self.done) < step

    def cosine(self, start: float, end: float) -> float:
        """From `start` to `end` over the run along half a cosine; `start` when its length is
        unknown. BYOL, Grill et al. 2020, arXiv:2006.07733, section 3.2."""
        if not self.steps:
            return start
        share = min(int(self.done) / self.steps, 1.0)
        return end - (end - start) * (math.cos(math.pi * share) + 1) / 2

    def linear(self, start: float, end: float, until: int) -> float:
        """From `start` to `end` over the first `until` steps."""
        if not until:
            return end
        return start + (end - start) * min(int(self.done) / until, 1.0)
