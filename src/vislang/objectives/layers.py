"""Layers that objectives own: projectors, predictors, prototypes, and momentum copies of them.

B: rows, D: width of the embeddings, K: prototypes.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def mlp(widths: Sequence[int], final_norm: bool = False, bias: bool = False) -> nn.Module:
    """[Linear - BatchNorm - ReLU] ... Linear, through `widths`; nothing for a single width.

    Args:
        widths: input width, hidden widths, output width.
        final_norm: a BatchNorm also after the last layer (SimSiam's and VICReg's projectors).
        bias: whether the linear layers have one; before a BatchNorm it is redundant.
    """
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        if layers:
            layers += [nn.BatchNorm1d(before), nn.ReLU()]
        layers.append(nn.Linear(before, after, bias=bias))
    if layers and final_norm:
        layers.append(nn.BatchNorm1d(widths[-1]))
    return nn.Sequential(*layers)


def out_width(width: int, projector: Sequence[int]) -> int:
    """Width after a projector of those layers (its input width when there are none)."""
    return projector[-1] if projector else width


class TwoProjectors(nn.Module):
    """An MLP for each of two batch keys: one that they share if both are of the same kind (two
    views of an image), one of its own for each if not (an image and a text).

    Args:
        width: D.
        widths: widths after D; empty for none.
        first, second: the batch keys.
    """

    def __init__(self, width: int, widths: Sequence[int], first: str, second: str):
        super().__init__()
        self.first = mlp([width, *widths])
        shared = first.split("_")[0] == second.split("_")[0]
        self.second = None if shared else mlp([width, *widths])

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """[B, D] each -> [B, D'] each."""
        return self.first(first), (self.second or self.first)(second)


class Prototypes(nn.Module):
    """K directions; the logit of a row is its cosine with each of them.

        logits = unit(x) · unit(V)ᵀ      weight normalisation with every length held at 1

    DINO, Caron et al. 2021, arXiv:2104.14294, section 3.1 and appendix C.
    """

    def __init__(self, width: int, count: int):
        super().__init__()
        self.directions = nn.Parameter(torch.empty(count, width))
        nn.init.trunc_normal_(self.directions, std=0.02)

    def forward(self, rows: Tensor, frozen: bool = False) -> Tensor:
        """[B, D] -> [B, K], in [-1, 1]; frozen: without gradient for the directions."""
        directions = self.directions.detach() if frozen else self.directions
        return F.normalize(rows, dim=-1) @ F.normalize(directions, dim=-1).T


class PrototypeHead(nn.Module):
    """DINO's head: an MLP with GELU down to a bottleneck, then prototypes.

    Args:
        width: D.
        layers: linear layers of the MLP; 0 puts the prototypes on the embedding itself.
        hidden: width between them.
        bottleneck: width of their output.
        count: K.
    """

    def __init__(self, width: int, layers: int, hidden: int, bottleneck: int, count: int):
        super().__init__()
        widths = [width, *[hidden] * (layers - 1), bottleneck] if layers else [width]
        made: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            linear = nn.Linear(before, after)
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
            made += [linear, nn.GELU()]
        self.mlp = nn.Sequential(*made[:-1])
        self.prototypes = Prototypes(widths[-1], count)

    def forward(self, rows: Tensor, frozen: bool = False) -> Tensor:
        """[B, D] -> [B, K]; frozen: without gradient for the prototypes."""
        return self.prototypes(self.mlp(rows), frozen)


def momentum_copy(module: M) -> M:
    """A copy that is not trained but follows (see `follow`)."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher <- momentum · teacher + (1 - momentum) · student; batch statistics are copied."""
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)
    for mine, other in zip(teacher.buffers(), student.buffers()):
        mine.copy_(other)
