"""Bottleneck adapters: a narrow network behind (or beside) the parts of a block."""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vislang.config import from_dict
from vislang.errors import UserError
from vislang.models.adapters.gate import Gate
from vislang.models.adapters.plan import Plan, divided
from vislang.models.anatomy import Block

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}
STARTS = ("zero", "normal")


@dataclass(frozen=True)
class BottleneckOptions:
    """Options of `bottleneck`.

    Args:
        reduction: a block's width over the bottleneck's.
        activation: relu, gelu, silu or tanh.
        attention: one behind each attention.
        ffn: one behind each feed-forward network.
        start: zero changes nothing at insertion; normal draws all weights from N(0, 0.02²),
            which is near to nothing.
    """

    reduction: int = 16
    activation: str = "relu"
    attention: bool = True
    ffn: bool = True
    start: str = "zero"


class Bottleneck(nn.Module):
    """y + scale · up(f(down(source))), the source being y itself or, `beside` it, x."""

    def __init__(
        self,
        width: int,
        hidden: int,
        activation: str = "relu",
        start: str = "zero",
        scale: float = 1.0,
        beside: bool = False,
        gated: bool = False,
    ):
        super().__init__()
        self.down, self.up = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.activation = ACTIVATIONS[activation]()
        self.scale, self.beside = scale, beside
        self.gate = Gate(width) if gated else None
        begin(self.down, self.up, start)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x, y: [..., D] -> [..., D]."""
        source = x if self.beside else y
        change = self.scale * self.up(self.activation(self.down(source)))
        return y + (change if self.gate is None else self.gate(source) * change)


def begin(down: nn.Linear, up: nn.Linear, start: str) -> None:
    """First weights of a pair of layers: with "zero" the second gives nothing."""
    for layer in (down, up):
        nn.init.zeros_(layer.bias)
    if start == "zero":
        nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5))
        nn.init.zeros_(up.weight)
    else:
        nn.init.normal_(down.weight, std=0.02)
        nn.init.normal_(up.weight, std=0.02)


def check_choices(what: str, activation: str, start: str = "zero") -> None:
    """Refuse an unknown activation or start."""
    for name, value, allowed in (("activation", activation, ACTIVATIONS), ("start", start, STARTS)):
        if value not in allowed:
            raise UserError(
                f"{name} of the adapter {what} must be one of {', '.join(allowed)}; got {value!r}."
            )


def build(blocks: list[Block], **options: Any) -> Plan:
    """A narrow network behind each attention and FFN; unchanged at insertion.

    Houlsby et al. 2019, arXiv:1902.00751, fig. 2: before the residual sum.
    """
    told = from_dict(BottleneckOptions, options, "adapter_options")
    check_choices("bottleneck", told.activation, told.start)
    seats = ["out"] * told.attention + ["ffn_out"] * told.ffn
    if not seats:
        raise UserError("The adapter bottleneck has neither attention nor ffn. Set one to true.")

    def make(width: int) -> Bottleneck:
        hidden = divided(width, told.reduction, "bottleneck")
        return Bottleneck(width, hidden, told.activation, told.start)

    return Plan([{seat: make(block.width) for seat in seats} for block in blocks])
