"""A classifier made of an image side, and which parts of it fine-tuning changes.

C: classes, D: joint width.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from vislang.errors import UserError
from vislang.lookup import nearest
from vislang.models.dual import Side
from vislang.models.locks import lock_tower

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

PARTS = ("whole", "adapters", "last", "head")


class CosineHead(nn.Module):
    """logits = x/|x| · Wᵀ + b: zero-shot classification where W is 100 times the class prompts.

    Args:
        weight: W [C, D].
        bias: b [C]; None begins at 0.
    """

    def __init__(self, weight: Float[Tensor, "C D"], bias: Float[Tensor, " C"] | None = None):
        super().__init__()
        self.weight = nn.Parameter(weight.clone().float())
        self.bias = nn.Parameter(torch.zeros(len(weight)) if bias is None else bias.float())

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B C"]:
        """[B, D] -> [B, C]."""
        return F.linear(F.normalize(x, dim=-1), self.weight, self.bias)


class NormHead(nn.Module):
    """logits = s (W BN(x) + b), as ELEVATER's toolkit has it; BN without scale and shift.

    Args:
        weight: W [C, D].
        batch_norm: whether there is a BN.
        unit: scale its rows to length 1.
        scale: s, which is not trained.
    """

    def __init__(
        self,
        weight: Float[Tensor, "C D"],
        batch_norm: bool = True,
        unit: bool = False,
        scale: float = 1.0,
    ):
        super().__init__()
        self.norm = nn.BatchNorm1d(weight.shape[1], affine=False) if batch_norm else nn.Identity()
        self.weight = nn.Parameter(weight.clone().float())
        self.bias = nn.Parameter(torch.zeros(len(weight)))
        self.unit, self.scale = unit, scale

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B C"]:
        """[B, D] -> [B, C]."""
        x = self.norm(x)
        x = F.normalize(x, dim=-1) if self.unit else x
        return F.linear(x, self.weight, self.bias) * self.scale


class Classifier(nn.Module):
    """An image side with a classifying head behind it."""

    def __init__(self, side: Side, head: nn.Module):
        super().__init__()
        self.side, self.head = side, head

    def forward(self, image: Tensor) -> Float[Tensor, "B C"]:
        """Pictures -> logits."""
        return self.head(self.side(image).float())


def prepare_side(
    side: Side,
    part: str = "whole",
    blocks: int = 1,
    adapter: str = "lora",
    adapter_options: Mapping[str, Any] | None = None,
) -> Side:
    """A copy of an image side of which one part can be trained.

    Args:
        side: left as it is.
        part: whole; adapters (put into the tower, and nothing else of it); last (the last blocks
            and what is behind them); head (the classifier alone).
        blocks: how many are the last.
        adapter, adapter_options: a key of ADAPTERS and its options.

    Raises:
        UserError: an unknown part, more blocks than there are, an adapter that does not fit.
    """
    if part not in PARTS:
        raise UserError(
            f"part must be one of {', '.join(PARTS)}, got {part!r}.{nearest(part, PARTS)}"
        )
    made = copy.deepcopy(side)
    made.frozen = False
    made.requires_grad_(True)
    if part == "adapters":
        from vislang.models.adapters.insert import insert_adapters

        if not hasattr(made.tower, "adapters"):
            insert_adapters(made.tower, adapter, dict(adapter_options or {}))
        lock_tower(made.tower, where="fine-tuning")
        made.head.requires_grad_(False)
    elif part == "last":
        lock_tower(made.tower, ("*",), (f"last:{blocks}", "final"), "fine-tuning")
    elif part == "head":
        made.requires_grad_(False)
    made.frozen = not any(p.requires_grad for p in made.tower.parameters())
    return made


def trainable(module: nn.Module) -> int:
    """How many numbers training changes."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
