"""Fetched pictures of a domain side by side, with their captions, as one PNG to look at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.curate.fetch.job import file_name
from vislang.curate.fetch.written import DONE, LEDGER
from vislang.data.decode import decode
from vislang.data.sample import BadSample
from vislang.errors import UserError
from vislang.files import read_json, whole_file
from vislang.lookup import nearest

if TYPE_CHECKING:
    from PIL import Image

WIDTH, HEIGHT, GAP, STRIP = 1600, 224, 20, 18  # pixels; STRIP is the line of the caption
SAFE = ("UNLIKELY", "SAFE", "FALSE")


@dataclass(frozen=True)
class Collage:
    """What to draw.

    Args:
        count: pictures to draw at random.
        rows: at most so many lines.
        captions: write the caption below each.
        nsfw: show also what is tagged as possibly unsafe; else a grey tile stands for it.
        seed: of the draw.
    """

    count: int = 100
    rows: int = 8
    captions: bool = True
    nsfw: bool = False
    seed: int = 0


def draw_collages(
    fetched: Path | str,
    out: Path | str,
    how: Collage = Collage(),
    domain: str = "",
) -> dict[str, Path]:
    """Write OUT/<domain>.png for each domain (or one); returns domain -> file.

    Pictures keep their order of the draw and are packed from left to right into lines of 1,600
    pixels, 224 high; wider ones are left out.

    Args:
        fetched: folder of `vislang curate fetch`.
        out: folder.
        how: what to draw.
        domain: one of the domains; empty for all.
    """
    import pyarrow.parquet as pq

    fetched, made = Path(fetched), {}
    if not (fetched / DONE).exists():
        raise UserError(f"{fetched} holds no fetched pictures. `vislang curate fetch` makes them.")
    layout = read_json(fetched / DONE)["layout"]
    rows = [row for row in pq.read_table(fetched / LEDGER).to_pylist() if row["status"] == "ok"]
    by_domain: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_domain.setdefault(row["domain"] or "all", []).append(row)
    if domain and domain not in by_domain:
        raise UserError(
            f"{fetched} has no pictures of {domain!r}.{nearest(domain, by_domain)}"
            f" It has {', '.join(sorted(by_domain))}."
        )
    for name in [domain] if domain else sorted(by_domain):
        mine = by_domain[name]
        order = np.random.default_rng(how.seed).permutation(len(mine))[: how.count]
        chosen = [mine[i] for i in order]
        tiles = [_tile(fetched, layout, row, how) for row in chosen]
        image = pack([tile for tile in tiles if tile is not None], how.rows)
        path = Path(out) / f"{file_name(name)}.png"
        with whole_file(path) as file:
            image.save(file, "PNG")
        made[name] = path
    return made


def _tile(fetched: Path, layout: str, row: dict[str, Any], how: Collage) -> Image.Image | None:
    """A picture with its caption below; a grey one if hidden; None if it cannot be drawn."""
    from PIL import Image, ImageDraw

    tagged = row.get("nsfw")
    hidden = not how.nsfw and tagged is not None and str(tagged).upper() not in SAFE
    width = max(1, round(row["width"] * HEIGHT / row["height"]))
    if width >= WIDTH:
        return None
    strip = STRIP if how.captions else 0
    tile = Image.new("RGB", (width, HEIGHT + strip), "white")
    draw = ImageDraw.Draw(tile)
    if hidden:
        draw.rectangle((0, 0, width, HEIGHT), fill=(190, 190, 190))
        draw.text((8, HEIGHT // 2), "hidden (tagged unsafe)", fill="black")
        return tile
    try:
        pixels = decode(_bytes(fetched, layout, row))
    except (BadSample, OSError, KeyError):
        return None
    picture = Image.fromarray(pixels).resize((width, HEIGHT), Image.Resampling.BICUBIC)
    tile.paste(picture, (0, 0))
    if strip:
        text = " ".join(str(row.get("caption") or "").split())[: max(4, width // 7)]
        draw.text(
            (2, HEIGHT + 3), text.encode("latin-1", "replace").decode("latin-1"), fill="black"
        )
    return tile


def _bytes(fetched: Path, layout: str, row: dict[str, Any]) -> bytes:
    """The JPEG of a ledger row."""
    folder = next(p for p in sorted(fetched.iterdir()) if p.is_dir() and _is_of(p.name, row))
    if layout == "folder":
        return next(folder.glob(f"*/{row['key']}.jpg")).read_bytes()
    for path in sorted(folder.glob("*.tar")):
        place = _members(path, path.stat().st_mtime_ns).get(f"{row['key']}.jpg")
        if place is not None:
            with path.open("rb") as file:
                file.seek(place[0])
                return file.read(place[1])
    raise KeyError(row["key"])


@lru_cache(maxsize=4096)
def _members(path: Path, changed: int) -> dict[str, tuple[int, int]]:
    """Name -> (offset, size): a tar is walked through once until it changes."""
    import tarfile

    with tarfile.open(path) as tar:
        return {member.name: (member.offset_data, member.size) for member in tar}


def _is_of(name: str, row: dict[str, Any]) -> bool:

    return name[:3].isdigit() and name[4:] == file_name(row["domain"] or "all")


def pack(tiles: list[Image.Image], rows: int) -> Image.Image:
    """Tiles from left to right in lines of WIDTH pixels with white gaps, at most `rows` lines."""
    from PIL import Image

    height = max((tile.height for tile in tiles), default=HEIGHT)
    places, x, line = [], 0, 0
    for tile in tiles:
        if x and x + tile.width > WIDTH:
            x, line = 0, line + 1
        if line == rows:
            break
        places.append((tile, x, line * (height + GAP)))
        x += tile.width + GAP
    lines = min(rows, line + 1)
    sheet = Image.new("RGB", (WIDTH, lines * (height + GAP) - GAP), "white")
    for tile, left, top in places:
        sheet.paste(tile, (left, top))
    return sheet
