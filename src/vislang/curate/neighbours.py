"""Neighbours: for each sample of a source the others whose captions (or pictures) say the same.

Language-guided pre-training, El Banani et al. 2023, arXiv:2302.12248, section 3: captions are
embedded by a frozen text tower, and the images of nearest captions become positive pairs.

m: samples with a usable embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.curate.columns import codes, joint_codes, read_column
from vislang.curate.duplicates import differing_bits, hash_source
from vislang.curate.rows import Rows, describe_source, embed_rows
from vislang.curate.search import search_groups
from vislang.data.pairs import TABLE, PairTable
from vislang.data.sample import Source
from vislang.devices import pick_device, pick_precision
from vislang.errors import UserError
from vislang.files import write_json

if TYPE_CHECKING:
    from vislang.models.dual import DualEncoder


@dataclass(frozen=True)
class Rules:
    """Which samples may be a pair, and how many are kept.

    Args:
        k: neighbours of a sample.
        threshold: least similarity (cosine).
        scope: columns in which both must agree, such as subreddit and year.
        apart: columns in which they must differ, such as author; an unknown value differs.
        columns: a table with further columns, joined by id.
        distinct_captions: leave out pairs with the same words (case and spaces aside).
        hash_bits: leave out pictures whose perceptual hashes differ in at most this many of 64
            bits; -1 does not look.
        image_cosine: leave out pictures that `image_model` embeds at least this alike; 0 does not
            look.
        image_model: MODEL that embeds pictures for that.
        mutual: keep a pair only if each is among the other's k.
    """

    k: int = 1
    threshold: float = -1.0
    scope: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    columns: str = ""
    distinct_captions: bool = False
    hash_bits: int = -1
    image_cosine: float = 0.0
    image_model: str = ""
    mutual: bool = False

    def __post_init__(self):
        if self.k < 1:
            raise UserError(f"k must be at least 1, got {self.k}.")
        if not -1 <= self.threshold <= 1:
            raise UserError(f"threshold is a cosine, from -1 to 1; got {self.threshold}.")
        if not -1 <= self.hash_bits < 64:
            raise UserError(f"hash_bits must be from 0 to 63, or -1; got {self.hash_bits}.")
        if bool(self.image_model) != bool(self.image_cosine):
            raise UserError("image_cosine and image_model go together: give both or neither.")


def find_neighbours(
    source: Source | str,
    model: DualEncoder | str,
    folder: Path | str,
    rules: Rules | None = None,
    *,
    by: str = "caption",
    captions: str = "first",
    index: str = "exact",
    recall: float = 0.99,
    source_options: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    device: str = "auto",
    precision: str = "auto",
    workers: int = 0,
    on_progress: Callable[[str, int, int], None] | None = None,
    **changes: Any,
) -> PairTable:
    """Write FOLDER/neighbours.parquet; calling it again goes on where it stopped.

    A sample is never its own neighbour, by its position and not by its caption. Exact search is
    exact whatever the precision: see vislang.curate.exact. Of equally similar samples the one
    that comes first in the source is the nearer.

    Args:
        source: a source, or a SOURCE of the commands (then the table can be opened by itself).
        model: a dual encoder, or a MODEL of the commands.
        folder: for embeddings, parts of the search, and the table with its manifest.json.
        rules: which pairs are allowed; `changes` are its fields, where it is not given.
        by: caption, image or features (of the image tower).
        captions: of several captions the first, or their mean.
        index: exact, or ivf or hnsw for tens of millions.
        recall: that an approximate index must reach on a sample; measured and noted.
        source_options: arguments of the source's layout, where `source` is text.
        batch_size: captions or images a forward pass.
        device, precision: where and how embedding and search compute.
        workers: loader processes for images.
        on_progress: called with (what, done, all).

    Raises:
        UserError: other settings than the folder was made with, an unknown column, or nothing
            left to pair.
    """
    from vislang.data.sources import as_source

    folder = Path(folder)
    rules = rules or Rules(**changes)
    spec = str(source) if isinstance(source, str | Path) else ""
    options = dict(source_options or {})
    opened = as_source(source, options)
    say = on_progress or (lambda what, done, total: None)
    how = {"batch_size": batch_size, "device": device, "precision": precision, "workers": workers}
    rows = embed_rows(
        opened, model, folder / "embeddings", by=by, captions=captions,
        on_progress=lambda done, total: say("samples embedded", done, total), **how,
    )  # fmt: skip
    rows, group = _scoped(rows, rules)
    tests = _tests(rows, opened, rules, folder, how)
    where = pick_device(device)
    settings = {
        "source": opened.fingerprint, "model": rows.model, "by": by, "captions": captions,
        "index": index, "recall": recall if index != "exact" else None,
        "rules": {**asdict(rules), "mutual": None},  # applied at the end
    }  # fmt: skip
    found, notes = search_groups(
        rows.x, group, rules.k, rules.threshold,
        lambda left, right: _all_allow(tests, left, right),
        folder / "search", settings, index, recall, str(where), pick_precision(precision, where),
        lambda done, total: say("rows searched", done, total),
    )  # fmt: skip
    row, column, similarity = found.pairs()
    about = {
        "source": describe_source(opened, spec, options),
        "settings": settings | {"rules": asdict(rules)},
        "index": notes,
    }
    table = PairTable.sorted(rows.at[row], rows.at[column], similarity, about)
    if rules.mutual:
        table = mutual_only(table)
    return _finished(table, rows, group, folder)


def _scoped(rows: Rows, rules: Rules) -> tuple[Rows, np.ndarray]:
    """Rows whose scope is known, and the number of each one's scope."""
    for name in rules.scope:
        values = read_column(name, rows.ids, rows.labels.tolist(), rules.columns)
        rows = rows.taken(np.array([v is not None for v in values], bool), f"no {name}")
    columns = [
        codes(read_column(name, rows.ids, rows.labels.tolist(), rules.columns))
        for name in rules.scope
    ]
    return rows, joint_codes(columns, len(rows.at))


