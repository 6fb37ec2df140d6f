"""SEED: the student sees the queue as the teacher does.  B: pairs, D: width, K: queue rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vislang.objectives.distillation import Distillation
from vislang.objectives.objective import positive
from vislang.objectives.queue import Queue
from vislang.objectives.soft import softmax_with_sum, sum_and_product


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
        # The own candidate is kept apart from the queue's: joining them would copy [B, K] twice.
        sharp = teacher / self.teacher_temperature
        wanted_own, wanted = (sharp * teacher).sum(1), sharp @ self.queue.rows.T
        share, queue_sum = softmax_with_sum(wanted)
        wanted_sum = torch.logaddexp(wanted_own, queue_sum)
        cosine = (student * teacher).sum(1)
        found_own, found = (
            cosine / self.temperature,
            (student / self.temperature) @ self.queue.rows.T,
        )
        found_sum, product = sum_and_product(found, share)
        found_sum = torch.logaddexp(found_own, found_sum)
        share_own, share_queue = (wanted_own - wanted_sum).exp(), (queue_sum - wanted_sum).exp()
        self.parts = {"cosine": cosine.mean().detach()}
        expected = share_own * found_own + share_queue * product
        return (found_sum - expected).mean()

    def after_step(self) -> None:
        """Write the queue."""
        self.queue.commit()
