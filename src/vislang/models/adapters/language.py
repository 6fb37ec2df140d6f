"""Language adapters: a bottleneck behind each FFN, and an invertible map of the embeddings."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vislang.config import from_dict
from vislang.errors import UserError
from vislang.models.adapters.bottleneck import Bottleneck, begin, check_choices
from vislang.models.adapters.plan import Plan, divided
from vislang.models.anatomy import Block


@dataclass(frozen=True)
class LanguageOptions:
    """Options of `language`.

    Args:
        reduction: a block's width over the bottleneck's.
        activation: of the bottlenecks: relu, gelu, silu or tanh.
        invertible_reduction: half a block's width over the hidden width of the invertible map.
        start: zero changes nothing at insertion; normal draws all weights from N(0, 0.02²).
    """

    reduction: int = 16
    activation: str = "relu"
    invertible_reduction: int = 2
    start: str = "zero"


class Coupling(nn.Module):
    """Linear, ReLU, linear: a map of one half of the features that is added to the other."""

    def __init__(self, half: int, hidden: int, start: str):
        super().__init__()
        self.down, self.up = nn.Linear(half, hidden), nn.Linear(hidden, half)
        begin(self.down, self.up, start)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D/2] -> [..., D/2]."""
        return self.up(self.down(x).relu())


class Invertible(nn.Module):
    """Additive coupling layers; `invert` undoes `forward` exactly.

        a' = a + F(b),   b' = b + G(a'),   a and b being the halves of the features

    NICE, Dinh et al. 2014, arXiv:1410.8516, eq. 7-9.
    """

    def __init__(self, width: int, reduction: int, start: str):
        super().__init__()
        hidden = divided(width // 2, reduction, "language")
        self.f, self.g = Coupling(width // 2, hidden, start), Coupling(width // 2, hidden, start)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        a, b = x.chunk(2, dim=-1)
        a = a + self.f(b)
        return torch.cat([a, b + self.g(a)], dim=-1)

    def invert(self, y: Tensor) -> Tensor:
        """[..., D] -> [..., D], what `forward` made y of."""
        a, b = y.chunk(2, dim=-1)
        b = b - self.g(a)
        return torch.cat([a - self.f(b), b], dim=-1)


def build(blocks: list[Block], **options: Any) -> Plan:
    """A bottleneck behind each FFN and an invertible map of the embeddings; unchanged at insertion.

    MAD-X, Pfeiffer et al. 2020, arXiv:2005.00052, section 2.2.  In blocks that norm the sum
    (BERT), the bottleneck reads the norm's output and adds to its input, as the paper says.
    """
    told = from_dict(LanguageOptions, options, "adapter_options")
    check_choices("language", told.activation, told.start)
    width = blocks[0].width
    if width % 2:
        raise UserError(f"The adapter language halves the features, of which there are {width}.")
    return Plan(
        [after_ffn(block, told.reduction, told.activation, told.start) for block in blocks],
        {"embedding": Invertible(width, told.invertible_reduction, told.start)},
    )


def after_ffn(
    block: Block, reduction: int, activation: str, start: str, gated: bool = False
) -> dict[str, nn.Module]:
    """Pfeiffer's bottleneck, at the seat that the block offers for it."""
    seat = "ffn_out" if block.closing_norm is None else "norm"
    return {
        seat: Bottleneck(
            block.width,
            divided(block.width, reduction, "language"),
            activation,
            start,
            beside=seat == "norm",
            gated=gated,
        )
    }
