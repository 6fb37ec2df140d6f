"""A page about phrase grounding: the numbers, and the best, the worst and random phrases drawn."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vislang.files import write_json, write_whole
from vislang.report.gallery import Draw, Group, drawn_group, gallery
from vislang.report.markup import Html, clip, foreign, join, tag
from vislang.report.page import _document, _entry, _section
from vislang.report.sections import Section
from vislang.report.tables import facts, metrics, named_tables, plain_text
from vislang.report.values import read_values

SHOWN = 8


def write_boxes(
    scores: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    draw: Draw,
    out: Path | str,
    shown: int = SHOWN,
    seed: int = 0,
    more: Sequence[Group] = (),
) -> Path:
    """Write one offline page about grounded phrases, and its pictures as gallery.json beside it.

    Args:
        scores: the body of a scores file of `grounding`.
        records: one a phrase.
        draw: a record -> a Pillow image with its boxes, or None where there is no picture.
        out: the file.
        shown: phrases of each kind in the gallery.
        seed: of the random ones.
        more: further rows of pictures.
    """
    groups = [*_groups(scores, records, draw, shown, seed), *more]
    write_json(Path(out).with_name("gallery.json"), groups)
    sections = [
        Section("numbers", "How often the box is right", _numbers(scores)),
        Section(
            "gallery",
            "Best, worst and random phrases",
            gallery(groups),
        ),
        Section("made", "How this was made", _made(scores)),
    ]
    body, entries = [_section(s) for s in sections], [_entry(s) for s in sections]
    source = Path(str(scores.get("provenance", {}).get("source") or "phrases")).name
    write_whole(out, _document(f"Grounding: {clip(source, 80)}", [], body, entries))
    return Path(out)


def write_numbers(scores: Mapping[str, Any], out: Path | str, title: str) -> Path:
    """Write one offline page of values and tables alone.

    Args:
        scores: the body of a scores file.
        out: the file.
        title: of the page.
    """
    tables = named_tables(scores.get("tables", {}))
    notes = [tag("p", foreign(note, 300), class_="note") for note in scores.get("notes", [])]
    values = metrics(read_values(scores.get("values", {})), "this localizer")
    sections = [
        Section("tables", "In a table", join([*tables, *notes])),
        Section("numbers", "Every number with its interval", values),
        Section("made", "How this was made", _made(scores)),
    ]
    body, entries = [_section(s) for s in sections], [_entry(s) for s in sections]
    source = Path(str(scores.get("provenance", {}).get("source") or "")).name
    write_whole(out, _document(f"{title}: {clip(source, 80)}", [], body, entries))
    return Path(out)


def _numbers(scores: Mapping[str, Any]) -> Html:
    values = read_values(scores.get("values", {}))
    parts = [
        tag("p", "A box is right where it overlaps the true one by more than the threshold"
            " (“inclusive”: at it, too). centre: a box in the middle with half of the area."
            " random: uniform corners. over_centre: the difference from the box in the middle on"
            " the same phrases. Pointing: the heat-map's peak, or the box's centre, lies in a true"
            " box.", class_="note"),
    ]  # fmt: skip
    if pictures := max((v.n or 0 for v in values.values()), default=0):
        told = f"{scores.get('n', 0):,} phrases; intervals are over the {pictures:,} pictures (n)."
        parts.append(tag("p", told))
    own = {k: v for k, v in values.items() if not k.startswith(("centre_", "random_"))}
    rest = {k: v for k, v in values.items() if k not in own}
    parts += [metrics(own, "this localizer"), metrics(rest, "baselines")]
    parts += named_tables(scores.get("tables", {}))
    parts += [tag("p", foreign(note, 300), class_="note") for note in scores.get("notes", [])]
    return join(parts)


def _groups(
    scores: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    draw: Draw,
    shown: int,
    seed: int,
) -> list[Group]:
    overlap = (scores.get("per_sample") or {}).get("iou") or {"ids": [], "values": []}
    iou = dict(zip(overlap["ids"], overlap["values"]))
    usable = [r for r in records if not r.get("reason")]
    order = sorted(usable, key=lambda r: -float(iou.get(r["id"]) or 0))
    drawn = random.Random(seed).sample(usable, min(shown, len(usable)))

    def told(record: Mapping[str, Any]) -> str:
        found = iou.get(record["id"])
        return "no overlap" if found is None or not np.isfinite(found) else f"overlap {found:.2f}"

    return [
        drawn_group(title, some, told, draw)
        for title, some in (
            ("Best", order[:shown]), ("Worst", order[::-1][:shown]), ("Random", drawn),
        )
    ]  # fmt: skip


def _made(scores: Mapping[str, Any]) -> Html:
    about = scores.get("provenance", {})
    rows = [
        (key, foreign(plain_text(about[key]), 600))
        for key in ("model", "source", "settings", "versions")
        if about.get(key)
    ]
    return facts(rows)
