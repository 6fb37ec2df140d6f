"""SimCLR's contrast of two views of an image.  B: images, D: width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vislang.objectives.layers import mlp
from vislang.objectives.objective import Objective, positive


class NTXent(Objective):
    """Find each view's other view among the 2B - 1 other embeddings of the batch (SimCLR).

        loss = mean over 2B rows of -ln [ exp(z_i·z_other/τ) / Σ_{k≠i} exp(z_i·z_k/τ) ]

    z [2B, D']: unit rows of g(view 1), then of g(view 2); g: an MLP that is thrown away.
    SimCLR, Chen et al. 2020, arXiv:2002.05709, equation (1) and algorithm 1.

    Args:
        width: D, filled in by the builder.
        temperature: τ.
        projector: widths of g after D; empty for none.
        first, second: batch keys of the two views.
    """

    def __init__(
        self,
        width: int,
        temperature: float = 0.1,
        projector: tuple[int, ...] = (2048, 128),
        first: str = "image",
        second: str = "image_2",
    ):
        super().__init__()
        positive(temperature=temperature)
        self.needs = (first, second)
        self.temperature = temperature
        self.projector = mlp([width, *projector])

    def forward(self, **rows: Tensor) -> Tensor:
        """Loss of the global batch, [B, D] each."""
        first, second = (self.projector(rows[key]) for key in self.needs)
        loss, right = two_view_contrast(first, second, self.temperature)
        self.parts = {"accuracy": right}
        return loss


def two_view_contrast(first: Tensor, second: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """NT-Xent of [B, D] and [B, D], and the share of rows that rank their other view first."""
    unit = F.normalize(torch.cat([first, second]), dim=-1)
    logits = (unit / temperature) @ unit.T
    logits.fill_diagonal_(-torch.inf)  # a row is no candidate for itself
    other = torch.arange(len(unit), device=unit.device).roll(len(first))
    right = (logits.detach().argmax(1) == other).to(unit.dtype).mean()
    return F.cross_entropy(logits, other), right
