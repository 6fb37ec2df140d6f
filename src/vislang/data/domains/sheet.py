"""A contact sheet: one picture under many domains, each with its name and its first sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vislang.data.domains.apply import apply_domains
from vislang.data.sample import BadSample

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from PIL import Image, ImageDraw

    from vislang.data.domains.domain import Domain

_GAP, _LINE, _WHITE, _GREY = 10, 13, (255, 255, 255), (235, 235, 235)


def contact_sheet(
    pixels: UInt8[np.ndarray, "H W 3"],
    domains: Sequence[Domain],
    seed: int,
    id: str,
    side: int = 160,
    columns: int = 6,
) -> tuple[Image.Image, list[str]]:
    """(the sheet, reasons of domains that failed; their places stay grey).

    Args:
        pixels: the picture.
        domains: which.
        seed: of random domains.
        id: of the picture, for random domains.
        side: pixels of the longer side of each picture.
        columns: pictures in a row.
    """
    from PIL import Image, ImageDraw, ImageFont

    made = apply_domains(pixels, domains, seed=seed, id=id)
    columns = min(columns, len(domains))
    step = side + _GAP, side + 3 * _LINE + _GAP
    rows = -(-len(domains) // columns)
    size = columns * step[0] + _GAP, rows * step[1] + _GAP
    sheet = Image.new("RGB", size, _WHITE)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    failed = []
    for number, (domain, picture) in enumerate(zip(domains, made)):
        left, top = _GAP + number % columns * step[0], _GAP + number // columns * step[1]
        if isinstance(picture, BadSample):
            failed.append(picture.reason)
            draw.rectangle((left, top, left + side, top + side), fill=_GREY)
        else:
            small = Image.fromarray(picture)
            small = small.resize(_fitted(small.size, side), Image.Resampling.LANCZOS)
            sheet.paste(small, (left, top + side - small.height))
        lines = [domain.name, *_wrapped(domain.templates[0].replace("{}", "…"), side, draw, font)]
        for line, text in enumerate(lines[:3]):
            draw.text((left, top + side + 3 + line * _LINE), text, fill=(90 * (line > 0),) * 3,
                      font=font)  # fmt: skip
    return sheet, failed


def _fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    by = side / max(size)
    return max(1, round(size[0] * by)), max(1, round(size[1] * by))


def _wrapped(text: str, width: int, draw: ImageDraw.ImageDraw, font) -> list[str]:
    """Lines that are no longer than `width` pixels, as far as words allow."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font=font) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