# (rows, rows) -> which pairs are allowed, symmetric
Test = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _tests(
    rows: Rows, source: Source, rules: Rules, folder: Path, how: Mapping[str, Any]
) -> list[Test]:
    """What the rules ask beside scope and threshold, cheapest first."""
    tests: list[Test] = []
    if rules.distinct_captions:
        words = [None if text is None else " ".join(text.lower().split()) for text in rows.caption]
        tests.append(_differ(codes(words)))
    for name in rules.apart:
        values = read_column(name, rows.ids, rows.labels.tolist(), rules.columns)
        tests.append(_differ(codes(values)))
    if rules.hash_bits >= 0:
        hashes, there = (part[rows.at] for part in hash_source(source, folder / "hashes"))
        tests.append(
            lambda a, b: (
                ~(there[a] & there[b]) | (differing_bits(hashes[a], hashes[b]) > rules.hash_bits)
            )
        )
    if rules.image_model:
        seen = embed_rows(source, rules.image_model, folder / "images", by="image", **how)
        place = np.full(len(source), -1)
        place[seen.at] = np.arange(len(seen.at))
        place = place[rows.at]

        def unlike(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            left, right = place[a], place[b]
            cosine = np.einsum("nd,nd->n", seen.x[left], seen.x[right])
            return (left < 0) | (right < 0) | (cosine < rules.image_cosine)

        tests.append(unlike)
    return tests


def _differ(code: np.ndarray) -> Test:
    return lambda a, b: (code[a] != code[b]) | (code[a] < 0)


def _all_allow(tests: list[Test], left: np.ndarray, right: np.ndarray) -> np.ndarray:
    keep = np.ones(len(left), bool)
    for test in tests:
        open_ = np.flatnonzero(keep)
        keep[open_] = test(left[open_], right[open_])
    return keep


def mutual_only(table: PairTable) -> PairTable:
    """Pairs whose reverse is in the table too."""
    n = int(max(table.source.max(initial=0), table.target.max(initial=0))) + 1
    forth = table.source.astype(np.int64) * n + table.target
    back = table.target.astype(np.int64) * n + table.source
    return table.chosen(np.flatnonzero(np.isin(forth, back)))


def _finished(table: PairTable, rows: Rows, group: np.ndarray, folder: Path) -> PairTable:
    """Count, write the manifest and, last, the table."""
    _, size = np.unique(group, return_counts=True)
    paired = len(np.unique(table.source))
    alone = int((size == 1).sum())
    counts = {
        "samples": len(rows.at),
        "scopes": len(size),
        "pairs": len(table),
        "sources": paired,
        "targets": len(np.unique(table.target)),
    }
    dropped = dict(rows.dropped)
    if alone:
        dropped["alone in its scope"] = alone
    if len(rows.at) - paired - alone:
        dropped["no allowed neighbour at the threshold"] = len(rows.at) - paired - alone
    if not len(table):
        raise UserError(
            f"No pair is left of {len(rows.at):,} samples ({_listed(dropped) or 'no reason'})."
            " Lower the threshold, widen the scope, or look at the captions."
        )
    about = {**table.about, "counts": counts, "dropped": dropped}
    done = PairTable(table.source, table.target, table.similarity, table.rank, about)
    write_json(folder / "manifest.json", about)
    done.write(folder / TABLE)
    return done


def _listed(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {count:,}" for reason, count in dropped.items())
