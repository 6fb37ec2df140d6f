"""The evaluation transform: one for the loaders and for the towers, so that both see the same.

H, W: the picture's height and width; h, w: those of the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from vislang.errors import UserError
from vislang.preprocess import FITS, Preprocess, checked_interpolation

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from torch import Tensor

# Beyond this ratio of the sides a picture is cut before it is scaled: 1 x 30,000 pixels would
# else become 224 x 6,720,000 on the way to a 224 x 224 centre.
_LONGEST_ASPECT = 16


def prepare_image(
    pixels: UInt8[np.ndarray, "H W 3"],
    preprocess: Preprocess,
    full_size: tuple[int, int] | None = None,
) -> UInt8[Tensor, "3 h w"]:
    """The evaluation transform: what open_clip and timm do with Pillow, within one grey level.

    Args:
        pixels: the decoded picture.
        preprocess: how the tower wants its images.
        full_size: (height, width) before the decoder scaled it, if it did.
    """
    check_preprocess(preprocess)
    target = preprocess.size
    if preprocess.fit == "squash":
        return resize(pixels, *target, preprocess.interpolation, full_size).contiguous()
    if max(pixels.shape[:2]) > _LONGEST_ASPECT * min(pixels.shape[:2]) and (
        preprocess.fit == "shortest"
    ):
        pixels, full_size = _cut_long(pixels), None
    size = fitted_size(full_size or pixels.shape[:2], preprocess)
    image = resize(pixels, *size, preprocess.interpolation, full_size)
    return _centre(image, target, preprocess.fill)


def check_preprocess(preprocess: Preprocess) -> None:
    """Refuse a fit or an interpolation that does not exist."""
    if preprocess.fit not in FITS:
        raise UserError(f"fit must be one of {', '.join(FITS)}, got {preprocess.fit!r}.")
    checked_interpolation(preprocess.interpolation)


def fitted_size(size: Sequence[int], preprocess: Preprocess) -> tuple[int, int]:
    """(height, width) to which a picture is scaled before its centre is cut out.

    The roundings are those of torchvision's Resize for squares, of timm's ResizeKeepRatio else.

    >>> fitted_size((512, 683), Preprocess(size=(224, 224)))
    (224, 298)
    >>> fitted_size((512, 683), Preprocess(size=(224, 224), fit="longest"))
    (168, 224)
    """
    height, width = size[0], size[1]
    target = preprocess.size
    if preprocess.fit == "longest":
        ratio = max(height / target[0], width / target[1])
        return max(1, round(height / ratio)), max(1, round(width / ratio))
    target = tuple(math.floor(side / preprocess.crop_fraction) for side in target)
    if target[0] == target[1]:
        short, long = min(height, width), max(height, width)
        longer = int(target[0] * long / short)
        return (target[0], longer) if height <= width else (longer, target[0])
    ratio = min(height / target[0], width / target[1])
    return round(height / ratio), round(width / ratio)


def _cut_long(pixels: np.ndarray) -> np.ndarray:
    """The middle part of a strip, still far longer than what is used of it."""
    height, width = pixels.shape[:2]
    keep = _LONGEST_ASPECT * min(height, width)
    top, left = max(0, height - keep) // 2, max(0, width - keep) // 2
    return np.ascontiguousarray(pixels[top : top + keep, left : left + keep])


def _centre(image: Tensor, size: tuple[int, int], fill: int) -> Tensor:
    """Cut the centre out, or pad around, per axis."""
    height, width = image.shape[1:]
    if height == size[0] and width == size[1]:
        return image.contiguous()
    if height < size[0] or width < size[1]:
        padded = image.new_full((3, max(height, size[0]), max(width, size[1])), fill)
        top, left = max(0, size[0] - height) // 2, max(0, size[1] - width) // 2
        padded[:, top : top + height, left : left + width] = image
        image, (height, width) = padded, padded.shape[1:]
    # round() goes to the even number at .5, as torchvision's centre crop does
    top, left = round((height - size[0]) / 2), round((width - size[1]) / 2)
    return image[:, top : top + size[0], left : left + size[1]].contiguous()


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
