"""Fetched pictures to one table for training: every picture decoded, copies out, captions clean.

OUT/pictures.parquet    a row a picture: id, captions, image (and its place in a tar), width,
                        height, sha256, phash, split, and what else the fetched table knows
OUT/rejected.parquet    a row for everything left out: id, reason, detail, the picture it repeats
OUT/validated.json      counts; written last
OUT/checked/            units of work; a repeated command does only what is new
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.curate.checked import check_unit, write_table
from vislang.curate.copies import near_copies
from vislang.curate.fetch.written import DONE as FETCHED
from vislang.curate.splits import split_of
from vislang.errors import UserError
from vislang.files import read_json, run_units, sha256_file, write_json

if TYPE_CHECKING:
    import pyarrow as pa

TABLE, REJECTED, DONE = "pictures.parquet", "rejected.parquet", "validated.json"
SPLIT_BY = ("sha256", "id")
_FIRST = ("id", "image", "image_offset", "image_size", "captions", "width", "height",
          "original_width", "original_height", "sha256", "phash", "split", "domain",
          "url")  # fmt: skip
_LEFT = ("key", "status", "detail", "hops", "bytes", "caption", "frames", "reason", "unit")


@dataclass(frozen=True)
class Validation:
    """What a picture must be.

    Args:
        min_side: pixels of the shorter side of what was fetched, before it was scaled.
        max_caption: characters; a longer caption is cut before a word.
        captions: whether a picture needs one.
        hash_bits: pictures whose perceptual hashes differ in at most this many of 64 bits are
            copies; -1 does not look.
        shares: split -> share of the pictures.
        split_by: whose hash decides the split: sha256 (of what came) or id.
    """

    min_side: int = 112
    max_caption: int = 1000
    captions: bool = True
    hash_bits: int = 4
    shares: Mapping[str, float] = field(
        default_factory=lambda: {"train": 0.98, "valid": 0.01, "test": 0.01}
    )
    split_by: str = "sha256"


def validate_pictures(
    pictures: Path | str,
    out: Path | str,
    how: Validation | None = None,
    *,
    engine: str = "serial",
    workers: int | None = None,
    on_done: Callable[[str, Mapping[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Write OUT/pictures.parquet; opens as a source: open_source("table:OUT/pictures.parquet").

    Args:
        pictures: folder of `vislang curate fetch`.
        out: folder; the table names pictures relative to it, so both are moved together.
        how: what a picture must be.
        engine: serial, processes or ray.
        workers: processes.
        on_done: called after each unit.

    Returns:
        Counts, as in OUT/validated.json.
    """
    pictures, out, how = Path(pictures), Path(out), how or Validation()
    _check(pictures, how)
    units = {_name(path): path for path in sorted((pictures / "ledger").glob("*.parquet"))}
    settings = {"max_caption": how.max_caption, "pictures": os.path.relpath(pictures, out)}
    work = partial(
        check_unit, str(pictures), {k: str(v) for k, v in units.items()}, how.max_caption
    )
    notes = run_units(out / "checked", list(units), work, settings, engine, workers, on_done)
    table = _read([out / "checked" / f"{unit}.parquet" for unit in units])
    kept, rejected = _decide(table, how)
    write_table(out / TABLE, _placed(kept, os.path.relpath(pictures, out), how))
    write_table(out / REJECTED, rejected)
    cleaned = sum((Counter(note["captions"]) for note in notes.values()), Counter())
    fetched = read_json(pictures / FETCHED)
    counts = {
        "fetched": fetched["status"].get("ok", 0),
        "not_fetched": {k: v for k, v in fetched["status"].items() if k != "ok"},
        "kept": kept.num_rows,
        "rejected": dict(Counter(rejected["reason"].to_pylist())),
        "captions": {"kept": _captions_of(kept), **cleaned},
        "splits": dict(Counter(_splits(kept, how))),
        "settings": asdict(how),
    }
    write_json(out / DONE, counts)
    return counts


def _check(pictures: Path, how: Validation) -> None:
    if not (pictures / FETCHED).exists():
        raise UserError(
            f"{pictures} holds no fetched pictures, or fetching is not finished (there is no"
            f" {FETCHED}). `vislang curate fetch` makes them; repeat it to finish."
        )
    if how.split_by not in SPLIT_BY:
        raise UserError(f"split_by must be one of {', '.join(SPLIT_BY)}, got {how.split_by!r}.")
    total = sum(how.shares.values())
    if not how.shares or min(how.shares.values()) < 0 or abs(total - 1) > 1e-6:
        raise UserError(f"shares must add up to 1, got {dict(how.shares)}: {total:g}.")
    for name, least in (("min_side", 1), ("max_caption", 1), ("hash_bits", -1)):
        if getattr(how, name) < least:
            raise UserError(f"{name} must be at least {least}, got {getattr(how, name)}.")


def _name(ledger: Path) -> str:
    """A unit's name changes when its ledger does, so what was asked again is checked again."""
    return f"{ledger.stem}-{sha256_file(ledger)[:8]}"


