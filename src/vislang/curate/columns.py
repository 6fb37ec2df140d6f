"""What is known of each sample beside picture and caption, as codes that can be compared.

n: samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vislang.errors import UserError
from vislang.lookup import nearest

if TYPE_CHECKING:
    from jaxtyping import Int64

# Fields of a RedCaps folder, <subreddit>_<year>_<number>, by position.
FIELDS = {"subreddit": 0, "year": 1}
FROM_ID = (*FIELDS, "folder", "label")


def read_column(
    name: str, ids: Sequence[str], labels: Sequence[int], table: Path | str = ""
) -> list[str | None]:
    """The value of a column for each sample; None where it is not known.

    Args:
        name: `folder` (of the id), `subreddit` or `year` (fields of a RedCaps folder's name,
            <subreddit>_<year>_<number>), `label`, or a column of `table`.
        ids: of the samples.
        labels: -1 for none.
        table: CSV, TSV or Parquet with further columns; its rows are found by the column `id`, or
            by its first column.
    """
    if table:
        known = _columns_of(table)
        if name in known[1:]:
            return _from_table(table, name, ids)
        if name not in FROM_ID:
            raise UserError(
                f"{table} has no column {name!r}.{nearest(name, known)}"
                f" Known: {', '.join((*known[1:], *FROM_ID))}."
            )
    if name == "label":
        return [str(label) if label >= 0 else None for label in labels]
    if name not in FROM_ID:
        raise UserError(
            f"No column is called {name!r}.{nearest(name, FROM_ID)} Known without a table of"
            f" columns: {', '.join(FROM_ID)}. Others: give `columns`, a table with ids."
        )
    folders = [id_.rpartition("/")[0] for id_ in ids]
    if name == "folder":
        return list(folders)
    return [_field(folder, name) for folder in folders]


def _field(folder: str, name: str) -> str | None:
    """
    >>> _field("train/crochet_2017_000001", "year")
    '2017'
    """
    parts = folder.rpartition("/")[2].split("_")
    return parts[FIELDS[name]] if len(parts) > 2 and parts[1].isdigit() else None


def codes(values: Sequence[str | None]) -> Int64[np.ndarray, " n"]:
    """Equal values as equal numbers, None as -1.

    >>> codes(["a", None, "b", "a"]).tolist()
    [0, -1, 1, 0]
    """
    known: dict[str, int] = {}
    found = (-1 if value is None else known.setdefault(value, len(known)) for value in values)
    return np.fromiter(found, np.int64, len(values))


def joint_codes(columns: Sequence[np.ndarray], n: int) -> Int64[np.ndarray, " n"]:
    """Samples that agree in all columns as equal numbers; -1 where any is not known."""
    if not columns:
        return np.zeros(n, np.int64)
    table = np.stack(columns, axis=1)
    _, joint = np.unique(table, axis=0, return_inverse=True)
    return np.where((table < 0).any(1), -1, joint.ravel())


def _columns_of(table: Path | str) -> list[str]:
    """Names, that of the ids first."""
    from vislang.data.tables import open_table

    names = open_table(str(table), "", (), "utf8").columns
    return sorted(names, key=lambda name: name != "id")


def _from_table(table: Path | str, name: str, ids: Sequence[str]) -> list[str | None]:
    from vislang.data.tables import open_table

    key = _columns_of(table)[0]
    rows = open_table(str(table), "", (), "utf8").read([key, name])
    keys, values = (
        [None if v is None else str(v) for v in rows[column].to_pylist()] for column in (key, name)
    )
    found = dict(zip(keys, values))
    if not any(id_ in found for id_ in ids):
        raise UserError(
            f"{table}: none of its {len(found):,} values of {key!r} is the id of a sample"
            f" (an id: {ids[0] if len(ids) else ''!r}; a value: {keys[0] if keys else ''!r})."
        )
    return [found.get(id_) or None for id_ in ids]
