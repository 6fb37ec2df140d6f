"""What DINO and ProtoCPC share: heads with prototypes, momentum teacher, views and crops.

B: rows of the global batch, D: width, K: prototypes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vislang.objectives.distillation import OPPOSITE
from vislang.objectives.layers import PrototypeHead, follow, momentum_copy
from vislang.objectives.objective import Objective, one_of, positive
from vislang.objectives.schedule import Clock

VIEWS = ("image", "image_2")


class PrototypeDistillation(Objective):
    """Match the student's distribution over prototypes to the teacher's.

    Two ways to use it. With teacher="momentum" the student sees two views of an image and
    `crops` small ones, the teacher (momentum copies of the model, kept by the trainer, and of the
    head, kept here) the two views; every view of the student is compared with every *other*
    view of the teacher. With teacher="text" or "image" one side of the model teaches the other;
    both go through one head, so their prototypes are the same, and the teacher is detached.

    Prototype logits live in here only; embeddings stay what the model gives.

    Args:
        width: D, filled in by the builder.
        teacher: "momentum", "text" or "image".
        detach: no gradient reaches a teacher side (with False it does, as in the original of
            the golden numbers).
        prototypes: K.
        layers, hidden, bottleneck: of the head's MLP; 0 layers for none.
        temperature: τ_s, of the student.
        teacher_temperature: τ_t, of the teacher.
        first_teacher_temperature: τ_t at the start, rising linearly during `warmup`.
        warmup: steps (below 1: fraction of the run).
        crops: small crops of the student, keys image_crop_1 ... (momentum teacher only).
        momentum: of the teacher's head at the start; it rises to 1 along half a cosine when
            `steps` is known. Set the trainer's EMA decay to it.
        freeze: steps (or fraction) at the start during which prototypes are not trained.
        steps: optimizer steps of the run, filled in by the builder.
    """

    def __init__(
        self,
        width: int,
        teacher: str = "momentum",
        detach: bool = True,
        prototypes: int = 65536,
        layers: int = 3,
        hidden: int = 2048,
        bottleneck: int = 256,
        temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        first_teacher_temperature: float = 0.04,
        warmup: float = 0.0,
        crops: int = 0,
        momentum: float = 0.996,
        freeze: float = 0.0,
        steps: int = 0,
    ):
        super().__init__()
        one_of(("momentum", "text", "image"), teacher=teacher)
        positive(temperature=temperature, teacher_temperature=teacher_temperature)
        self.clock = Clock(steps)
        self.warmup = self.clock.step_of(warmup, "warmup")
        self.freeze = self.clock.step_of(freeze, "freeze")
        self.temperature, self.teacher_temperature = temperature, teacher_temperature
        self.first_teacher_temperature = first_teacher_temperature
        self.start_momentum, self.detach = momentum, detach
        self.head = PrototypeHead(width, layers, hidden, bottleneck, prototypes)
        if teacher == "momentum":
            self.students = (*VIEWS, *(f"image_crop_{i + 1}" for i in range(crops)))
            self.teachers = tuple(f"{view}_teacher" for view in VIEWS)
            self.teacher_head = momentum_copy(self.head)
        else:
            self.students, self.teachers = (OPPOSITE[teacher],), (teacher,)
            self.teacher_head = None
        self.needs = (*self.students, *self.teachers)

    @property
    def momentum(self) -> float:
        """Decay of the teacher's weights at this step."""
        return self.clock.cosine(self.start_momentum, 1.0)

    def forward(self, **rows: Tensor) -> Tensor:
        """Loss of the global batch, [B, D] for each key."""
        frozen = self.clock.before(self.freeze)
        students = [self.head(rows[key], frozen) for key in self.students]
        return self.compare(students, [self._teach(rows[key]) for key in self.teachers])

    def _teach(self, rows: Tensor) -> Tensor:
        if self.teacher_head is not None:
            return self.teacher_head(rows.detach())
        return self.head(rows).detach() if self.detach else self.head(rows)

    def compare(self, students: list[Tensor], teachers: list[Tensor]) -> Tensor:
        """Loss of prototype logits [B, K], one tensor for each view; subclasses write it."""
        raise NotImplementedError

    def targets(self, wanted: list[Tensor], student: int) -> tuple[int, Tensor]:
        """How many teacher views a student view is compared with (all but its own), and the sum
        of their distributions: Σ_i CE(z, p_i) needs no more than Σ_i p_i."""
        own = student if self.teacher_head is not None else -1
        others = [part for i, part in enumerate(wanted) if i != own]
        return len(others), sum(others[1:], others[0])

    def current_teacher_temperature(self) -> float:
        """τ_t at this step."""
        return self.clock.linear(
            self.first_teacher_temperature, self.teacher_temperature, self.warmup
        )

    def after_step(self) -> None:
        """Move the teacher's head, count the step."""
        if self.teacher_head is not None:
            follow(self.teacher_head, self.head, self.momentum)
        self.clock.tick()


@torch.no_grad()
def entropy(distribution: Tensor, rows: int = 32) -> Tensor:
    """Mean entropy of the first rows in nats; ln K when even, 0 when on one prototype.

    Of all rows it would cost as much as the loss, whose logarithms it repeats.
    """
    return torch.special.entr(distribution.detach()[:rows]).sum(1).mean()
