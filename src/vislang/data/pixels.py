"""Resizing and colour on the CPU, in torch's vectorised uint8 kernels.

H, W: the picture's height and width; h, w: those of the result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

# Weights of red, green and blue in grey: ITU-R BT.601, as Pillow and torchvision have them.
_GREY = (0.299, 0.587, 0.114)


def resize(
    pixels: UInt8[np.ndarray, "H W 3"],
    height: int,
    width: int,
    interpolation: str,
    full_size: tuple[int, int] | None = None,
) -> UInt8[Tensor, "3 h w"]:
    """Resize with antialiasing, within one grey level of Pillow's result.

    Args:
        pixels: the picture.
        height: h.
        width: w.
        interpolation: bicubic, bilinear or nearest.
        full_size: size of the picture before the decoder scaled it. A decoder rounds 683 / 2 up
            to 342 columns, of which the last is half empty: without this the result would be
            stretched by half a pixel, which costs more than the scaling itself.
    """
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]  # channels last, nothing is copied
    if pixels.shape[:2] == (height, width) and full_size in (None, (height, width)):
        return image[0]
    if interpolation == "nearest":
        rows, columns = _nearest(pixels.shape[0], height), _nearest(pixels.shape[1], width)
        return torch.from_numpy(pixels[rows][:, columns]).permute(2, 0, 1)
    if full_size is None or full_size == pixels.shape[:2]:
        return F.interpolate(image, (height, width), mode=interpolation, antialias=True)[0]
    factor = round(full_size[0] / pixels.shape[0]), round(full_size[1] / pixels.shape[1])
    scale = [
        side * shrunk / full * (1 + 1e-9)  # torch rounds rows x scale down
        for side, shrunk, full in zip((height, width), factor, full_size)
    ]
    return F.interpolate(image, scale_factor=scale, mode=interpolation, antialias=True)[0]


def _nearest(old: int, new: int) -> np.ndarray:
    """Old position for each new one, with Pillow's own rounding: it adds step to step."""
    steps = np.full(new, old / new)
    steps[0] /= 2
    return np.cumsum(steps).astype(np.int64).clip(0, old - 1)


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
