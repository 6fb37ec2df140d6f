"""CompRess: the same neighbours in one or two queues.  B: pairs, D: width, K: queue rows."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vislang.objectives.distillation import Distillation
from vislang.objectives.objective import positive
from vislang.objectives.queue import Queue
from vislang.objectives.soft import row_products, softmax_with_sum, sum_and_product


class CompRess1q(Distillation):
    """Give the student the teacher's similarities to a queue of teacher embeddings.

        loss = mean_b KL( softmax(a·Qᵀ/τ) || softmax(b·Qᵀ/τ) )

    a, b: teacher's and student's unit rows; a is written to Q after the step.
    CompRess, Koohpayegani et al. 2020, arXiv:2010.14713, section 3, "1q".

    Args:
        teacher, student, detach: see `Distillation`.
        width: D, filled in by the builder.
        queue: K; need not be a multiple of the batch.
        temperature: τ.
    """

    def __init__(
        self,
        width: int,
        teacher: str = "text",
        student: str = "",
        detach: bool = True,
        queue: int = 65536,
        temperature: float = 0.04,
    ):
        super().__init__(teacher, student, detach)
        positive(temperature=temperature)
        self.temperature = temperature
        self.queue = Queue(queue, width)

    def forward(self, **rows: Tensor) -> Tensor:
        """Loss of the global batch, [B, D] each."""
        teacher, student = (F.normalize(part, dim=-1) for part in self.sides(rows))
        self.push(teacher, student)
        wanted = (teacher / self.temperature) @ self.queue.rows.T
        found = (student / self.temperature) @ self.students_queue.T
        share, wanted_sum = softmax_with_sum(wanted)
        found_sum, product = sum_and_product(found, share)
        self.parts = {"cosine": (teacher * student).sum(1).mean().detach()}
        return (row_products(share, wanted) - wanted_sum - product + found_sum).mean()

    @property
    def students_queue(self) -> Tensor:
        """What the student is compared with, [K, D]."""
        return self.queue.rows

    def push(self, teacher: Tensor, student: Tensor) -> None:
        """Note what `after_step` will write."""
        self.queue.push(teacher)

    def after_step(self) -> None:
        """Write the queue."""
        self.queue.commit()


class CompRess2q(CompRess1q):
    """Give the student, in a queue of its own, the teacher's similarities in the teacher's queue.

        loss = mean_b KL( softmax(a·Qᵀ/τ) || softmax(b·Rᵀ/τ) )

    R: earlier student rows, at the same places as the teacher's in Q. The sides need not share a
    space. CompRess, Koohpayegani et al. 2020, arXiv:2010.14713, section 3, "2q".

    Args:
        teacher, student, detach, width, queue, temperature: as of CompRess1q.
    """

    def __init__(
        self,
        width: int,
        teacher: str = "text",
        student: str = "",
        detach: bool = True,
        queue: int = 65536,
        temperature: float = 0.04,
    ):
        super().__init__(width, teacher, student, detach, queue, temperature)
        self.student_queue = Queue(queue, width)

    @property
    def students_queue(self) -> Tensor:
        """What the student is compared with, [K, D]."""
        return self.student_queue.rows

    def push(self, teacher: Tensor, student: Tensor) -> None:
        """Note what `after_step` will write."""
        self.queue.push(teacher)
        self.student_queue.push(student)

    def after_step(self) -> None:
        """Write both queues."""
        self.queue.commit()
        self.student_queue.commit()
