"""Boxes, heat-maps and superpixels drawn on pictures: found red, true blue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.localize.protocol import Located
from vislang.metrics.boxes import as_boxes

if TYPE_CHECKING:
    from PIL import Image

FOUND, TRUE, EDGE = (214, 39, 40), (31, 90, 200), (255, 255, 255)


def overlay(picture: np.ndarray, heat: np.ndarray, strength: float = 0.6) -> np.ndarray:
    """The picture with a heat-map laid over it, cold places darker and bluish, hot ones yellow."""
    from PIL import Image

    size = (picture.shape[1], picture.shape[0])
    span = heat.max() - heat.min()
    level = (heat - heat.min()) / span if span > 0 else np.zeros_like(heat)
    grey = Image.fromarray((255 * level).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    t = np.asarray(grey, np.float32)[..., None] / 255
    stops = np.array([[20, 11, 52], [132, 32, 107], [229, 92, 48], [246, 215, 70]], np.float32)
    place = t[..., 0] * 3
    low = np.minimum(place.astype(int), 2)
    colour = stops[low] + (stops[low + 1] - stops[low]) * (place - low)[..., None]
    return (picture * (1 - strength) + colour * strength).astype(np.uint8)


def edges(picture: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The picture with the borders of superpixels, labels stretched over it."""
    rows = np.arange(picture.shape[0]) * labels.shape[0] // picture.shape[0]
    columns = np.arange(picture.shape[1]) * labels.shape[1] // picture.shape[1]
    at = labels[np.ix_(rows, columns)]
    border = np.zeros(at.shape, bool)
    border[1:] |= at[1:] != at[:-1]
    border[:, 1:] |= at[:, 1:] != at[:, :-1]
    out = picture.copy()
    out[border] = EDGE
    return out


def draw(
    picture: np.ndarray,
    found: Located,
    truth: Sequence[Sequence[float]] = (),
    *,
    heat: bool = True,
) -> Image.Image:
    """One picture with its boxes, true ones below, the best one found on top."""
    from PIL import Image, ImageDraw

    pixels = overlay(picture, found.heat) if heat and found.heat is not None else picture
    image = Image.fromarray(np.ascontiguousarray(pixels))
    pen = ImageDraw.Draw(image)
    width = max(2, round(max(picture.shape[:2]) / 200))
    # A true box is twice as thick, so that it shows beside a red one that is just the same.
    for colour, boxes, thick in (
        (TRUE, as_boxes(truth), 2 * width), (FOUND, as_boxes(found.boxes)[::-1], width),
    ):  # fmt: skip
        for x1, y1, x2, y2 in boxes:
            if x2 > x1 and y2 > y1:
                pen.rectangle(
                    (x1, y1, x2 - 1, y2 - 1) if x2 - x1 > 1 and y2 - y1 > 1 else (x1, y1, x2, y2),
                    outline=colour,
                    width=thick,
                )
    return image


def drawn_segments(picture: np.ndarray, localizer: Any) -> list[tuple[str, Image.Image]]:
    """The coarsest and the finest superpixels, if the localizer has any (`segments`)."""
    from PIL import Image

    if not hasattr(localizer, "segments"):
        return []
    maps = localizer.segments(picture)
    ends = (maps[0], maps[-1]) if len(maps) > 1 else (maps[0],)
    return [(f"{m.max() + 1} superpixels", Image.fromarray(edges(picture, m))) for m in ends]


def sheet(
    picture: np.ndarray,
    phrases: Sequence[str],
    found: Sequence[Located],
    side: int = 480,
    more: Sequence[tuple[str, Image.Image]] = (),
) -> Image.Image:
    """For each phrase its boxes and, where there is one, its heat-map; then further pictures."""
    from PIL import Image, ImageDraw, ImageFont

    scale = min(1.0, side / max(picture.shape[:2]))
    width, height = (max(1, round(n * scale)) for n in (picture.shape[1], picture.shape[0]))
    font = ImageFont.load_default(14)
    tiles: list[tuple[str, Image.Image]] = []
    for phrase, one in zip(phrases, found):
        score = f"  {one.scores[0]:.3f}" if len(one.scores) else "  nothing found"
        tiles.append((phrase + score, draw(picture, one, heat=False)))
        if one.heat is not None:
            tiles.append(("heat: " + phrase, draw(picture, one)))
    tiles += more
    columns = 2 if any(one.heat is not None for one in found) else min(3, max(1, len(tiles)))
    rows = -(-len(tiles) // columns)
    label, gap = 24, 8
    page = Image.new(
        "RGB",
        (columns * (max(width, 120) + gap) + gap, rows * (height + label + gap) + gap),
        "white",
    )
    pen = ImageDraw.Draw(page)
    for k, (text, tile) in enumerate(tiles):
        x = gap + k % columns * (max(width, 120) + gap)
        y = gap + k // columns * (height + label + gap)
        room = max(8, max(width, 120) // 8)
        pen.text((x, y), text if len(text) <= room else text[: room - 1] + "…", "black", font)
        page.paste(tile.resize((width, height), Image.Resampling.LANCZOS), (x, y + label))
    return page
