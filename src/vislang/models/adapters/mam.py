"""Mix-and-match: a prefix in each attention and a bottleneck beside each FFN."""

from dataclasses import dataclass
from typing import Any

from vislang.config import from_dict
from vislang.models.adapters.bottleneck import Bottleneck, check_choices
from vislang.models.adapters.plan import Plan, divided, positive, same_width
from vislang.models.adapters.prefix import Prefix, PrefixPart
from vislang.models.anatomy import Block


@dataclass(frozen=True)
class MamOptions:
    """Options of `mam`.

    Args:
        length: learned keys and values in each block.
        prefix_hidden: width of the network that makes them.
        reduction: a block's width over the bottleneck's.
        scale: of the bottleneck's output.
        activation: relu, gelu, silu or tanh.
        dropout: on the prefix.
    """

    length: int = 30
    prefix_hidden: int = 800
    reduction: int = 2
    scale: float = 4.0
    activation: str = "relu"
    dropout: float = 0.0


def build(blocks: list[Block], **options: Any) -> Plan:
    """A prefix in each attention and a scaled bottleneck beside each FFN.

    He et al. 2022, arXiv:2110.04366, section 4.6.
    """
    told = from_dict(MamOptions, options, "adapter_options")
    check_choices("mam", told.activation)
    positive("mam", length=told.length, prefix_hidden=told.prefix_hidden)
    width = same_width(blocks, "The adapter mam")
    hidden = divided(width, told.reduction, "mam")
    prefix = Prefix(width, len(blocks), told.length, told.prefix_hidden, told.dropout)
    plan = [
        {
            "prefix": PrefixPart(prefix, i),
            "ffn": Bottleneck(width, hidden, told.activation, scale=told.scale, beside=True),
        }
        for i in range(len(blocks))
    ]
    return Plan(plan, {"prefix": prefix})
