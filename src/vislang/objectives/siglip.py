"""The pairwise sigmoid objective of SigLIP.  B: pairs in the global batch, D: width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislang.objectives.blockwise import rows_at_a_time, sigmoid_in_blocks, softplus
from vislang.objectives.objective import Objective, clamp_log_scale, new_log_scale, positive


class SigLIP(Objective):
    """Say of every image and every text, one pair at a time, whether they belong together.

        loss = -1/B Σᵢⱼ ln σ(zᵢⱼ (s·Iᵢ·Tⱼ + b)),  zᵢⱼ = 1 if i = j else -1

    I, T [B, D]: unit rows; s = 1/temperature and b are learned, from 10 and -10, so that the
    many negatives do not dominate the first steps.
    SigLIP, Zhai et al. 2023, arXiv:2303.15343, equation (1) and algorithm 1.

    Args:
        temperature: start of 1/s.
        bias: start of b.
        learn: whether s and b are learned.
        max_scale: upper bound of a learned s.
        first: batch key of I.
        second: batch key of T.
        block: rows of the B x B logits held at a time; 0 holds all of them up to B = 2,048 and
            256 beyond. Same numbers.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        bias: float = -10.0,
        learn: bool = True,
        max_scale: float = 100.0,
        block: int = 0,
        first: str = "image",
        second: str = "text",
    ):
        super().__init__()
        positive(temperature=temperature, max_scale=max_scale)
        self.needs = (first, second)
        self.max_scale, self.block = max_scale, block
        self.log_scale = new_log_scale(1 / temperature, learn)
        self.bias = nn.Parameter(torch.tensor(bias), requires_grad=learn)

    def forward(self, **rows: Tensor) -> Tensor:
        """Loss of the global batch; both keys are [B, D]."""
        first, second = (F.normalize(rows[key], dim=-1) for key in self.needs)
        scale = self.log_scale.exp()
        loss = pairwise_sigmoid(first, second, scale, self.bias, self.block)
        self.parts = {"scale": scale.detach(), "bias": self.bias.detach().clone()}
        return loss

    def after_step(self) -> None:
        """Hold the scale in [1, max_scale]."""
        clamp_log_scale(self.log_scale, self.max_scale)


def pairwise_sigmoid(
    first: Tensor, second: Tensor, scale: Tensor, bias: Tensor, block: int = 0
) -> Tensor:
    """SigLIP's loss of unit rows, [B, D] each; `block` rows of logits at a time, 0 chooses."""
    block = rows_at_a_time(len(first), block)
    if block < len(first):
        return sigmoid_in_blocks(first, second, scale, bias, block)
    logits = scale * first @ second.T + bias
    own = logits.diagonal()
    # -ln σ(-x) = softplus(x); of the diagonal we want softplus(-x) instead.
    wrong = softplus(logits).sum() - softplus(own).sum()
    return (wrong + softplus(-own).sum()) / len(logits)
