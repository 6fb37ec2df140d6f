"""VICReg: variance, invariance, covariance.  B: pairs in the global batch, D: width."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vislang.objectives.layers import TwoProjectors
from vislang.objectives.objective import Objective


class VICReg(Objective):
    """Pull pairs together while every dimension keeps its spread and dimensions stay unrelated.

        loss = λ mean (x - y)² + μ ½ [v(x) + v(y)] + ν [c(x) + c(y)]
        v(x) = mean_j max(0, 1 - √(Var x_j + ε)),   c(x) = Σ_{i≠j} Cov(x)²_ij / D

    x, y [B, D']: projections of the two keys; Var and Cov divide by B - 1.
    VICReg, Bardes et al. 2022, arXiv:2105.04906, equations (1)-(6); the mean over D in the first
    term and the ½ are those of the authors' code, for which 25, 25, 1 were chosen.

    Args:
        width: D, filled in by the builder.
        invariance, variance, covariance: λ, μ, ν.
        projector: widths of the expander after D (the paper: [8192, 8192, 8192]); empty for none.
        normalize: scale x and y to unit length first, as the original of the golden numbers
            does; every standard deviation is then about D^-½, so v never reaches 0.
        epsilon: ε.
        first, second: batch keys of the pair.
    """

    def __init__(
        self,
        width: int,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        projector: tuple[int, ...] = (),
        normalize: bool = False,
        epsilon: float = 1e-4,
        first: str = "image",
        second: str = "text",
    ):
        super().__init__()
        self.needs = (first, second)
        self.weights = (invariance, variance, covariance)
        self.normalize, self.epsilon = normalize, epsilon
        self.project = TwoProjectors(width, projector, first, second)

    def forward(self, **rows: Tensor) -> Tensor:
        """Loss of the global batch, [B, D] each; B at least 2."""
        x, y = self.project(*(rows[key] for key in self.needs))
        if self.normalize:
            x, y = F.normalize(x, dim=-1), F.normalize(y, dim=-1)
        invariance = F.mse_loss(x, y)
        variance_x, covariance_x = self._spread(x)
        variance_y, covariance_y = self._spread(y)
        variance, covariance = (variance_x + variance_y) / 2, covariance_x + covariance_y
        self.parts = {
            "invariance": invariance.detach(),
            "variance": variance.detach(),
            "covariance": covariance.detach(),
        }
        weight = self.weights
        return weight[0] * invariance + weight[1] * variance + weight[2] * covariance

    def _spread(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        count, width = rows.shape
        centred = rows - rows.mean(0)
        variances = centred.square().sum(0) / (count - 1)
        hinge = F.relu(1 - (variances + self.epsilon).sqrt()).mean()
        if count < width:  # Σ_ij Cov² is the same for X·Xᵀ, which is smaller here
            squares = (centred @ centred.T).square().sum() / (count - 1) ** 2
        else:
            squares = (centred.T @ centred).square().sum() / (count - 1) ** 2
        return hinge, (squares - variances.square().sum()) / width
