"""SEED: the student sees the queue as the teacher does.  B: pairs, D: width, K: queue rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vislang.objectives.distillation import Distillation
from vislang.objectives.objective import positive
from vislang.objectives.queue import Queue


class SEED(Distillation):
    """Give the student the teacher's similarities to the own embedding and to a queue.

        loss = mean_b -Σ_k softmax(a·[a, Q]/τ_t)_k ln softmax(b·[a, Q]/τ_s)_k

    a, b: teacher's and student's unit rows, Q: earlier teacher rows; a is written to Q after.
    SEED, Fang et al. 2021, arXiv:2101.04731, equations (2)-(5) and section 4.

    Args:
        teacher, student, detach: see `Distillation`.
        width: D, filled in by the builder.
        queue: K; need not be a multiple of the batch.
        temperature: τ_s. The golden numbers have 0.07.
        teacher_temperature: τ_t. The golden numbers have 1e-4, which makes the target one-hot.
    """

    def __init__(
        self,
        width: int,
        teacher: str = "text",
        student: str = "",
        detach: bool = True,
        queue: int = 65536,
        temperature: float = 0.2,
        teacher_temperature: float = 0.01,
    ):
        super().__init__(teacher, student, detach)
        positive(temperature=temperature, teacher_temperature=teacher_temperature)
        self.temperature, self.teacher_temperature = temperature, teacher_temperature
        self.queue = Queue(queue, width)

    def forward(self, **rows: Tensor) -> Tensor:
        """Loss of the global batch, [B, D] each."""
        teacher, student = (F.normalize(part, dim=-1) for part in self.sides(rows))
        self.queue.push(teacher)
        wanted = self._logits(teacher, teacher) / self.teacher_temperature
        found = self._logits(student, teacher) / self.temperature
        loss = F.cross_entropy(found, wanted.softmax(1))
        self.parts = {"cosine": (teacher * student).sum(1).mean().detach()}
        return loss

    def _logits(self, rows: Tensor, teacher: Tensor) -> Tensor:
        own = (rows * teacher).sum(1, keepdim=True)
        return torch.cat([own, rows @ self.queue.rows.T], 1)

    def after_step(self) -> None:
        """Write the queue."""
        self.queue.commit()
