"""From decoded pixels to what a tower takes: the evaluation transform and augmentations.

Towers divide by 255 and normalise themselves, so everything here is uint8 [3, H, W].
Importing this module loads no torch, so that `vislang list augments` is instant.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vislang.data import AUGMENTS
from vislang.data.augment import Augment, checked_interpolation
from vislang.data.decode import Limits, decode_sample
from vislang.data.sample import Sample
from vislang.errors import UserError
from vislang.lookup import lookup, nearest
from vislang.preprocess import FITS, Preprocess

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8
    from torch import Tensor

# An evaluation image keeps twice the target's pixels in the decoder's own scaling, from where
# the bicubic kernel does the rest: mean difference to a full decode under one grey level
# (tests/test_data_transforms.py). A training crop, being random anyway, only must not be enlarged.
EVALUATION_MARGIN = 2.0
# Beyond this ratio of the sides a picture is cut before it is scaled: 1 x 30,000 pixels would
# else become 224 x 6,720,000 on the way to a 224 x 224 centre.
_LONGEST_ASPECT = 16


def evaluation_min_side(preprocess: Preprocess) -> int | None:
    """The `min_side` of `decode` that leaves `prepare_image` all the detail it can use."""
    if preprocess.interpolation == "nearest":
        return None
    return math.ceil(EVALUATION_MARGIN * max(preprocess.size) / preprocess.crop_fraction)


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
    from vislang.data.pixels import resize

    _check_preprocess(preprocess)
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


def prepare_sample(
    sample: Sample, limits: Limits, preprocess: Preprocess
) -> UInt8[Tensor, "3 h w"]:
    """Decode the image of a sample and apply the evaluation transform; BadSample if it cannot."""
    decoded = decode_sample(sample, limits, evaluation_min_side(preprocess))
    return prepare_image(decoded.pixels, preprocess, decoded.full_size)


def _check_preprocess(preprocess: Preprocess) -> None:
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
    import numpy as np

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


def clip(preprocess: Preprocess, *, interpolation: str = "bicubic", **options: Any) -> Augment:
    """CLIP's crop: 90-100 % of the area, bicubic; flip, jitter, grey and blur on request."""
    return Augment(preprocess, interpolation=interpolation, **options)


def simclr(
    preprocess: Preprocess,
    *,
    scale: Sequence[float] = (0.2, 1.0),
    interpolation: str = "bilinear",
    flip: float = 0.5,
    jitter: Sequence[float] = (0.4, 0.4, 0.4, 0.1),
    grey: float = 0.2,
    blur: float = 0.5,
    **options: Any,
) -> Augment:
    """SimCLR's views: crop of 20-100 %, flip, colour jitter, grey, blur (Chen et al. 2020)."""
    return Augment(
        preprocess, scale=scale, interpolation=interpolation, flip=flip, jitter=jitter,
        grey=grey, blur=blur, **options,
    )  # fmt: skip


def global_crop(
    preprocess: Preprocess,
    *,
    scale: Sequence[float] = (0.5, 1.0),
    interpolation: str = "bilinear",
    **options: Any,
) -> Augment:
    """A crop of 50-100 % and nothing else, as for pairs found by their captions."""
    return Augment(preprocess, scale=scale, interpolation=interpolation, **options)


class none:
    """No augmentation: the evaluation transform of the tower."""

    def __init__(self, preprocess: Preprocess):
        _check_preprocess(preprocess)
        self.preprocess = preprocess
        self.min_side = evaluation_min_side(preprocess)
        self.size = preprocess.size

    def __call__(
        self,
        pixels: UInt8[np.ndarray, "H W 3"],
        rng: np.random.Generator | None = None,
        full_size: tuple[int, int] | None = None,
    ) -> UInt8[Tensor, "3 h w"]:
        return prepare_image(pixels, self.preprocess, full_size)


def build_augment(
    name: str, preprocess: Preprocess, options: Mapping[str, Any] | None = None
) -> Callable[..., Tensor]:
    """The augmentation `name` for a tower; unknown names and options are errors.

    >>> build_augment("clip", Preprocess(), {"scal": (0.5, 1)})
    Traceback (most recent call last):
    vislang.errors.UserError: The augment 'clip' has no option 'scal'. Did you mean 'scale'? ...
    """
    make = lookup("augment", AUGMENTS, name)
    known = set(inspect.signature(make).parameters) - {"preprocess", "options"}
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(make).parameters.values()):
        known |= set(inspect.signature(Augment).parameters) - {"preprocess"}
    for option in options or {}:
        if option not in known:
            raise UserError(
                f"The augment {name!r} has no option {option!r}.{nearest(option, known)}"
                f" Known: {', '.join(sorted(known)) or 'none'}."
            )
    return make(preprocess, **(options or {}))
