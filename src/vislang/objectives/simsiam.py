"""SimSiam: predict one view from the other, with a stopped gradient.  B: images, D: width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vislang.objectives.layers import mlp, out_width
from vislang.objectives.objective import Objective


class SimSiam(Objective):
    """Predict each view's projection from the other view's; no negatives, no momentum.

        loss = -½ [mean cos(p₁, stop(z₂)) + mean cos(p₂, stop(z₁))],   z = g(x), p = h(z)

    g, h: MLPs with batch norm over the global batch, owned by the objective.
    SimSiam, Chen & He 2021, arXiv:2011.10566, equations (1)-(4), section 3 (layers).

    Args:
        width: D, filled in by the builder.
        projector: widths of g after D; empty for none.
        predictor: hidden width of h.
        first, second: batch keys of the two views.
    """

    def __init__(
        self,
        width: int,
        projector: tuple[int, ...] = (2048, 2048, 2048),
        predictor: int = 512,
        first: str = "image",
        second: str = "image_2",
    ):
        super().__init__()
        self.needs = (first, second)
        out = out_width(width, projector)
        self.projector = mlp([width, *projector], final_norm=True)
        self.predictor = mlp([out, predictor, out])

    def forward(self, **rows: Tensor) -> Tensor:
        """Loss of the global batch, [B, D] each; in [-1, 1]."""
        first, second = (self.projector(rows[key]) for key in self.needs)
        loss = (
            -(
                F.cosine_similarity(self.predictor(first), second.detach(), eps=1e-12).mean()
                + F.cosine_similarity(self.predictor(second), first.detach(), eps=1e-12).mean()
            )
            / 2
        )
        self.parts = {"output_std": spread(first)}
        return loss


@torch.no_grad()
def spread(rows: Tensor) -> Tensor:
    """Mean standard deviation of unit rows by column times √D: 1 when spread, 0 when collapsed
    (SimSiam, figure 2)."""
    unit = F.normalize(rows.detach(), dim=-1)
    return unit.std(0, correction=0).mean() * unit.shape[1] ** 0.5
