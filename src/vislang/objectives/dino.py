"""DINO: self-distillation with no labels.  B: rows, K: prototypes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vislang.objectives.selfdistillation import PrototypeDistillation, entropy
from vislang.objectives.soft import sum_and_product


class DINO(PrototypeDistillation):
    """Match the student's distribution over prototypes to the centred, sharpened teacher's.

        loss = mean over view pairs and B of -Σ_k softmax((t - c)/τ_t)_k ln softmax(s/τ_s)_k
        c <- m c + (1 - m) mean of t,  after the step

    s, t: prototype logits (cosines) of student and teacher; c keeps one prototype from winning.
    DINO, Caron et al. 2021, arXiv:2104.14294, equations (1)-(4), figure 2, algorithm 1.

    Args:
        width: D, filled in by the builder.
        center_momentum: m.
        options: teacher, prototypes, layers, temperature, teacher_temperature, crops,
            momentum ...: see `PrototypeDistillation`.
    """

    def __init__(self, width: int, center_momentum: float = 0.9, **options: Any):
        super().__init__(width, **options)
        self.center_momentum = center_momentum
        self.center: Tensor
        count = len(self.head.prototypes.directions)
        self.register_buffer("center", torch.zeros(1, count))
        self._seen: Tensor | None = None

    def compare(self, students: list[Tensor], teachers: list[Tensor]) -> Tensor:
        """Loss of prototype logits [B, K], one tensor for each view."""
        sharpness = self.current_teacher_temperature()
        wanted = [((teacher - self.center) / sharpness).softmax(1) for teacher in teachers]
        found = [student / self.temperature for student in students]
        terms, pairs = [], 0
        for j, logits in enumerate(found):
            count, target = self.targets(wanted, j)
            log_sum, product = sum_and_product(logits, target)
            terms.append((count * log_sum - product).mean())
            pairs += count
        with torch.no_grad():
            self._seen = torch.stack([teacher.mean(0) for teacher in teachers]).mean(0)[None]
        self.parts = {
            "teacher_entropy": entropy(wanted[0]),
            "center_std": self.center.std(),
            "teacher_temperature": self._seen.new_tensor(sharpness),
            "prototypes_used": entropy(wanted[0].mean(0, keepdim=True)).exp(),
        }
        return torch.stack(terms).sum() / pairs

    def after_step(self) -> None:
        """Move the centre and the teacher's head."""
        super().after_step()
        if self._seen is not None:
            self.center.lerp_(self._seen, 1 - self.center_momentum)
            self._seen = None
