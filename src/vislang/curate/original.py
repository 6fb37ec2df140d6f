"""Pair files of the released language-guided code: [[folder, id], [folder, id], similarity].

That code (April 2023) writes one entry a caption, and reads an optional fourth field, a ratio.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from vislang.curate.rows import describe_source
from vislang.data.pairs import PairTable, check_made_for
from vislang.data.sample import BadSample, Source
from vislang.errors import UserError
from vislang.files import read_json, write_whole


def write_original(table: PairTable, source: Source, path: Path | str) -> None:
    """Write the nearest neighbour of each sample as the original does, in the source's order.

    Args:
        table: pairs; only those of rank 0 are written, as the format holds one neighbour a sample.
        source: gives the ids; 'folder/name' becomes [folder, name].
        path: the JSON file.
    """
    check_made_for(table, source, "given")
    best = table.rank == 0
    entries = [
        [_key(source, int(s)), _key(source, int(t)), float(value)]
        for s, t, value in zip(table.source[best], table.target[best], table.similarity[best])
    ]
    write_whole(path, json.dumps(entries, ensure_ascii=False))


def _key(source: Source, index: int) -> list[str]:
    folder, _, name = source[index].id.rpartition("/")
    return [folder.rpartition("/")[2], name]


def read_original(
    path: Path | str, source: Source, spec: str = "", options: dict[str, Any] | None = None
) -> PairTable:
    """Read the original's file as a table over `source`.

    Entries whose samples are not in the source are counted under `dropped`.

    Raises:
        UserError: the file has another form, or none of its samples is in the source.
    """
    place: dict[tuple[str, str], int] = {}
    for index in range(len(source)):
        try:
            folder, name = _key(source, index)
        except BadSample:
            continue
        place[folder, name] = index
    entries = read_json(path)
    rows, missing = [], 0
    for number, entry in enumerate(entries if isinstance(entries, list) else [None]):
        left, right, similarity = _entry(entry, path, number)
        s, t = place.get(left), place.get(right)
        if s is None or t is None:
            missing += 1
        else:
            rows.append((s, t, similarity))
    if not rows:
        raise UserError(
            f"{path} names no sample of the source {source.name!r}: of its {len(entries):,} entries"
            " none is there. Give the source whose folders and ids the file was made from."
        )
    source_index, target, similarity = (np.array(column) for column in zip(*rows))
    about = {
        "source": describe_source(source, spec, options or {}),
        "settings": {"file": Path(path).name},
        "counts": {"pairs": len(rows)},
        "dropped": {"not in the source": missing} if missing else {},
    }
    return PairTable.sorted(source_index, target, similarity, about)


def _entry(entry: Any, path: Path | str, number: int):
    try:
        (a, b), (c, d), similarity = entry[:3]
        return (str(a), str(b)), (str(c), str(d)), float(similarity)
    except (TypeError, ValueError, IndexError) as error:
        raise UserError(
            f"{path}: entry {number} is not [[folder, id], [folder, id], similarity] but"
            f" {str(entry)[:80]!r}."
        ) from error
