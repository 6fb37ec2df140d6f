"""A page with the collages of fetched domains and what became of their URLs."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path

from vislang.files import read_json
from vislang.report.markup import Html, foreign, tag
from vislang.report.page import write_sections
from vislang.report.sections import Section
from vislang.report.tables import table


def write_collages(fetched: Path, collages: Mapping[str, Path], out: Path | str) -> Path:
    """Write one offline page.

    Args:
        fetched: folder of `vislang curate fetch`.
        collages: domain -> PNG.
        out: the file.
    """
    pictures = [
        Section(f"domain-{number}", foreign(name, 80), image)
        for number, (name, image) in enumerate(collage_images(collages).items())
    ]
    ledger = Section("ledger", "Fetched", ledger_table(fetched))
    return write_sections("Fetched pictures", [ledger, *pictures], out)


def ledger_table(fetched: Path) -> Html:
    """What became of the URLs of each domain."""
    counts = read_json(fetched / "fetched.json")
    statuses = sorted(counts["status"], key=lambda status: -counts["status"][status])
    rows = [
        [foreign(name, 80), *(count.get(status, 0) for status in statuses)]
        for name, count in counts["domains"].items()
    ]
    return table(["", *(foreign(s, 60) for s in statuses)], rows, "What became of the URLs")


def collage_images(collages: Mapping[str, Path]) -> dict[str, Html]:
    """Domain -> its collage, within the page."""
    found = {}
    for name, path in collages.items():
        data = base64.b64encode(_smaller(path)).decode()
        found[name] = tag(
            "img", src=f"data:image/jpeg;base64,{data}", alt=f"random pictures of {name}",
            loading="lazy", style="max-width:100%",
        )  # fmt: skip
    return found


def _smaller(path: Path) -> bytes:
    """The PNG as a JPEG: a page of eighteen domains has 6 MB instead of 60."""
    from PIL import Image

    out = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(out, "JPEG", quality=80)
    return out.getvalue()
