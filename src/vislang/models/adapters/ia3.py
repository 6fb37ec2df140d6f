"""(IA)³: learned scales of keys, values and hidden features, which merge into the weights."""

import torch
from torch import Tensor, nn

from vislang.models.adapters.plan import Plan, sizes
from vislang.models.anatomy import Block


class Scale(nn.Module):
    """y · s, with s = 1 at first: nothing changes at insertion."""

    def __init__(self, features: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor | None, y: Tensor) -> Tensor:
        """[..., features] -> the same."""
        return y * self.scale.to(y.dtype)


def build(blocks: list[Block]) -> Plan:
    """Learned scales of keys, values and the FFN's hidden features; unchanged at insertion, merges.

    Liu et al. 2022, arXiv:2205.05638, section 3.3.  The hidden features are scaled behind the
    activation, as in the paper.
    """
    return Plan(
        [
            {
                "key": Scale(sizes(block, "key")[1]),
                "value": Scale(sizes(block, "value")[1]),
                "hidden": Scale(block.ffn_out.in_features),
            }
            for block in blocks
        ]
    )
