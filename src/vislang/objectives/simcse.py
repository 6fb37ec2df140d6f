"""SimCSE: a text must find itself under another draw of dropout.  B: texts, D: width."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vislang.objectives.infonce import contrast
from vislang.objectives.objective import Objective, positive


class SimCSE(Objective):
    """Find each text's second embedding (another dropout draw) among those of the batch.

        loss = mean_i -ln [ exp(s x_i·y_i) / Σ_j exp(s x_i·y_j) ],   s = 1/temperature, fixed

    x, y: unit rows of `text` and `text_2`. As an auxiliary: 'infonce:1 + simcse:0.1'.
    SimCSE, Gao et al. 2021, arXiv:2104.08821, equation (4).

    Args:
        temperature: 1/s.
        symmetric: average with the loss of y finding x.
        first, second: batch keys of the two embeddings.
    """

    def __init__(
        self,
        temperature: float = 0.05,
        symmetric: bool = False,
        first: str = "text",
        second: str = "text_2",
    ):
        super().__init__()
        positive(temperature=temperature)
        self.needs = (first, second)
        self.scale, self.symmetric = 1 / temperature, symmetric

    def forward(self, **rows: Tensor) -> Tensor:
        """Loss of the global batch, [B, D] each."""
        first, second = (F.normalize(rows[key], dim=-1) for key in self.needs)
        forth, back = contrast(first, second, first.new_tensor(self.scale))
        self.parts = {"cosine": (first * second).sum(1).mean().detach()}
        return (forth + back) / 2 if self.symmetric else forth
