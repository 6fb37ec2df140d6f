"""Prefix tuning: learned keys and values that every token of a block can look at.

P: prefix length, D: width, N: blocks.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislang.config import from_dict
from vislang.models.adapters.gate import Gate
from vislang.models.adapters.plan import Plan, positive, same_width
from vislang.models.anatomy import Block


@dataclass(frozen=True)
class PrefixOptions:
    """Options of `prefix_tuning`.

    Args:
        length: learned keys and values in each block.
        hidden: width of the network that makes them.
        dropout: on them.
    """

    length: int = 30
    hidden: int = 512
    dropout: float = 0.0


class Prefix(nn.Module):
    """The prefixes of all blocks, made by one network: up(tanh(down(tokens))), [P, 2 N D].

    Training the network instead of the keys and values themselves is steadier: Li & Liang 2021,
    arXiv:2101.00190, section 4.3.
    """

    def __init__(self, width: int, blocks: int, length: int, hidden: int, dropout: float):
        super().__init__()
        self.width, self.dropout = width, nn.Dropout(dropout)
        self.tokens = nn.Parameter(torch.randn(length, width))
        self.down = nn.Linear(width, hidden)
        self.up = nn.Linear(hidden, 2 * blocks * width)

    def forward(self, block: int) -> tuple[Tensor, Tensor]:
        """Keys and values [P, D] of one block.

        Each block computes its own part of the last layer: nothing is kept between blocks, and
        30 rows are nothing beside a batch of tokens.
        """
        part = slice(2 * block * self.width, 2 * (block + 1) * self.width)
        hidden = torch.tanh(self.down(self.tokens))
        both = self.dropout(F.linear(hidden, self.up.weight[part], self.up.bias[part]))
        keys, values = both.chunk(2, dim=-1)
        return keys, values


class PrefixPart(nn.Module):
    """One block's place in the shared prefix."""

    def __init__(self, prefix: Prefix, block: int, gated: bool = False):
        super().__init__()
        self._prefix, self.block = (prefix,), block  # in a tuple: shared, so not its own part
        self.gate = Gate(prefix.width) if gated else None

    def forward(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The prefix before keys and values: [B, H, L, d] -> [B, H, P + L, d].

        A gate reads the key of the first token (start or class token): one number a sample.
        """
        batch, heads = key.shape[:2]
        found = self._prefix[0](self.block)
        found = [rows.unflatten(-1, (heads, -1)).transpose(0, 1) for rows in found]
        found = [rows.expand(batch, -1, -1, -1) for rows in found]
        if self.gate is not None:
            share = self.gate(key[:, :, 0].flatten(1))[:, :, None, None]
            found = [share * rows for rows in found]
        return (
            torch.cat([found[0].to(key.dtype), key], dim=2),
            torch.cat([found[1].to(value.dtype), value], dim=2),
        )


def build(blocks: list[Block], **options: Any) -> Plan:
    """Learned keys and values before those of each block; changes the output at once.

    Li & Liang 2021, arXiv:2101.00190.
    """
    told = from_dict(PrefixOptions, options, "adapter_options")
    positive("prefix_tuning", length=told.length, hidden=told.hidden)
    prefix = Prefix(
        same_width(blocks, "The adapter prefix_tuning"),
        len(blocks),
        told.length,
        told.hidden,
        told.dropout,
    )
    return Plan([{"prefix": PrefixPart(prefix, i)} for i in range(len(blocks))], {"prefix": prefix})
