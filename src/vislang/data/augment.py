"""The random part of a training transform: crop, flip, colour, blur.

H, W: the picture's height and width; h, w: those of the tower's input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vislang.errors import UserError
from vislang.preprocess import Preprocess, checked_interpolation

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8
    from torch import Tensor


class Augment:
    """A random resized crop, then flip, colour jitter, grey and blur, each with its chance.

    `augment(pixels, rng)` gives uint8 [3, h, w]; all randomness comes from `rng`, so that it does
    not depend on the worker (`full_size` matters only to "none"). `min_side` is what `decode` may
    scale down to: the smallest crop that can be drawn then still has the target's pixels, unless
    the file itself has fewer.

    Args:
        preprocess: the tower's size; its interpolation is used unless one is given.
        scale: range of the crop's area, as a part of the picture's.
        ratio: range of the crop's width / height.
        interpolation: bicubic, bilinear or nearest; None takes the tower's.
        flip: chance of mirroring left and right.
        jitter: strengths of brightness, contrast and saturation (factor 1 ± strength) and of
            hue (± part of the circle), applied in random order.
        jitter_chance: chance of the jitter.
        grey: chance of turning grey.
        blur: chance of a Gaussian blur.
        sigma: range of its standard deviation in pixels.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        *,
        scale: Sequence[float] = (0.9, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        interpolation: str | None = None,
        flip: float = 0.0,
        jitter: Sequence[float] = (0.0, 0.0, 0.0, 0.0),
        jitter_chance: float = 0.8,
        grey: float = 0.0,
        blur: float = 0.0,
        sigma: Sequence[float] = (0.1, 2.0),
    ):
        self.size = preprocess.size
        self.interpolation = checked_interpolation(interpolation or preprocess.interpolation)
        self.scale = _range("scale", scale, 0.0, 1.0)
        self.ratio = _range("ratio", ratio, 0.0, math.inf)
        self.sigma = _range("sigma", sigma, 0.0, math.inf)
        self.jitter = _strengths(jitter)
        self.jitter_chance = _chance("jitter_chance", jitter_chance)
        self.flip, self.grey = _chance("flip", flip), _chance("grey", grey)
        self.blur = _chance("blur", blur)
        narrowest = min(self.ratio[0], 1 / self.ratio[1])
        least = max(self.size) / math.sqrt(self.scale[0] * min(1.0, narrowest))
        self.min_side = None if self.interpolation == "nearest" else math.ceil(least)

    def __call__(
        self,
        pixels: UInt8[np.ndarray, "H W 3"],
        rng: np.random.Generator,
        full_size: tuple[int, int] | None = None,
    ) -> UInt8[Tensor, "3 h w"]:
        import numpy as np

        from vislang.data import pixels as operations
        from vislang.resize import resize

        top, left, height, width = crop_box(pixels.shape, self.scale, self.ratio, rng)
        crop = np.ascontiguousarray(pixels[top : top + height, left : left + width])
        image = resize(crop, *self.size, self.interpolation)
        if rng.random() < self.flip:
            image = image.flip(-1)
        changes = self._draw_changes(rng)
        if changes:
            colour = image.float().contiguous()
            for name, amount in changes:
                colour = getattr(operations, name)(colour, amount)
            image = colour.round_().clamp_(0, 255).byte()
        return image.contiguous()

    def _draw_changes(self, rng: np.random.Generator) -> list[tuple[str, float]]:
        """Names of functions of pixels.py and their strengths, in the order of application."""
        changes: list[tuple[str, float]] = []
        if any(self.jitter) and rng.random() < self.jitter_chance:
            names = ("change_brightness", "change_contrast", "change_saturation", "turn_hue")
            for i in rng.permutation(4):
                strength = self.jitter[i]
                middle = 0.0 if names[i] == "turn_hue" else 1.0
                amount = middle + strength * (2 * rng.random() - 1)
                if strength:
                    changes.append((names[i], amount if i == 3 else max(0.0, amount)))
        if self.grey and rng.random() < self.grey:
            changes.append(("change_saturation", 0.0))
        if self.blur and rng.random() < self.blur:
            changes.append(("blur", float(rng.uniform(*self.sigma))))
        return changes


def crop_box(
    shape: Sequence[int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random resized crop.

    Area uniform in `scale`, the logarithm of width / height uniform in `ratio`, ten tries, then
    the largest centred crop whose ratio is allowed. Szegedy et al. 2014, arXiv:1409.4842,
    section 6, in torchvision's form.
    """
    rows, columns = shape[0], shape[1]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        draws = rng.random(4)
        area = rows * columns * (scale[0] + (scale[1] - scale[0]) * draws[0])
        aspect = math.exp(low + (high - low) * draws[1])
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width <= columns and 0 < height <= rows:
            top, left = int(draws[2] * (rows - height + 1)), int(draws[3] * (columns - width + 1))
            return top, left, height, width
    aspect = min(max(columns / rows, ratio[0]), ratio[1])
    width = min(columns, max(1, round(rows * aspect)))
    height = min(rows, max(1, round(columns / aspect)))
    return (rows - height) // 2, (columns - width) // 2, height, width


def _range(name: str, value: Sequence[float], low: float, high: float) -> tuple[float, float]:
    pair = isinstance(value, list | tuple) and len(value) == 2
    if not pair or not low < value[0] <= value[1] <= high:
        limit = f"{low:g} < low <= high" + (f" <= {high:g}" if high < math.inf else "")
        raise UserError(f"{name} must be [low, high] with {limit}, got {value!r}.")
    return float(value[0]), float(value[1])


def _chance(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise UserError(f"{name} is a chance and must be in [0, 1], got {value!r}.")
    return float(value)


def _strengths(value: Sequence[float]) -> tuple[float, ...]:
    four = isinstance(value, list | tuple) and len(value) == 4
    if not four or min(value) < 0 or value[3] > 0.5:
        raise UserError(
            "jitter must be [brightness, contrast, saturation, hue], each >= 0 and hue <= 0.5,"
            f" got {value!r}."
        )
    return tuple(float(strength) for strength in value)
