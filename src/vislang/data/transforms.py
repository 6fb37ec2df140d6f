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
from vislang.data.augment import Augment
from vislang.data.decode import Limits, decode_sample
from vislang.data.sample import Sample
from vislang.lookup import check_options, lookup
from vislang.preprocess import Preprocess

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8
    from torch import Tensor

# An evaluation image keeps twice the target's pixels in the decoder's own scaling, from where
# the bicubic kernel does the rest: mean difference to a full decode under one grey level
# (tests/test_data_transforms.py). A training crop, being random anyway, only must not be enlarged.
EVALUATION_MARGIN = 2.0


def evaluation_min_side(preprocess: Preprocess) -> int | None:
    """The `min_side` of `decode` that leaves `prepare_image` all the detail it can use."""
    if preprocess.interpolation == "nearest":
        return None
    return math.ceil(EVALUATION_MARGIN * max(preprocess.size) / preprocess.crop_fraction)


def prepare_sample(
    sample: Sample, limits: Limits, preprocess: Preprocess
) -> UInt8[Tensor, "3 h w"]:
    """Decode the image of a sample and apply the evaluation transform; BadSample if it cannot."""
    from vislang.resize import prepare_image

    decoded = decode_sample(sample, limits, evaluation_min_side(preprocess))
    return prepare_image(decoded.pixels, preprocess, decoded.full_size)


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


def local_crop(
    preprocess: Preprocess,
    *,
    scale: Sequence[float] = (0.05, 0.4),
    interpolation: str = "bicubic",
    flip: float = 0.5,
    jitter: Sequence[float] = (0.4, 0.4, 0.2, 0.1),
    grey: float = 0.2,
    blur: float = 0.5,
    **options: Any,
) -> Augment:
    """DINO's small crops: 5-40 %, flip, jitter, grey, blur; SwAV's are scale [0.05, 0.14].

    Caron et al. 2021, arXiv:2104.14294, section 3.2 and its code; Caron et al. 2020,
    arXiv:2006.09882, section 3.3.
    """
    return Augment(
        preprocess, scale=scale, interpolation=interpolation, flip=flip, jitter=jitter,
        grey=grey, blur=blur, **options,
    )  # fmt: skip


def light(
    preprocess: Preprocess,
    *,
    scale: Sequence[float] = (0.5, 1.0),
    interpolation: str = "bicubic",
    flip: float = 0.5,
    jitter: Sequence[float] = (0.8, 0.8, 0.8, 0.2),
    jitter_chance: float = 0.2,
    grey: float = 0.2,
    blur: float = 0.2,
    **options: Any,
) -> Augment:
    """ProtoCLIP's: crop of 50-100 %, flip, and one time in five each: jitter, grey, blur."""
    return Augment(
        preprocess, scale=scale, interpolation=interpolation, flip=flip, jitter=jitter,
        jitter_chance=jitter_chance, grey=grey, blur=blur, **options,
    )  # fmt: skip


class none:
    """No augmentation: the evaluation transform of the tower."""

    def __init__(self, preprocess: Preprocess):
        from vislang.resize import check_preprocess

        check_preprocess(preprocess)
        self.preprocess = preprocess
        self.min_side = evaluation_min_side(preprocess)
        self.size = preprocess.size

    def __call__(
        self,
        pixels: UInt8[np.ndarray, "H W 3"],
        rng: np.random.Generator | None = None,
        full_size: tuple[int, int] | None = None,
    ) -> UInt8[Tensor, "3 h w"]:
        from vislang.resize import prepare_image

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
    check_options(f"The augment {name!r}", options or {}, sorted(known))
    return make(preprocess, **(options or {}))
