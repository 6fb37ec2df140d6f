"""Colour and blur on the CPU, for augmentation.

H, W: the picture's height and width.
"""

from __future__ import annotations

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
    return (image * image.new_tensor(_GREY)[:, None, None]).sum(0, keepdim=True)


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
    V - C · clamp(min(k, 4 - k), 0, 1), k = (n + h) mod 6, n = 5, 3, 1 for red, green, blue.
    """
    value, at = image.max(0)
    chroma = value - image.min(0).values
    red, green, blue = image
    safe = chroma.clamp(min=1e-6)
    sixth = torch.where(
        at == 0,
        (green - blue) / safe,
        torch.where(at == 1, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    k = (image.new_tensor([5.0, 3.0, 1.0])[:, None, None] + sixth + 6 * turn) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1)


def blur(image: Float[Tensor, "3 H W"], sigma: float) -> Float[Tensor, "3 H W"]:
    """Gaussian blur of `sigma` pixels, cut at three sigma, mirrored at the edges."""
    radius = max(1, min(round(3 * sigma), min(image.shape[1:]) - 1))
    if min(image.shape[1:]) < 2:
        return image
    x = torch.arange(-radius, radius + 1, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(image[:, None], (radius, radius, radius, radius), mode="reflect")
    across = F.conv2d(padded, kernel[None, None, None, :])
    return F.conv2d(across, kernel[None, None, :, None])[:, 0]