def _decide(table: pa.Table, how: Validation) -> tuple[pa.Table, pa.Table]:
    """(rows that are kept, with the captions of their exact copies; rows that are not)."""
    import pyarrow as pa

    n = table.num_rows
    ids = _ids(table)
    table = _with(table, "id", pa.array(ids, pa.string()))
    reason = np.array(table["reason"].to_pylist(), object)
    more = np.array(table["more"].to_pylist(), object)
    copy_of = np.full(n, -1, np.int64)
    sides = [_side(row) for row in table.select(_SIDES).to_pylist()]
    for at in range(n):
        if reason[at] is None and sides[at] < how.min_side:
            reason[at], more[at] = "too small", f"shorter side {sides[at]}"
    at = np.flatnonzero(reason == None)  # noqa: E711  element by element
    same = _same_bytes([table["sha256"][int(i)].as_py() for i in at])
    _note(reason, copy_of, at, same, "same bytes")
    at = np.flatnonzero(reason == None)  # noqa: E711
    hashes = np.array([table["phash"][int(i)].as_py() for i in at], np.uint64)
    _note(reason, copy_of, at, near_copies(hashes, how.hash_bits), "near copy")
    table = _joined(table, reason, copy_of)
    if how.captions:
        empty = [not texts for texts in table["captions"].to_pylist()]
        reason[(reason == None) & np.array(empty, bool)] = "no caption"  # noqa: E711
    kept = table.filter(pa.array([r is None for r in reason], pa.bool_()))
    out = np.flatnonzero(reason != None)  # noqa: E711
    rejected = pa.table({
        "id": pa.array([ids[i] for i in out], pa.string()),
        "reason": pa.array(list(reason[out]), pa.string()),
        "detail": pa.array(list(more[out]), pa.string()),
        "copy_of": pa.array([ids[copy_of[i]] if copy_of[i] >= 0 else None for i in out],
                            pa.string()),
        "url": table["url"].take(pa.array(out)),
    })  # fmt: skip
    return kept, rejected


_SIDES = ["original_width", "original_height", "width", "height"]


def _side(row: Mapping[str, Any]) -> int:
    """The shorter side as it was fetched."""
    return min(
        row["original_width"] or row["width"] or 0, row["original_height"] or row["height"] or 0
    )


def _same_bytes(hashes: Sequence[str | None]) -> np.ndarray:
    first: dict[str, int] = {}
    return np.array([
        -1 if value is None or first.setdefault(value, at) == at else first[value]
        for at, value in enumerate(hashes)
    ], np.int64).reshape(-1)  # fmt: skip


def _note(
    reason: np.ndarray, copy_of: np.ndarray, at: np.ndarray, of: np.ndarray, why: str
) -> None:
    reason[at[of >= 0]] = why
    copy_of[at[of >= 0]] = at[of[of >= 0]]


def _joined(table: pa.Table, reason: np.ndarray, copy_of: np.ndarray) -> pa.Table:
    """The first of pictures with the same bytes gets the captions and other lists of all."""
    import pyarrow as pa

    copies = [(int(copy_of[at]), int(at)) for at in np.flatnonzero(reason == "same bytes")]
    if not copies:
        return table
    for name in table.column_names:
        kind = table.schema.field(name).type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            values = table[name].to_pylist()
            for first, at in copies:
                values[first] = list(dict.fromkeys([*(values[first] or ()), *(values[at] or ())]))
            table = _with(table, name, pa.array(values, kind))
    return table


def _ids(table: pa.Table) -> list[str]:
    """The given ids; where there is none the place, and what is not unique gets a number."""
    seen: Counter[str] = Counter()
    ids = []
    for given, unit, key in zip(*(table[name].to_pylist() for name in ("id", "unit", "key"))):
        name = given or f"{unit}/{key}"
        seen[name] += 1
        ids.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return ids


def _splits(table: pa.Table, how: Validation) -> list[str]:
    keys = zip(table[how.split_by].to_pylist(), table["id"].to_pylist())
    return [split_of(key or id_, how.shares) for key, id_ in keys]


def _placed(kept: pa.Table, pictures: str, how: Validation) -> pa.Table:
    """The final columns, the usual ones first; empty ones and those of our work left out."""
    import pyarrow as pa

    image = [f"{Path(pictures).as_posix()}/{name}" for name in kept["image"].to_pylist()]
    kept = _with(kept, "image", pa.array(image, pa.string()))
    kept = _with(kept, "split", pa.array(_splits(kept, how), pa.string()))
    names = [*_FIRST, *(name for name in kept.column_names if name not in _FIRST)]
    left = {*_LEFT, "more"}
    if kept["image_offset"].null_count == kept.num_rows and kept.num_rows:
        left |= {"image_offset", "image_size"}
    return kept.select([name for name in names if name not in left])


def _captions_of(kept: pa.Table) -> int:
    return sum(len(texts or ()) for texts in kept["captions"].to_pylist())


def _with(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, values)
    return table.append_column(name, values)


def _read(paths: Sequence[Path]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not paths:
        raise UserError("There are no fetched pictures to validate: the ledger has no units.")
    return pa.concat_tables([pq.read_table(p) for p in paths], promote_options="permissive")
