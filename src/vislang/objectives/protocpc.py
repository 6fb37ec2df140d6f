"""ProtoCPC: distillation as a prototypical contrast.  B: rows, K: prototypes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vislang.objectives.objective import one_of
from vislang.objectives.selfdistillation import PrototypeDistillation, entropy
from vislang.objectives.sinkhorn import assign
from vislang.objectives.soft import sum_and_product


class ProtoCPC(PrototypeDistillation):
    """Match the student's prototypes to the teacher's against a prior of their use.

        loss = mean_b [ -Σ_k p_k s_k/τ_s + ln Σ_k π_k exp(s_k/τ_s) ],   p = softmax(t/τ_t)
        π <- m π + (1 - m) K Σ_b p / ΣΣ p,  after the step

    s, t: prototype logits (cosines) of student and teacher; π starts at ones.
    ProtoCPC, Lee 2022 (ICLR), section 3.

    Args:
        width: D, filled in by the builder.
        teacher: "text", "image" (one side teaches the other) or "momentum".
        prior_momentum: m.
        assignment: how p comes from t: "softmax", or "sinkhorn" (balanced, 3 rounds).
        options: prototypes, layers, temperature, teacher_temperature, crops, momentum ...: see
            `PrototypeDistillation`.
    """

    def __init__(
        self,
        width: int,
        teacher: str = "text",
        prior_momentum: float = 0.9,
        assignment: str = "softmax",
        **options: Any,
    ):
        super().__init__(width, teacher=teacher, **options)
        one_of(("softmax", "sinkhorn"), assignment=assignment)
        self.prior_momentum, self.assignment = prior_momentum, assignment
        self.prior: Tensor
        self.register_buffer("prior", torch.ones(1, len(self.head.prototypes.directions)))
        self._seen: Tensor | None = None

    def compare(self, students: list[Tensor], teachers: list[Tensor]) -> Tensor:
        """Loss of prototype logits [B, K], one tensor for each view."""
        sharpness = self.current_teacher_temperature()
        if self.assignment == "sinkhorn":
            wanted = [assign(teacher, sharpness) for teacher in teachers]
        else:
            wanted = [(teacher / sharpness).softmax(1) for teacher in teachers]
        found = [student / self.temperature for student in students]
        log_prior, terms, pairs = self.prior.log(), [], 0
        for j, logits in enumerate(found):
            count, target = self.targets(wanted, j)
            log_sum, product = sum_and_product(logits + log_prior, target)
            product = product - target @ log_prior[0]  # Σ p z, not Σ p (z + ln π)
            terms.append((count * log_sum - product).mean())
            pairs += count
        with torch.no_grad():
            use = torch.stack([part.sum(0) for part in wanted]).sum(0)[None]
            self._seen = use / use.sum() * use.shape[1]
        self.parts = {
            "teacher_entropy": entropy(wanted[0]),
            "prior_entropy": entropy(self.prior / self.prior.sum()),
        }
        return torch.stack(terms).sum() / pairs

    def after_step(self) -> None:
        """Move the prior and the teacher's head."""
        super().after_step()
        if self._seen is not None:
            self.prior.lerp_(self._seen, 1 - self.prior_momentum)
            self._seen = None
