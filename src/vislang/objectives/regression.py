"""Regression of unit embeddings (SimReg) with three norms.  B: pairs, D: width."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vislang.objectives.distillation import Distillation
from vislang.objectives.layers import mlp


class SimReg(Distillation):
    """Move the student's unit embedding onto the teacher's, in squared distance.

        loss = mean over B of ||t - q(s)||² = 2 - 2 cos(t, q(s))

    t, s: unit rows; q: an optional MLP that is thrown away after training.
    SimReg, Navaneet et al. 2021 (BMVC), arXiv:2201.05131, section 3.

    Args:
        teacher, student, detach: see `Distillation`.
        width: D, filled in by the builder.
        predictor: hidden widths of q, for example [2048, 2048]; empty for no q.
        mean_over_width: divide by D as torch's mse_loss does, which makes the loss D times
            smaller (the golden numbers are of that kind).
    """

    def __init__(
        self,
        width: int,
        teacher: str = "text",
        student: str = "",
        detach: bool = True,
        predictor: tuple[int, ...] = (),
        mean_over_width: bool = False,
    ):
        super().__init__(teacher, student, detach)
        self.predictor = mlp([width, *predictor, width] if predictor else [width])
        self.mean_over_width = mean_over_width

    def forward(self, **rows: Tensor) -> Tensor:
        """Loss of the global batch."""
        teacher, student = self.sides(rows)
        teacher = F.normalize(teacher, dim=-1)
        student = F.normalize(self.predictor(student), dim=-1)
        loss = self.distance(teacher, student)
        self.parts = {"per_entry": loss.detach()}
        return loss if self.mean_over_width else loss * teacher.shape[1]

    def distance(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Mean over all B · D entries."""
        return F.mse_loss(student, teacher)


class SimRegL1(SimReg):
    """Move the student's unit embedding onto the teacher's, in absolute distance.

    loss = mean over B of Σ |t - q(s)|, otherwise as SimReg.
    """

    def distance(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Mean over all B · D entries."""
        return F.l1_loss(student, teacher)


class SimRegSmoothL1(SimReg):
    """Move the student's unit embedding onto the teacher's, in Huber's distance.

    loss = mean over B of Σ h(t - q(s)), h(d) = ½ d² if |d| < 1 else |d| - ½; as SimReg otherwise.
    Entries of unit vectors differ by less than 1 mostly, so this is about half of SimReg.
    """

    def distance(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Mean over all B · D entries."""
        return F.smooth_l1_loss(student, teacher)
