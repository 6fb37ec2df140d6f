"""Colour and blur on the CPU, for augmentation.

H, W: the picture's height and width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

# Weights of red, green and blue in grey: ITU-R BT.601, as Pillow and torchvision have them.
_GREY = (0.299, 0.587, 0.114)


def grey(image: Float[Tensor, "3 H W"]) -> Float[Tensor, "1 H W"]:
    """Luma of each pixel."""
    red, green, blue = image.split(1)
    return (red * _GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2])


def change_brightness(image: Float[Tensor, "3 H W"], factor: float) -> Float[Tensor, "3 H W"]:
    """Multiply; values stay in 0..255, as in the next functions."""
    return (image * factor).clamp_(0, 255)


def change_contrast(image: Float[Tensor, "3 H W"], factor: float) -> Float[Tensor, "3 H W"]:
    """Blend with the mean grey."""
    return (image * factor + (1 - factor) * grey(image).mean()).clamp_(0, 255)


def change_saturation(image: Float[Tensor, "3 H W"], factor: float) -> Float[Tensor, "3 H W"]:
    """Blend with the grey picture."""
    return (image * factor + (1 - factor) * grey(image)).clamp_(0, 255)


def turn_hue(image: Float[Tensor, "3 H W"], turn: float) -> Float[Tensor, "3 H W"]:
    """Turn the hue of HSV by `turn` of the circle (-0.5..0.5).

    With value V = max, chroma C = max - min and hue h in sixths of the circle, a channel is
    V - C + C · clamp(w, 0, 1), w = |h - 3| - 1, 2 - |h - 2|, 2 - |h - 4| for red, green, blue.
    """
    red, green, blue = image
    value = torch.maximum(torch.maximum(red, green), blue)
    least = torch.minimum(torch.minimum(red, green), blue)
    chroma = value - least
    per_chroma = chroma.clamp(min=1e-6).reciprocal_()
    hue = torch.where(
        value == red,
        (green - blue) * per_chroma,
        torch.where(value == green, 2 + (blue - red) * per_chroma, 4 + (red - green) * per_chroma),
    )
    hue = hue.add_(6 * turn + 12)  # positive, then modulo 6 by floor, which is faster than %
    hue = hue.sub_((hue / 6).floor_().mul_(6))
    out = torch.empty_like(image)
    torch.sub((hue - 3).abs_(), 1, out=out[0])
    torch.sub(2, (hue - 2).abs_(), out=out[1])
    torch.sub(2, (hue - 4).abs_(), out=out[2])
    return out.clamp_(0, 1).mul_(chroma).add_(least)


def blur(image: Float[Tensor, "3 H W"], sigma: float) -> Float[Tensor, "3 H W"]:
    """Gaussian blur of `sigma` pixels, cut at three sigma, mirrored at the edges."""
    height, width = image.shape[1:]
    radius = max(1, min(round(3 * sigma), min(height, width) - 1))
    if min(height, width) < 2:
        return image
    weights = [math.exp(-0.5 * (x / sigma) ** 2) for x in range(radius + 1)]
    total = weights[0] + 2 * sum(weights[1:])
    # Sums of shifted pictures: for one channel 4 times as fast as a convolution.
    padded = F.pad(image, (radius, radius, 0, 0), mode="reflect")
    across = padded[:, :, radius : radius + width] * (weights[0] / total)
    for x in range(1, radius + 1):
        for at in (radius - x, radius + x):
            across.add_(padded[:, :, at : at + width], alpha=weights[x] / total)
    padded = F.pad(across, (0, 0, radius, radius), mode="reflect")
    down = padded[:, radius : radius + height] * (weights[0] / total)
    for y in range(1, radius + 1):
        for at in (radius - y, radius + y):
            down.add_(padded[:, at : at + height], alpha=weights[y] / total)
    return down
