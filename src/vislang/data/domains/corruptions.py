"""Corruptions at severities 1 to 5 as domains: corrupted CIFAR's ten and ImageNet-C's 19.

The constants are those of Hendrycks and Dietterich 2019 (arXiv:1903.12261), for CIFAR's 32 x 32
and for ImageNet's 224 x 224 pixels; the operations are ours. Nothing heavy is imported here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from vislang.data.domains.domain import Domain

SEVERITIES = (1, 2, 3, 4, 5)
_HERE = "vislang.data.domains"


class Corruption(NamedTuple):
    """A row of a table: an operation, its parameters by severity, and adjectives that name it."""

    operation: str
    parameters: tuple[dict[str, Any], ...]
    words: tuple[str, ...]
    says: str
    random: bool = True


def _by(names: str, *values: Any) -> tuple[dict[str, Any], ...]:
    """Five parameter sets: _by("a b", (1, 2), (3, 4), ...)."""
    keys = names.split()
    rows = [value if isinstance(value, tuple) else (value,) for value in values]
    return tuple(dict(zip(keys, row)) for row in rows)


_NOISE, _BLUR = f"{_HERE}.corrupt_noise", f"{_HERE}.corrupt_blur"
_WEATHER, _PIXELS = f"{_HERE}.corrupt_weather", f"{_HERE}.corrupt_pixels"
_SNOW = "mean deviation zoom least radius sigma mix"
_SPATTER = "mean deviation sigma least strength mud"
_ELASTIC = "reach sigma jitter"

CIFAR: dict[str, Corruption] = {
    "snow": Corruption(f"{_WEATHER}:snow", _by(_SNOW,
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9), (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8)), ("snowy",), "Falling snow."),
    "frost": Corruption(f"{_WEATHER}:frost", _by("keep add",
        (1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)), ("frosted",),
        "Ice crystals over the picture."),
    "fog": Corruption(f"{_WEATHER}:fog", _by("strength decay",
        (0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)), ("foggy",),
        "A fractal haze."),
    "brightness": Corruption(f"{_PIXELS}:brightness", _by("add",
        0.05, 0.1, 0.15, 0.2, 0.3), ("overexposed",), "HSV's value raised.", False),
    "contrast": Corruption(f"{_PIXELS}:contrast", _by("factor",
        0.75, 0.5, 0.4, 0.3, 0.15), ("low-contrast",),
        "Values drawn to their channel's mean.", False),
    "spatter": Corruption(f"{_WEATHER}:spatter", _by(_SPATTER,
        (0.62, 0.1, 0.7, 0.7, 0.5, False), (0.65, 0.1, 0.8, 0.7, 0.5, False),
        (0.65, 0.3, 1, 0.69, 0.5, False), (0.65, 0.1, 0.7, 0.69, 0.6, True),
        (0.65, 0.1, 0.5, 0.68, 0.6, True)), ("spattered",), "Drops of water, or of mud."),
    "elastic": Corruption(f"{_PIXELS}:elastic", _by(_ELASTIC,
        (0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03)), ("warped",), "A random affine map and a smooth displacement."),
    "jpeg": Corruption(f"{_PIXELS}:jpeg", _by("quality",
        80, 65, 58, 50, 40), ("compressed",), "JPEG at a low quality.", False),
    "pixelate": Corruption(f"{_PIXELS}:pixelate", _by("factor smooth",
        (0.95, True), (0.9, True), (0.85, True), (0.75, True), (0.65, True)), ("pixelated",),
        "Made smaller and larger again.", False),
    "saturate": Corruption(f"{_PIXELS}:saturate", _by("factor add",
        (0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)), ("color-saturated",),
        "HSV's saturation changed.", False),
}  # fmt: skip

IMAGENET_C: dict[str, Corruption] = {
    "gaussian_noise": Corruption(f"{_NOISE}:gaussian", _by("deviation",
        0.08, 0.12, 0.18, 0.26, 0.38), ("noisy", "grainy"), "Gaussian noise."),
    "shot_noise": Corruption(f"{_NOISE}:shot", _by("photons",
        60, 25, 12, 5, 3), ("noisy", "grainy"), "Poisson noise, as of few photons."),
    "impulse_noise": Corruption(f"{_NOISE}:impulse", _by("share",
        0.03, 0.06, 0.09, 0.17, 0.27), ("noisy", "speckled"), "Single values black or white."),
    "speckle_noise": Corruption(f"{_NOISE}:speckle", _by("deviation",
        0.15, 0.2, 0.35, 0.45, 0.6), ("noisy", "speckled"), "Noise in proportion to the value."),
    "gaussian_blur": Corruption(f"{_BLUR}:gaussian", _by("sigma",
        1, 2, 3, 4, 6), ("blurry",), "Gaussian blur.", False),
    "defocus_blur": Corruption(f"{_BLUR}:defocus", _by("radius smooth",
        (3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)), ("blurry", "out-of-focus"),
        "Blur by a disc, as of a lens.", False),
    "glass_blur": Corruption(f"{_BLUR}:glass", _by("sigma reach rounds",
        (0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        ("blurry", "frosted glass"), "Pixels displaced, as through frosted glass."),
    "motion_blur": Corruption(f"{_BLUR}:motion", _by("radius sigma",
        (10, 3), (15, 5), (15, 8), (15, 12), (20, 15)), ("motion blurred", "blurry"),
        "Blur along a line."),
    "zoom_blur": Corruption(f"{_BLUR}:zoom", _by("most step",
        (1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        ("zoom blurred", "blurry"), "Mean of ever closer views.", False),
    "snow": Corruption(f"{_WEATHER}:snow", _by(_SNOW,
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7), (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55)), ("snowy",), "Falling snow."),
    "frost": Corruption(f"{_WEATHER}:frost", _by("keep add scale",
        (1, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)),
        ("frosted",), "Ice crystals over the picture."),
    "fog": Corruption(f"{_WEATHER}:fog", _by("strength decay",
        (1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)), ("foggy",),
        "A fractal haze."),
    "brightness": Corruption(f"{_PIXELS}:brightness", _by("add",
        0.1, 0.2, 0.3, 0.4, 0.5), ("overexposed", "bright"), "HSV's value raised.", False),
    "contrast": Corruption(f"{_PIXELS}:contrast", _by("factor",
        0.4, 0.3, 0.2, 0.1, 0.05), ("low-contrast",),
        "Values drawn to their channel's mean.", False),
    "elastic": Corruption(f"{_PIXELS}:elastic", _by(_ELASTIC,
        *((a * 244 / 224, s * 244 / 224, j * 244 / 224) for a, s, j in (
            (2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02),
            (0.12, 0.01, 0.02)))), ("warped",),
        "A random affine map and a smooth displacement."),
    "pixelate": Corruption(f"{_PIXELS}:pixelate", _by("factor smooth",
        (0.6, False), (0.5, False), (0.4, False), (0.3, False), (0.25, False)), ("pixelated",),
        "Made smaller and larger again.", False),
    "jpeg": Corruption(f"{_PIXELS}:jpeg", _by("quality",
        25, 18, 15, 10, 7), ("compressed",), "JPEG at a low quality.", False),
    "saturate": Corruption(f"{_PIXELS}:saturate", _by("factor add",
        (0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)), ("color-saturated",),
        "HSV's saturation changed.", False),
    "spatter": Corruption(f"{_WEATHER}:spatter", _by(_SPATTER,
        (0.65, 0.3, 4, 0.69, 0.6, False), (0.65, 0.3, 3, 0.68, 0.6, False),
        (0.65, 0.3, 2, 0.68, 0.5, False), (0.65, 0.3, 1, 0.65, 1.5, True),
        (0.67, 0.4, 1, 0.65, 1.5, True)), ("spattered",), "Drops of water, or of mud."),
}  # fmt: skip


def corruption(family: str, name: str, severity: int) -> Domain:
    """A corruption as a domain, called "family/name/severity".

    >>> corruption("cifar", "brightness", 4).templates
    ('an overexposed photo of a {}',)
    """
    row = {"cifar": CIFAR, "imagenet_c": IMAGENET_C}[family][name]
    templates = tuple(f"{_article(word)} {word} photo of a {{}}" for word in row.words)
    return Domain(
        f"{family}/{name}/{severity}", row.operation, templates,
        row.parameters[severity - 1], row.random, f"{row.says[:-1]}, severity {severity} of 5.",
    )  # fmt: skip


def _article(word: str) -> str:
    return "an" if word[0] in "aeio" else "a"
