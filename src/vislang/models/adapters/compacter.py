"""Compacter: bottleneck adapters whose layers are sums of Kronecker products."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislang.config import from_dict
from vislang.errors import UserError
from vislang.models.adapters.bottleneck import ACTIVATIONS, check_choices
from vislang.models.adapters.plan import Plan, divided, positive
from vislang.models.anatomy import Block


@dataclass(frozen=True)
class CompacterOptions:
    """Options of `compacter`.

    Args:
        reduction: a block's width over the bottleneck's.
        terms: Kronecker products in a layer; divides both widths.
        activation: relu, gelu, silu or tanh.
    """

    reduction: int = 32
    terms: int = 4
    activation: str = "gelu"


class Rules(nn.Module):
    """The small left factors A_i [n, n, n], which all layers of a tower share."""

    def __init__(self, terms: int):
        super().__init__()
        self.rule = nn.Parameter(torch.randn(terms, terms, terms) * terms**-0.5)


class KroneckerLinear(nn.Module):
    """x W + b with W = Σ_i A_i ⊗ (s_i t_iᵀ) over n terms.

    Zhang et al. 2021, arXiv:2102.08597, eq. 4; with rank-one right factors Karimi Mahabadi et
    al. 2021, arXiv:2106.04647, eq. 6.
    """

    def __init__(self, inputs: int, outputs: int, rules: Rules, zero: bool):
        super().__init__()
        n = len(rules.rule)
        self._rules = (rules,)  # in a tuple: shared, so not this layer's own part
        self.left = nn.Parameter(torch.empty(n, inputs // n))
        self.right = nn.Parameter(torch.empty(n, outputs // n))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.left, std=(n / inputs) ** 0.5)
        if zero:
            nn.init.zeros_(self.right)
        else:
            nn.init.normal_(self.right, std=n**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        rule = self._rules[0].rule
        weight = torch.einsum("iab,ip,iq->bqap", rule, self.left, self.right)
        return F.linear(x, weight.reshape(len(self.bias), -1), self.bias)


class KroneckerBottleneck(nn.Module):
    """y + up(f(down(y))) of two Kronecker layers; up is zero at first."""

    def __init__(self, width: int, hidden: int, activation: str, rules: Rules):
        super().__init__()
        self.down = KroneckerLinear(width, hidden, rules, zero=False)
        self.up = KroneckerLinear(hidden, width, rules, zero=True)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        return y + self.up(self.activation(self.down(y)))


def build(blocks: list[Block], **options: Any) -> Plan:
    """Bottlenecks made of Kronecker products, a thirtieth of the size; unchanged at insertion.

    Karimi Mahabadi et al. 2021, arXiv:2106.04647.
    """
    told = from_dict(CompacterOptions, options, "adapter_options")
    check_choices("compacter", told.activation)
    positive("compacter", terms=told.terms)
    rules = Rules(told.terms)

    def make(width: int) -> KroneckerBottleneck:
        hidden = divided(width, told.reduction, "compacter")
        if width % told.terms or hidden % told.terms:
            raise UserError(
                f"terms of the adapter compacter is {told.terms}, which must divide the width"
                f" {width} and the bottleneck's {hidden}. Change terms or reduction."
            )
        return KroneckerBottleneck(width, hidden, told.activation, rules)

    plan = [{"out": make(block.width), "ffn_out": make(block.width)} for block in blocks]
    return Plan(plan, {"rules": rules})
