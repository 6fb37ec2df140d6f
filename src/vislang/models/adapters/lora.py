"""LoRA: a low-rank change of weight matrices, which merges into them."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vislang.config import from_dict
from vislang.errors import UserError
from vislang.lookup import nearest
from vislang.models.adapters.gate import Gate
from vislang.models.adapters.plan import Plan, positive, sizes
from vislang.models.anatomy import Block

TARGETS = ("query", "key", "value", "out", "ffn_in", "ffn_out")


@dataclass(frozen=True)
class LoraOptions:
    """Options of `lora`.

    Args:
        rank: of the change of each matrix.
        alpha: the change is scaled by alpha / rank.
        targets: which matrices change: query, key, value, out, ffn_in, ffn_out.
        dropout: on the input of the change.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("query", "value")
    dropout: float = 0.0


class Lora(nn.Module):
    """y + (alpha / rank) · B A x, with B zero at first: nothing changes at insertion."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        gated: bool = False,
    ):
        super().__init__()
        self.scale = alpha / rank
        self.a = nn.Parameter(torch.empty(rank, inputs))
        self.b = nn.Parameter(torch.zeros(outputs, rank))
        self.dropout = nn.Dropout(dropout)
        self.gate = Gate(inputs) if gated else None
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x [..., inputs], y [..., outputs] -> [..., outputs]."""
        change = self.scale * (self.dropout(x) @ self.a.T @ self.b.T)
        return y + (change if self.gate is None else self.gate(x) * change)

    def delta(self) -> Tensor:
        """What it adds to the weight: [outputs, inputs]."""
        return self.scale * (self.b @ self.a)


def build(blocks: list[Block], **options: Any) -> Plan:
    """Low-rank change of attention (or other) matrices; unchanged at insertion, merges.

    Hu et al. 2021, arXiv:2106.09685, eq. 3.
    """
    told = from_dict(LoraOptions, options, "adapter_options")
    positive("lora", rank=told.rank)
    for name in told.targets:
        if name not in TARGETS:
            raise UserError(
                f"targets of the adapter lora has no {name!r}.{nearest(name, TARGETS)}"
                f" Known: {', '.join(TARGETS)}."
            )
    if not told.targets:
        raise UserError(f"targets of the adapter lora is empty. Known: {', '.join(TARGETS)}.")
    return Plan(
        [
            {
                seat: Lora(*sizes(block, seat), told.rank, told.alpha, told.dropout)
                for seat in told.targets
            }
            for block in blocks
        ]
    )
