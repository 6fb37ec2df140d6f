"""Received bytes to a picture of a known size: decoded under limits, scaled, encoded anew.

What is written was made by our encoder from pixels, so nothing else that the file held (EXIF with
places and names, trailing bytes, another format in disguise) goes on. What a file is, its first
bytes say, never a header or a name. This module imports no torch: it runs in small processes.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import NamedTuple

from vislang.curate.fetch.network import Refused
from vislang.data.decode import Limits, decode_scaled
from vislang.data.sample import BadSample

# Formats of the web with a signature of their own; whatever else Pillow reads is not let in.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000")
ANIMATED = ("first", "refuse")
_MOST_SIDE = 65_500  # of a JPEG that is written
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"), (b"\xff\x4f\xff\x51", "JPEG2000"),
)  # fmt: skip
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"}
_OTHERS = (
    (b"%PDF", "PDF"), (b"PK\3\4", "ZIP"), (b"\x1f\x8b", "gzip"), (b"{", "JSON"), (b"[", "JSON"),
    (b"\0\0\1\0", "ICO"), (b"\xff\x0a", "JPEG XL"), (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"8BPS", "PSD"), (b"\x1aE\xdf\xa3", "WebM"), (b"%!PS", "PostScript"),
    (b"version https://git-lfs", "a pointer of Git LFS"),
)  # fmt: skip


@dataclass(frozen=True)
class Making:
    """How a picture is made of what came.

    Args:
        side: pixels of the shorter side of what is written.
        quality: of the JPEG.
        max_side: pixels of the longer side of what came.
        animated: of several frames take the "first", or "refuse" the picture.
        max_frames: a picture with more is refused in any case.
        decode_s: seconds of computing that one picture may take.
    """

    side: int = 224
    quality: int = 95
    max_side: int = 30_000
    animated: str = "first"
    max_frames: int = 1000
    decode_s: float = 10.0


class Picture(NamedTuple):
    """A JPEG, its size, the size that the picture came with, its frames and its format."""

    jpeg: bytes
    width: int
    height: int
    original_width: int
    original_height: int
    frames: int
    format: str


def sniff(data: bytes) -> str:
    r"""The format of a picture by its first bytes.

    Raises:
        Refused: it is something else; SVG is named, since it is a picture that is not decoded.

    >>> sniff(b"GIF89a...")
    'GIF'
    """
    for mark, name in _SIGNATURES:
        if data.startswith(mark):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:2] == b"BM" and data[14:18] in (b"\x0c\0\0\0", b"(\0\0\0", b"l\0\0\0", b"|\0\0\0"):
        return "BMP"
    if data[4:8] == b"ftyp":
        if data[8:12] in _BRANDS:
            return _BRANDS[data[8:12]]
        raise Refused("not an image", "a video or HEIC, which is not decoded")
    text = data[:4096].lstrip(b"\xef\xbb\xbf\xfe\xff\0 \t\r\n").replace(b"\0", b"").lower()
    if text.startswith(b"<"):
        if b"<svg" in text:
            raise Refused("svg", "vector drawings are programs and are not decoded")
        raise Refused("not an image", "HTML or XML")
    other = next((name for mark, name in _OTHERS if data.startswith(mark)), "")
    raise Refused("not an image", other or "the format is not known")


def make_picture(data: bytes, how: Making, limits: Limits) -> Picture:
    """Shorter side to `how.side` pixels, ratio kept, JPEG.

    Raises:
        Refused: the bytes are no picture, or one beyond a limit.
    """
    import numpy as np
    import simplejpeg
    from PIL import Image

    if not data:
        raise Refused("not an image", "0 bytes")
    kind = sniff(data)
    try:
        frames = 1 if kind == "JPEG" else _frames(data, kind, how, limits)
        pixels, (height, width) = decode_scaled(data, limits, how.side)
    except BadSample as bad:
        status, _, detail = bad.reason.partition(": ")
        raise Refused(status, detail) from bad
    except MemoryError as error:
        raise Refused("too much memory", "decoding") from error
    _check_side(width, height, how)
    scale = how.side / min(height, width)
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    if h * w > limits.max_pixels or max(h, w) > _MOST_SIDE:  # 1 x 30,000 pixels, or beyond JPEG
        raise Refused("too many pixels", f"{width} x {height} becomes {w} x {h}")
    small = Image.fromarray(pixels).resize((w, h), Image.Resampling.BICUBIC)
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(small), quality=how.quality)
    return Picture(jpeg, w, h, width, height, frames, kind)


def _check_side(width: int, height: int, how: Making) -> None:
    if max(width, height) > how.max_side:
        raise Refused("too many pixels", f"{width} x {height}, max_side is {how.max_side:,}")


def _frames(data: bytes, kind: str, how: Making, limits: Limits) -> int:
    """Number of frames, nothing decoded yet; sides and pixels are checked on the way."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=(kind,)) as image:
                _check_side(image.width, image.height, how)
                if image.width * image.height > limits.max_pixels:
                    return 1  # decode says so in its words
                frames = (
                    getattr(image, "n_frames", 1) if getattr(image, "is_animated", False) else 1
                )
        except Refused:
            raise
        except Exception:  # decode says what ails the file
            return 1
    if frames > how.max_frames:
        raise Refused("too many frames", f"{frames:,}, max_frames is {how.max_frames:,}")
    if frames > 1 and how.animated == "refuse":
        raise Refused("animated", f"{frames:,} frames")
    return frames
