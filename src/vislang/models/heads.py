"""Heads: from a tower's features onto the joint width.

B: samples, F: features of the tower, D: joint width.  A builder is called as
`builder(features, width, **options)` and returns a module [B, F] -> [B, D].
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from vislang.config import from_dict
from vislang.errors import UserError

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}
NORMS = {"none": None, "bn": nn.BatchNorm1d, "ln": nn.LayerNorm}


class Head(nn.Sequential):
    """Layers in order; with `normalize` the rows end on the unit sphere, x / max(|x|, 1e-12)."""

    def __init__(self, *layers: nn.Module, normalize: bool = False):
        super().__init__(*layers)
        self.normalize = normalize

    def forward(self, input: Tensor) -> Tensor:
        """[B, F] -> [B, D]."""
        x = super().forward(input)
        return F.normalize(x, dim=-1) if self.normalize else x

    def __repr__(self) -> str:
        """The layers, and whether rows are normalised (fingerprints read it)."""
        return f"{super().__repr__()} normalize={self.normalize}"


@dataclass(frozen=True)
class NoneOptions:
    """Options of the head `none`.

    Args:
        normalize: give rows of length 1.
    """

    normalize: bool = False


@dataclass(frozen=True)
class LinearOptions:
    """Options of the head `linear`.

    Args:
        bias: add a learned offset (a head with one does not export to open_clip).
        normalize: give rows of length 1.
    """

    bias: bool = False
    normalize: bool = False


@dataclass(frozen=True)
class MlpOptions:
    """Options of the head `mlp`; the defaults with normalize=True are DINO's.

    Args:
        layers: linear layers, at least 1.
        hidden: width of the hidden layers.
        activation: gelu (exact), relu, silu or tanh, after each hidden layer.
        norm: none, bn or ln, between a hidden layer and its activation.
        bias: whether the linear layers have offsets.
        normalize: give rows of length 1.
    """

    layers: int = 2
    hidden: int = 2048
    activation: str = "gelu"
    norm: str = "none"
    bias: bool = True
    normalize: bool = False


def none_head(features: int, width: int, **options: Any) -> Head:
    """No head: the tower's features are the embedding."""
    settings = from_dict(NoneOptions, options, "head_options")
    if features != width:
        raise UserError(
            f"head none leaves the tower's {features} features as they are, but the joint width"
            f" is {width}. Set model.width {features}, or the head to linear or mlp."
        )
    return Head(normalize=settings.normalize)


def linear_head(features: int, width: int, **options: Any) -> Head:
    """One linear layer, as CLIP's projection; weights N(0, 1/F)."""
    settings = from_dict(LinearOptions, options, "head_options")
    layer = nn.Linear(features, width, bias=settings.bias)
    nn.init.normal_(layer.weight, std=features**-0.5)
    if settings.bias:
        nn.init.zeros_(layer.bias)
    return Head(layer, normalize=settings.normalize)


def mlp_head(features: int, width: int, **options: Any) -> Head:
    """Linear layers with activations between; DINO's and ProtoCLIP's projection heads.

    Weights are drawn from N(0, 0.02²) cut at ±2, offsets are 0: Caron et al. 2021,
    arXiv:2104.14294. With norm bn and activation relu it is ProtoCLIP's (arXiv:2206.10996),
    whose n counts the hidden layers only.
    """
    settings = from_dict(MlpOptions, options, "head_options")
    if settings.layers < 1:
        raise UserError(f"mlp needs at least 1 layer, got {settings.layers}. Or use head none.")
    for what, table in (("activation", ACTIVATIONS), ("norm", NORMS)):
        if getattr(settings, what) not in table:
            raise UserError(
                f"{what} of the head mlp must be one of {', '.join(table)};"
                f" got {getattr(settings, what)!r}."
            )
    widths = [features] + [settings.hidden] * (settings.layers - 1) + [width]
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(widths)):
        linear = nn.Linear(before, after, bias=settings.bias)
        nn.init.trunc_normal_(linear.weight, std=0.02)
        if settings.bias:
            nn.init.zeros_(linear.bias)
        layers.append(linear)
        if i < settings.layers - 1:
            norm = NORMS[settings.norm]
            layers += [norm(after)] if norm else []
            layers.append(ACTIVATIONS[settings.activation]())
    return Head(*layers, normalize=settings.normalize)
