"""The pair table: which samples of a source stand for each other, and how alike they are.

One Parquet file, sorted by (source, rank), whose schema carries what it was made from:

    source      int32    position in the source
    target      int32    position of a neighbour
    similarity  float32  cosine of the two
    rank        int16    0 for the nearest

n: samples of the source, p: pairs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.errors import UserError
from vislang.files import plain, whole_file

if TYPE_CHECKING:
    from jaxtyping import Float32, Int16, Int32

TABLE = "neighbours.parquet"
FORMAT = "vislang-pairs-1"
_NOTE = b"vislang"
COLUMNS = ("source", "target", "similarity", "rank")


@dataclass(frozen=True)
class PairTable:
    """Directed pairs, sorted by source and rank.

    Args:
        source: positions.
        target: positions of their neighbours.
        similarity: cosine.
        rank: 0 for the nearest; ranks may have gaps where pairs were taken out.
        about: what it was made from: `source` (spec, options, name, fingerprint, samples),
            `settings`, `counts`, `dropped`.
    """

    source: Int32[np.ndarray, " p"]
    target: Int32[np.ndarray, " p"]
    similarity: Float32[np.ndarray, " p"]
    rank: Int16[np.ndarray, " p"]
    about: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def sorted(cls, source, target, similarity, about: Mapping[str, Any]) -> PairTable:
        """A table of pairs in any order: by source, then similarity, then the lower target."""
        source, target = np.asarray(source, np.int32), np.asarray(target, np.int32)
        similarity = np.asarray(similarity)
        order = np.lexsort((target, -similarity, source))
        source, target, similarity = source[order], target[order], similarity[order]
        return cls(source, target, similarity.astype(np.float32), _ranks(source), about)

    def __len__(self) -> int:
        return len(self.source)

    def chosen(self, rows: np.ndarray) -> PairTable:
        """Some of the pairs, in the order of the table."""
        parts = (getattr(self, name)[rows] for name in COLUMNS)
        return PairTable(*parts, about=self.about)

    def write(self, path: Path | str) -> None:
        """Write the file, whole or absent."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        note = {"format": FORMAT, **plain(self.about)}
        table = pa.table({name: getattr(self, name) for name in COLUMNS})
        table = table.replace_schema_metadata({_NOTE: json.dumps(note, ensure_ascii=False)})
        with whole_file(path) as file:
            pq.write_table(table, file, compression="zstd")


def read_pairs(path: Path | str) -> PairTable:
    """Read a table, or the one in a folder that `vislang curate neighbours` made.

    Raises:
        UserError: it is not there, is torn, or is no such table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if path.is_dir():
        if not (path / TABLE).exists():
            unfinished = (path / "settings.json").exists()
            raise UserError(
                f"{path} has no {TABLE}, which `vislang curate neighbours` writes last."
                + (" It was interrupted: repeat the same command." if unfinished else "")
            )
        path = path / TABLE
    if not path.exists():
        raise UserError(f"There is no pair table {path}. `vislang curate neighbours` makes one.")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is no whole Parquet file ({error}). Make it again.") from error
    note = json.loads((table.schema.metadata or {}).get(_NOTE, b"{}"))
    missing = [name for name in COLUMNS if name not in table.column_names]
    if note.get("format") != FORMAT or missing:
        raise UserError(
            f"{path} is no pair table: its columns are {', '.join(table.column_names)}; needed are"
            f" {', '.join(COLUMNS)}, as `vislang curate neighbours` writes them."
        )
    kinds = (np.int32, np.int32, np.float32, np.int16)
    parts = [table[name].to_numpy().astype(kind) for name, kind in zip(COLUMNS, kinds)]
    return PairTable(*parts, about=note)


def is_pairs(path: Path) -> bool:
    """Whether a pair table, or a folder with one, lies there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = path / TABLE if path.is_dir() else path
    if path.suffix != ".parquet" or not path.is_file():
        return False
    try:
        return FORMAT.encode() in (pq.read_schema(path).metadata or {}).get(_NOTE, b"")
    except (pa.ArrowException, OSError):
        return False


def check_made_for(table: PairTable, source: Any, where: Path | str) -> None:
    """Refuse a table that was made for other samples or for another revision of them."""
    made = table.about.get("source", {})
    if made.get("fingerprint") == source.fingerprint:
        return
    raise UserError(
        f"The pair table {where} was made for another revision of its source: there"
        f" {made.get('name')!r} with {made.get('samples', 0):,} samples (fingerprint"
        f" {made.get('fingerprint')}), here {source.name!r} with {len(source):,}"
        f" ({source.fingerprint}). Positions would name other samples: run `vislang curate"
        " neighbours` again, or open the source with the options that the table was made with."
    )


def _ranks(source: np.ndarray) -> np.ndarray:
    """0, 1 ... within each run of equal values."""
    starts = np.flatnonzero(np.r_[True, source[1:] != source[:-1]]) if len(source) else []
    sizes = np.diff(np.r_[starts, len(source)]).astype(int)
    return (np.arange(len(source)) - np.repeat(starts, sizes)).astype(np.int16)
