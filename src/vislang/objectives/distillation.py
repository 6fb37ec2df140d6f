"""What all distillation objectives share: which key teaches, which one learns, the detaching."""

from __future__ import annotations

from torch import Tensor

from vislang.objectives.objective import Objective

OPPOSITE = {"text": "image", "image": "text"}


class Distillation(Objective):
    """An objective with a direction: the student is moved towards the teacher.

    Args:
        teacher: batch key of the teacher's embeddings: "text", "image", or a `*_teacher` key.
        student: batch key of the student's; empty: the other side, or the key that the
            teacher's name begins with.
        detach: no gradient reaches the teacher. The publication behind the golden numbers
            detached none; False reproduces them.
    """

    def __init__(self, teacher: str = "text", student: str = "", detach: bool = True):
        super().__init__()
        self.teacher = teacher
        self.student = student or OPPOSITE.get(teacher) or teacher.removesuffix("_teacher")
        self.needs = (self.teacher, self.student)
        self.detach = detach

    def sides(self, rows: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Teacher's and student's rows, [B, D] each."""
        teacher = rows[self.teacher]
        return (teacher.detach() if self.detach else teacher), rows[self.student]
