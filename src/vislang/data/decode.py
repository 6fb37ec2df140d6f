"""Image files to pixels, with every limit checked before anything is decoded.

H, W: height and width in pixels, after the turn that EXIF asks for.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vislang.data.places import read_bytes
from vislang.data.sample import BadSample, Place, Sample

if TYPE_CHECKING:
    from pathlib import Path

    from jaxtyping import UInt8
    from PIL import Image

# Only what Pillow reads by itself: EPS, for one, would start a PostScript interpreter.
FORMATS = (
    "JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "JPEG2000", "ICO", "TGA",
    "AVIF",
)  # fmt: skip
EXIF_ORIENTATION = 0x0112
# numpy's turns for EXIF orientation 2..8 (EXIF 2.32, section 4.6.5.1.6), as (transpose, flip
# up-down, flip left-right), applied in this order.
_TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


@dataclass(frozen=True)
class Limits:
    """What an image may cost; one that exceeds it is rejected before it is decoded.

    Args:
        max_pixels: height x width (the default is Pillow's threshold for a decompression bomb).
        max_bytes: size of the image file, also after inflating it from a zip.
    """

    max_pixels: int = 89_478_485
    max_bytes: int = 64_000_000


class Decoded(NamedTuple):
    """Pixels, and the size that they would have had without scaling in the decoder."""

    pixels: UInt8[np.ndarray, "H W 3"]
    full_size: tuple[int, int]


def decode(
    image: Path | bytes | Place | Image.Image,
    limits: Limits = Limits(),
    min_side: int | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """Decode an image to RGB, upright.

    Greyscale, palette, CMYK and 16-bit images become 8-bit RGB; transparency is laid on white;
    of several frames the first counts.

    Args:
        image: a file, its bytes, a place in a container, or a Pillow image.
        limits: what it may cost.
        min_side: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as its shorter
            side keeps this many pixels (the scaling is a part of the inverse DCT and saves
            most of the work); None decodes at full size.

    Raises:
        BadSample: with an empty id and a reason of the form "kind: detail".
    """
    return decode_scaled(image, limits, min_side).pixels


def decode_sample(
    sample: Sample, limits: Limits = Limits(), min_side: int | None = None
) -> Decoded:
    """Decode the image of a sample; BadSample carries the sample's id and origin."""
    if sample.image is None:
        raise BadSample(sample.id, "no image: the sample has none", sample.origin)
    try:
        return decode_scaled(sample.image, limits, min_side)
    except BadSample as bad:
        raise BadSample(sample.id, bad.reason, sample.origin) from bad


def decode_scaled(
    image: Path | bytes | Place | Image.Image, limits: Limits, min_side: int | None
) -> Decoded:
    """Like `decode`, and also the full size, from which the size of a resize follows exactly."""
    from PIL import Image

    if isinstance(image, Image.Image):
        return _from_pillow(image, limits)
    data = read_bytes(image, limits.max_bytes)
    if data[:3] == b"\xff\xd8\xff":
        decoded = _decode_jpeg(data, limits, min_side)
        if decoded is not None:
            return decoded
    return _decode_any(data, limits)


def _check_pixels(height: int, width: int, limits: Limits) -> None:
    if height * width > limits.max_pixels:
        raise BadSample(
            "", f"too many pixels: {width} x {height}, max_pixels is {limits.max_pixels:,}"
        )


def _decode_jpeg(data: bytes, limits: Limits, min_side: int | None) -> Decoded | None:
    """libjpeg-turbo; None leaves the file to Pillow (CMYK, and whatever it warns about).

    Both decode with the same library and settings, so at full size the pixels are equal.
    """
    import simplejpeg

    try:
        rows, columns, space, _ = simplejpeg.decode_jpeg_header(data)
        height, width = int(rows), int(columns)
        _check_pixels(height, width, limits)
        if space not in ("YCbCr", "RGB", "Gray"):
            return None
        factor = shrink_factor(min(height, width), min_side)
        # Only powers of two: they are vectorised, 3/4 and the like take longer than full size.
        pixels = simplejpeg.decode_jpeg(
            data, "RGB", min_height=-(-height // factor), min_width=-(-width // factor)
        )
    except ValueError:
        return None
    turn = 1
    if b"Exif\0\0" in data:
        turn = _orientation_of(data)
    size = (width, height) if turn >= 5 else (height, width)
    return Decoded(_turned(pixels, turn), size)


def shrink_factor(side: int, min_side: int | None) -> int:
    """Largest of 1, 2, 4, 8 by which `side` can be divided and still be at least `min_side`.

    >>> [shrink_factor(1024, m) for m in (None, 600, 512, 224, 1)]
    [1, 1, 2, 4, 8]
    """
    factor = 1
    while min_side and factor < 8 and side >= 2 * factor * min_side:
        factor *= 2
    return factor


def _orientation_of(data: bytes) -> int:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _orientation(Image.open(io.BytesIO(data), formats=("JPEG",)))
        except Exception:
            return 1


def _orientation(image: Image.Image) -> int:
    if image.format is None and not image.info:  # made from an array: it has no EXIF block
        return 1
    try:
        turn = int(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # a broken EXIF block raises all kinds; the picture itself may be whole
        return 1
    return turn if turn in _TURNS else 1


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels as EXIF says that they are to be seen; always contiguous and writable."""
    if orientation in _TURNS:
        transpose, up_down, left_right = _TURNS[orientation]
        if transpose:
            pixels = pixels.transpose(1, 0, 2)
        if up_down:
            pixels = pixels[::-1]
        if left_right:
            pixels = pixels[:, ::-1]
    return np.require(pixels, np.uint8, ("C", "W"))


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """FORMATS, as far as this build of Pillow has them."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _decode_any(data: bytes, limits: Limits) -> Decoded:
    from PIL import Image, UnidentifiedImageError

    # Pillow's warnings (odd EXIF, extra bytes) concern the file's author, not our user.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=_formats()) as image:
                return _from_pillow(image, limits)
        except BadSample:
            raise
        except UnidentifiedImageError as error:
            raise BadSample("", "not an image: the format is not known") from error
        # As a warning it comes through where another thread has put the filters back.
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise BadSample("", f"too many pixels: {error}") from error
        except Exception as error:  # decoders meet hostile bytes with any exception at all
            kind = "truncated image" if "truncated" in str(error).lower() else "cannot decode"
            raise BadSample("", f"{kind}: {error or type(error).__name__}") from error


def _from_pillow(image: Image.Image, limits: Limits) -> Decoded:
    _check_pixels(image.height, image.width, limits)
    turn = _orientation(image)
    pixels = _turned(_rgb(image), turn)
    return Decoded(pixels, (pixels.shape[0], pixels.shape[1]))


def _rgb(image: Image.Image) -> np.ndarray:
    """Any mode of Pillow as 8-bit RGB."""
    from PIL import Image

    if image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N"):
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise BadSample("", "cannot decode: 32-bit integers have no agreed white")
        # 65535 / 257 = 255: the full range, where Pillow's own conversion would clip at 255.
        return np.repeat(((grey + 128) // 257).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "F":
        raise BadSample("", "cannot decode: floating-point pixels have no agreed white")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, (255, 255, 255, 255)), over)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
