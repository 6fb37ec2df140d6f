"""Barlow Twins: the cross-correlation of two views is the identity.  B: pairs, D: width."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vislang.objectives.layers import TwoProjectors
from vislang.objectives.objective import Objective


class BarlowTwins(Objective):
    """Make each dimension agree between the two keys and unrelated to all other dimensions.

        loss = Σ_i (1 - C_ii)² + λ Σ_{i≠j} C_ij²,   C = x̂ᵀ ŷ / B

    x̂, ŷ [B, D']: projections with every column at mean 0 and variance 1 over the global batch.
    Barlow Twins, Zbontar et al. 2021, arXiv:2103.03230, equations (1)-(2), algorithm 1.

    Args:
        width: D, filled in by the builder.
        redundancy: λ.
        projector: widths of the projector after D (the paper: [8192, 8192, 8192]).
        epsilon: added to the variance.
        original: the variant behind the golden numbers: unit rows, columns of unit length
            without centring *and* division by B, so that C_ii <= 1/B and 1 is out of reach.
        first, second: batch keys of the pair.
    """

    def __init__(
        self,
        width: int,
        redundancy: float = 0.0051,
        projector: tuple[int, ...] = (),
        epsilon: float = 1e-5,
        original: bool = False,
        first: str = "image",
        second: str = "text",
    ):
        super().__init__()
        self.needs = (first, second)
        self.redundancy, self.epsilon, self.original = redundancy, epsilon, original
        self.project = TwoProjectors(width, projector, first, second)

    def forward(self, **rows: Tensor) -> Tensor:
        """Loss of the global batch, [B, D] each."""
        x, y = (self._columns(part) for part in self.project(*(rows[key] for key in self.needs)))
        count, width = x.shape
        if count < width:  # Σ_ij C² = Σ (x̂x̂ᵀ ∘ ŷŷᵀ) / B², of B x B matrices
            own = (x * y).sum(0) / count
            squares = ((x @ x.T) * (y @ y.T)).sum() / count**2
        else:
            correlation = x.T @ (y / count)
            own, squares = correlation.diagonal(), correlation.square().sum()
        agree = (own - 1).square().sum()
        apart = squares - own.square().sum()
        self.parts = {"agreement": agree.detach(), "redundancy": apart.detach()}
        return agree + self.redundancy * apart

    def _columns(self, rows: Tensor) -> Tensor:
        if self.original:
            return F.normalize(F.normalize(rows, dim=-1), dim=0)
        return F.batch_norm(rows, None, None, training=True, eps=self.epsilon)
