"""UniPELT: LoRA, prefix and bottleneck together, each behind a gate."""

from dataclasses import dataclass
from typing import Any

from vislang.config import from_dict
from vislang.models.adapters.bottleneck import check_choices
from vislang.models.adapters.language import after_ffn
from vislang.models.adapters.lora import Lora
from vislang.models.adapters.plan import Plan, positive, same_width, sizes
from vislang.models.adapters.prefix import Prefix, PrefixPart
from vislang.models.anatomy import Block


@dataclass(frozen=True)
class UnipeltOptions:
    """Options of `unipelt`.

    Args:
        rank: of LoRA's change of queries and values.
        alpha: that change is scaled by alpha / rank.
        length: learned keys and values in each block.
        prefix_hidden: width of the network that makes them.
        reduction: a block's width over the bottleneck's.
        activation: of the bottlenecks: relu, gelu, silu or tanh.
    """

    rank: int = 8
    alpha: float = 8.0
    length: int = 10
    prefix_hidden: int = 512
    reduction: int = 16
    activation: str = "relu"


def build(blocks: list[Block], **options: Any) -> Plan:
    """LoRA, a prefix and a bottleneck behind each FFN, each with a learned gate.

    Mao et al. 2022, arXiv:2110.07577.
    """
    told = from_dict(UnipeltOptions, options, "adapter_options")
    check_choices("unipelt", told.activation)
    positive("unipelt", rank=told.rank, length=told.length, prefix_hidden=told.prefix_hidden)
    width = same_width(blocks, "The adapter unipelt")
    prefix = Prefix(width, len(blocks), told.length, told.prefix_hidden, dropout=0.0)

    def lora(block: Block, seat: str) -> Lora:
        return Lora(*sizes(block, seat), told.rank, told.alpha, gated=True)

    plan = [
        {
            "query": lora(block, "query"),
            "value": lora(block, "value"),
            "prefix": PrefixPart(prefix, i, gated=True),
            **after_ffn(block, told.reduction, told.activation, "zero", gated=True),
        }
        for i, block in enumerate(blocks)
    ]
    return Plan(plan, {"prefix": prefix})
