"""UniPELT's gates: how much of a part a token wants."""

import torch
from torch import Tensor, nn


class Gate(nn.Linear):
    """sigmoid(w·x + b), one number a token: [..., D] -> [..., 1].

    Mao et al. 2022, arXiv:2110.07577, section 3.2.  Each token decides for itself: a mean over
    all tokens of a row, as in published code, would count the padding, and an embedding would
    then depend on the other texts of its batch.
    """

    def __init__(self, width: int):
        super().__init__(width, 1)

    def forward(self, input: Tensor) -> Tensor:
        """[..., D] -> [..., 1]."""
        return torch.sigmoid(super().forward(input))
