"""A page with the collages of fetched domains and what became of their URLs."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path

from vislang.files import read_json, write_whole
from vislang.report.markup import foreign, join, tag
from vislang.report.page import _document, _entry, _section
from vislang.report.sections import Section
from vislang.report.tables import table


def write_collages(fetched: Path, collages: Mapping[str, Path], out: Path | str) -> Path:
    """Write one offline page.

    Args:
        fetched: folder of `vislang curate fetch`.
        collages: domain -> PNG.
        out: the file.
    """
    counts = read_json(fetched / "fetched.json")
    statuses = sorted(counts["status"], key=lambda status: -counts["status"][status])
    rows = [
        [foreign(name, 80), *(count.get(status, 0) for status in statuses)]
        for name, count in counts["domains"].items()
    ]
    ledger = table(["", *(foreign(s, 60) for s in statuses)], rows, "What became of the URLs")
    sections = [Section("ledger", "Fetched", ledger)]
    for number, (name, path) in enumerate(collages.items()):
        data = base64.b64encode(_smaller(path)).decode()
        image = tag(
            "img", src=f"data:image/jpeg;base64,{data}", alt=f"random pictures of {name}",
            loading="lazy", style="max-width:100%",
        )  # fmt: skip
        sections.append(Section(f"domain-{number}", foreign(name, 80), join([image])))
    body, entries = [_section(s) for s in sections], [_entry(s) for s in sections]
    out = Path(out)
    write_whole(out, _document("Fetched pictures", [], body, entries))
    return out


def _smaller(path: Path) -> bytes:
    """The PNG as a JPEG: a page of eighteen domains has 6 MB instead of 60."""
    from PIL import Image

    out = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(out, "JPEG", quality=80)
    return out.getvalue()
