"""Supervised classification of embeddings.  B: rows, D: width, C: classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislang.errors import UserError
from vislang.objectives.objective import Objective


class CrossEntropy(Objective):
    """Tell the class of each image and/or text with a linear classifier.

        loss = mean over sides and labelled rows of -ln softmax(W x + b)[label]

    Rows with label -1 are left out.

    Args:
        width: D, filled in by the builder.
        classes: C of a linear classifier that belongs to the objective, shared by the sides;
            0 takes the embedding itself as the logits (then D is the number of classes).
        sides: batch keys that are classified.
        smoothing: share of the target spread over all classes.
    """

    def __init__(
        self,
        width: int,
        classes: int = 0,
        sides: tuple[str, ...] = ("image",),
        smoothing: float = 0.0,
    ):
        super().__init__()
        if not sides:
            raise UserError("cross_entropy.sides must name at least one batch key.")
        self.sides = tuple(sides)
        self.needs = (*self.sides, "label")
        self.classes = classes or width
        self.classifier = nn.Linear(width, classes) if classes else nn.Identity()
        self.smoothing = smoothing

    def forward(self, label: Tensor, **rows: Tensor) -> Tensor:
        """Loss of the global batch: rows [B, D] for each side, label int64 [B]."""
        if int(label.max()) >= self.classes:
            raise UserError(
                f"The source has label {int(label.max())}, but the objective has"
                f" {self.classes} classes (0 to {self.classes - 1}): set its option classes."
            )
        known = label >= 0
        losses, right = [], []
        for side in self.sides:
            logits = self.classifier(rows[side])
            total = F.cross_entropy(
                logits, label, ignore_index=-1, reduction="sum", label_smoothing=self.smoothing
            )
            losses.append(total / known.sum().clamp(min=1))
            with torch.no_grad():  # the largest logit is quicker to find than its place
                own = logits.gather(1, label.clamp(min=0)[:, None])[:, 0]
                best = (own >= logits.amax(1)) & known
                right.append(best.sum() / known.sum().clamp(min=1))
        self.parts = {f"{side}_accuracy": share for side, share in zip(self.sides, right)}
        return torch.stack(losses).mean()
