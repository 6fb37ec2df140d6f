"""CLIP adapter: a head that adds a small network to the projection it is given.

B: samples, F: features of the tower, D: joint width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vislang.config import from_dict
from vislang.errors import UserError
from vislang.models.heads import Head


@dataclass(frozen=True)
class AdapterOptions:
    """Options of the head `adapter`.

    Args:
        ratio: hidden width as a share of the features.
        alpha: share of the network in the output at the start; learned.
        normalize: give rows of length 1.
    """

    ratio: float = 0.25
    alpha: float = 0.5
    normalize: bool = False


class AdapterHead(Head):
    """alpha · net(x) + (1 - alpha) · project(x),  net: Linear, GELU, Linear.

    Where the features are the embedding already (F = D), `project` is the identity, so that a
    frozen CLIP with its head none begins at its own embedding; elsewhere it is a linear layer.
    CLIP-Adapter, Gao et al. 2021, arXiv:2110.04544.
    """

    def __init__(self, features: int, width: int, settings: AdapterOptions):
        hidden = max(1, round(settings.ratio * features))
        super().__init__(
            nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, width),
            normalize=settings.normalize,
        )  # fmt: skip
        self.alpha = nn.Parameter(torch.tensor(float(settings.alpha)))
        self.project: nn.Module = nn.Identity()
        if features != width:
            self.project = nn.Linear(features, width, bias=False)
        if isinstance(self.project, nn.Linear):
            nn.init.normal_(self.project.weight, std=features**-0.5)

    def forward(self, input: Tensor) -> Tensor:
        """[B, F] -> [B, D]."""
        made = input
        for layer in list(self)[:3]:
            made = layer(made)
        x = self.mix(made, self.project(input))
        return nn.functional.normalize(x, dim=-1) if self.normalize else x

    def mix(self, made: Tensor, embedding: Tensor) -> Tensor:
        """alpha of the network's rows, the rest of the embedding's."""
        return self.alpha * made + (1 - self.alpha) * embedding


def adapter_head(features: int, width: int, **options: Any) -> Head:
    """A small network mixed with the projection, CLIP-Adapter; alpha is learned."""
    settings = from_dict(AdapterOptions, options, "head_options")
    if not settings.ratio > 0 or not 0 <= settings.alpha <= 1:
        raise UserError(
            "The head adapter needs a ratio above 0 and an alpha from 0 to 1,"
            f" got ratio={settings.ratio}, alpha={settings.alpha}."
        )
    return AdapterHead(features, width, settings)
