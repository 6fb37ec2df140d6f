"""How a tower wants its images: a plain record that both towers and loaders read."""

from dataclasses import dataclass

from vislang.errors import UserError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)

FITS = ("shortest", "squash", "longest")
INTERPOLATIONS = ("bicubic", "bilinear", "nearest")


@dataclass(frozen=True)
class Preprocess:
    """Size and pixel statistics of a tower's input.

    Args:
        size: (height, width) in pixels.
        mean: per-channel mean, of pixels in [0, 1], that the tower subtracts.
        std: per-channel standard deviation that the tower divides by.
        interpolation: bicubic, bilinear or nearest; always antialiased when shrinking.
        fit: "shortest" scales the shorter side, then crops the centre; "squash" ignores the
            aspect; "longest" scales the longer side, then pads with `fill`.
        crop_fraction: with "shortest", the shorter side is scaled to size / crop_fraction first
            (timm's and torchvision's 0.875 convention); 1.0 for CLIP.
        fill: grey level 0-255 of the padding of "longest".
    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    interpolation: str = "bicubic"
    fit: str = "shortest"
    crop_fraction: float = 1.0
    fill: int = 0


def checked_interpolation(name: str) -> str:
    """One of INTERPOLATIONS, or an error."""
    if name not in INTERPOLATIONS:
        raise UserError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}, got {name!r}.")
    return name
