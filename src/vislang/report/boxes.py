"""A page about phrase grounding: the numbers, and the best, the worst and random phrases drawn."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vislang.files import write_whole
from vislang.report.markup import Html, clip, foreign, join, tag
from vislang.report.page import _document, _entry, _section
from vislang.report.pictures import data_address
from vislang.report.sections import Section
from vislang.report.tables import facts, metrics, named_tables, plain_text
from vislang.report.values import read_values

SHOWN, SIDE = 8, 360
Draw = Callable[[Mapping[str, Any]], "Any | None"]


def write_boxes(
    scores: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    draw: Draw,
    out: Path | str,
    shown: int = SHOWN,
    seed: int = 0,
) -> Path:
    """Write one offline page about grounded phrases.

    Args:
        scores: the body of a scores file of `grounding`.
        records: one a phrase.
        draw: a record -> a Pillow image with its boxes, or None where there is no picture.
        out: the file.
        shown: phrases of each kind in the gallery.
        seed: of the random ones.
    """
    sections = [
        Section("numbers", "How often the box is right", _numbers(scores)),
        Section(
            "gallery",
            "Best, worst and random phrases",
            _gallery(scores, records, draw, shown, seed),
        ),
        Section("made", "How this was made", _made(scores)),
    ]
    body, entries = [_section(s) for s in sections], [_entry(s) for s in sections]
    source = str(scores.get("provenance", {}).get("source") or "phrases")
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
            " random: uniform corners. Pointing: the heat-map's peak, or the box's centre, lies in"
            " a true box.", class_="note"),
    ]  # fmt: skip
    own = {k: v for k, v in values.items() if not k.startswith(("centre_", "random_"))}
    rest = {k: v for k, v in values.items() if k not in own}
    parts += [metrics(own, "this localizer"), metrics(rest, "baselines")]
    parts += named_tables(scores.get("tables", {}))
    parts += [tag("p", foreign(note, 300), class_="note") for note in scores.get("notes", [])]
    return join(parts)


def _gallery(
    scores: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    draw: Draw,
    shown: int,
    seed: int,
) -> Html:
    overlap = (scores.get("per_sample") or {}).get("iou") or {"ids": [], "values": []}
    iou = dict(zip(overlap["ids"], overlap["values"]))
    usable = [r for r in records if not r.get("reason")]
    order = sorted(usable, key=lambda r: -float(iou.get(r["id"]) or 0))
    drawn = random.Random(seed).sample(usable, min(shown, len(usable)))
    parts = [tag("p", "Found: red. True: blue. Brighter: the heat-map.", class_="note")]
    for title, some in (
        ("Best", order[:shown]), ("Worst", order[::-1][:shown]), ("Random", drawn),
    ):  # fmt: skip
        cards = [_card(record, iou.get(record["id"]), draw) for record in some]
        parts.append(tag("h3", title))
        parts.append(tag("div", cards or tag("p", "There is none."), class_="curves"))
    return join(parts)


def _card(record: Mapping[str, Any], iou: float | None, draw: Draw) -> Html:
    try:
        image = draw(record)
    except Exception as error:  # the page is made all the same
        return tag("p", foreign(clip(str(error), 200)), class_="missing")
    shown = tag("span", "no picture", class_="missing")
    if image is not None:
        image.thumbnail((SIDE, SIDE))
        shown = tag(
            "img", src=data_address(image), width=image.width, height=image.height,
            alt=f"boxes for {clip(str(record['text']), 80)}",
        )  # fmt: skip
    told = f"overlap {iou:.2f}" if iou is not None and np.isfinite(iou) else "no overlap"
    return tag(
        "figure",
        shown,
        tag("figcaption", tag("span", foreign(record["text"], 120)), tag("small", told)),
    )


def _made(scores: Mapping[str, Any]) -> Html:
    about = scores.get("provenance", {})
    rows = [
        (key, foreign(plain_text(about[key]), 600))
        for key in ("model", "source", "settings", "versions")
        if about.get(key)
    ]
    return facts(rows)
