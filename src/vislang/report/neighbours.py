"""A page of random pairs, so that a person can judge from which similarity on they are good."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.files import write_whole
from vislang.report.markup import Html, clip, foreign, join, tag
from vislang.report.page import _document, _entry, _section
from vislang.report.pictures import KEPT_SIDE, Pictures, to_picture
from vislang.report.sections import Section
from vislang.report.tables import facts, plain_text, table

if TYPE_CHECKING:
    from vislang.data.pairs import PairTable
    from vislang.data.sample import Sample, Source

BANDS = 4  # quarters of the pairs by similarity, each shown by itself
THRESHOLDS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def write_neighbours(
    source: Source, pairs: PairTable, out: Path | str, shown: int = 24, seed: int = 0
) -> Path:
    """Write one offline page about a pair table.

    Args:
        source: the samples.
        pairs: the table.
        out: the file.
        shown: how many random pairs, spread evenly over quarters by similarity.
        seed: of the draw.
    """
    sections = [
        Section("summary", "Summary", _summary(pairs)),
        Section("thresholds", "What a threshold keeps", _thresholds(pairs)),
        Section("pairs", "Random pairs", _bands(source, pairs, shown, seed)),
    ]
    name = str(pairs.about.get("source", {}).get("name") or source.name)
    body, entries = [_section(s) for s in sections], [_entry(s) for s in sections]
    out = Path(out)
    write_whole(out, _document(f"Neighbours in {name}", [], body, entries))
    return out


def _summary(pairs: PairTable) -> Html:
    about = pairs.about
    rows: list[tuple[str, Any]] = []
    for part in ("source", "counts", "dropped"):
        for key, value in about.get(part, {}).items():
            if part == "counts" and key == "samples":
                key = "samples with an embedding"
            shown = f"{value:,}" if isinstance(value, int) else plain_text(value)
            rows.append((f"{'left out: ' if part == 'dropped' else ''}{key}", foreign(shown, 200)))
    given = about.get("settings", {})
    rules: Mapping[str, Any] = given.get("rules") or {}
    given = {k: v for k, v in given.items() if k not in ("rules", "source")} | dict(rules)
    rows += [(k, foreign(plain_text(v), 200)) for k, v in given.items() if v and v != -1]
    return facts(rows)


def _thresholds(pairs: PairTable) -> Html:
    """How many pairs, and samples with a pair, are left at each threshold."""
    rows = []
    for threshold in THRESHOLDS:
        keep = pairs.similarity >= threshold
        count = int(keep.sum())
        share = count / max(1, len(pairs))
        sources = len(np.unique(pairs.source[keep]))
        rows.append([threshold, f"{count:,}", f"{share:.1%}", f"{sources:,}"])
    return table(
        ["similarity at least", "pairs", "share", "samples with a pair"],
        rows,
        "Pairs that are left at a threshold",
    )


def _bands(source: Source, pairs: PairTable, shown: int, seed: int) -> Html:
    """Random pairs, by quarters of the similarity, the least similar first."""
    rng = np.random.default_rng(seed)
    order = np.argsort(pairs.similarity, kind="stable")
    parts = []
    for number, band in enumerate(np.array_split(order, min(BANDS, len(order)))):
        count = min(len(band), -(-shown // BANDS))
        rows = np.sort(rng.choice(len(band), count, replace=False))
        low, high = pairs.similarity[band[0]], pairs.similarity[band[-1]]
        title = f"Quarter {number + 1}: similarity {low:.3f} to {high:.3f}"
        shown_rows = [_row(source, pairs, int(row)) for row in band[rows]]
        columns = ["similarity", "sample", "its captions", "neighbour", "its captions"]
        parts += [tag("h3", title), table(columns, shown_rows, "Random pairs of this quarter")]
    return join(parts)


def _row(source: Source, pairs: PairTable, row: int) -> list[Any]:
    similarity, rank = float(pairs.similarity[row]), int(pairs.rank[row]) + 1
    head = f"{similarity:.3f}" + (f" (nearest but {rank - 1})" if rank > 1 else "")
    cells: list[Any] = [tag("strong", head)]
    for column in (pairs.source, pairs.target):
        cells += _side(source, int(column[row]))
    return cells


def _side(source: Source, index: int) -> list[Html]:
    """A sample's picture and its captions; what ails it, where it has none."""
    try:
        sample = source[index]
    except Exception as error:  # the page is made all the same
        return [tag("span", foreign(clip(str(error), 200)), class_="missing"), Html("")]
    pictures = Pictures({}, [])
    image = _picture(sample)
    if image is not None:
        pictures.images[sample.id] = image
    texts = [tag("p", foreign(text, 300)) for text in _first(sample.texts, 2)]
    return [pictures.show(sample.id, "example"), join(texts)]


def _picture(sample: Sample):
    try:
        image = to_picture(sample.image)
    except Exception:  # a bad sample has no picture
        return None
    if image is not None:
        image.thumbnail((KEPT_SIDE, KEPT_SIDE))
    return image


def _first(texts: Sequence[str], most: int) -> Iterable[str]:
    yield from texts[:most]
    if len(texts) > most:
        yield f"... and {len(texts) - most} more captions"
