"""Received bytes to a picture of a known size: decoded under limits, scaled, encoded anew.

What is written was made by our encoder from pixels, so nothing else that the file held (EXIF with
places and names, trailing bytes, another format in disguise) goes on.
"""

from __future__ import annotations

from typing import NamedTuple

from vislang.curate.fetch.network import Refused
from vislang.data.decode import Limits, decode_scaled
from vislang.data.sample import BadSample


class Picture(NamedTuple):
    """A JPEG, its size, and the size that the picture came with."""

    jpeg: bytes
    width: int
    height: int
    original_width: int
    original_height: int


def make_picture(data: bytes, side: int, quality: int, limits: Limits) -> Picture:
    """Shorter side to `side` pixels, ratio kept, JPEG.

    Raises:
        Refused: the bytes are no picture, or one with too many pixels.
    """
    import numpy as np
    import simplejpeg

    from vislang.resize import resize

    try:
        pixels, (height, width) = decode_scaled(data, limits, side)
    except BadSample as bad:
        kind, _, detail = bad.reason.partition(": ")
        raise Refused(kind, detail) from bad
    scale = side / min(height, width)
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    if h * w > limits.max_pixels or max(h, w) > 65_500:  # 1 x 30,000 pixels, or beyond JPEG
        raise Refused("too many pixels", f"{width} x {height} becomes {w} x {h}")
    small = resize(pixels, h, w, "bicubic", (height, width)).permute(1, 2, 0).numpy()
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(small), quality=quality)
    return Picture(jpeg, w, h, width, height)
