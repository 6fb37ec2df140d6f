"""Writing a store part by part; the manifest comes last and makes it whole."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.errors import UserError
from vislang.files import plain, sha256_file, whole_file, write_json

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "vislang store 1"
MANIFEST = "manifest.json"
# What a part may hold: name -> the folder and stem of its files.
ARRAYS = {"image": "img_emb", "text": "text_emb", "features": "feat_emb"}
TABLES = {"metadata": "metadata", "text_metadata": "text_metadata"}


class StoreWriter:
    """Writes parts, in any order and from any process; `finish` writes the manifest.

    Args:
        folder: the store.
        dtype: float32 or float16, of the embeddings on disk.
    """

    def __init__(self, folder: Path | str, dtype: str = "float32"):
        if dtype not in ("float32", "float16"):
            raise UserError(f"The dtype of a store must be float32 or float16, got {dtype!r}.")
        self.folder, self.dtype = Path(folder), np.dtype(dtype)

    def write_part(
        self,
        part: str,
        metadata: Mapping[str, Any],
        text_metadata: Mapping[str, Any] | None = None,
        **arrays: np.ndarray | None,
    ) -> dict[str, Any]:
        """Write the files of one part, each whole or absent, and return its note.

        Args:
            part: its number as text, "0000".
            metadata: columns, one row an image, or one a sample when there are no images.
            text_metadata: columns, one row a text, with `image_row` counted within this part.
            arrays: `image` [n, D], `text` [m, D], `features` [n, F]; None leaves one out.

        Raises:
            UserError: an embedding is not finite, or the rows do not join.
        """
        given = {name: rows for name, rows in arrays.items() if rows is not None}
        tables = {"metadata": _table(metadata)}
        if text_metadata is not None:
            tables["text_metadata"] = _table(text_metadata)
        _check_part(part, given, tables)
        files: dict[str, dict[str, Any]] = {}
        for name, rows in given.items():
            path = self._path(ARRAYS[name], part, ".npy")
            with whole_file(path) as file:
                np.save(file, _as_stored(rows, self.dtype, path), allow_pickle=False)
            files[name] = self._note(path, len(rows))
        for name, table in tables.items():
            path = self._path(TABLES[name], part, ".parquet")
            _write_table(path, table)
            files[name] = self._note(path, table.num_rows)
        return {"part": part, "files": files}

    def finish(
        self,
        notes: Sequence[Mapping[str, Any]],
        settings: Mapping[str, Any],
        rejected: Sequence[Sequence[str]] = (),
    ) -> None:
        """Make the store whole: rejected.parquet, then the manifest.

        Args:
            notes: what `write_part` returned, in the order in which the parts join.
            settings: what the embeddings depend on (model, source, precision ...).
            rejected: (id, reason, origin) of samples that could not be used.
        """
        names = ("id", "reason", "origin")
        columns = {name: [row[place] for row in rejected] for place, name in enumerate(names)}
        path = self.folder / "rejected.parquet"
        _write_table(path, _table(columns))
        for left in self.folder.rglob(".*.tmp"):  # of writers that were killed; all are done now
            with contextlib.suppress(OSError):
                left.unlink()
        parts = [{"part": note["part"], "files": note["files"]} for note in notes]
        rows = {
            name: sum(part["files"][name]["rows"] for part in parts if name in part["files"])
            for name in (*ARRAYS, *TABLES)
            if any(name in part["files"] for part in parts)
        }
        manifest = {
            "format": FORMAT,
            "rows": rows,
            "dtype": str(self.dtype),
            "rejected": self._note(path, len(rejected)),
            "settings": plain(settings),
            "parts": parts,
        }
        write_json(self.folder / MANIFEST, manifest)

    def _path(self, stem: str, part: str, suffix: str) -> Path:
        return self.folder / stem / f"{stem}_{part}{suffix}"

    def _note(self, path: Path, rows: int) -> dict[str, Any]:
        return {
            "path": path.relative_to(self.folder).as_posix(),
            "rows": rows,
            "bytes": path.stat().st_size,
            "sha256": sha256_file(path),
        }


def _table(columns: Mapping[str, Any]) -> pa.Table:
    import pyarrow as pa

    made = {}
    for name, values in columns.items():
        # An empty list has no type of its own: texts are what a column holds by default.
        untyped = not len(values) and not hasattr(values, "dtype")
        made[name] = pa.array(values, pa.string() if untyped else None)
    return pa.table(made)


def _write_table(path: Path, table: pa.Table) -> None:
    import pyarrow.parquet as pq

    with whole_file(path) as file:
        pq.write_table(table, file)


def _as_stored(rows: np.ndarray, dtype: np.dtype, path: Path) -> np.ndarray:
    with np.errstate(over="ignore"):
        stored = np.asarray(rows).astype(dtype, copy=False)
    bad = int((~np.isfinite(stored)).any(axis=1).sum()) if stored.size else 0
    if bad:
        raise UserError(
            f"{bad} of {len(stored)} embeddings for {path.name} are not finite numbers in {dtype}:"
            " the model's weights or its precision are at fault. Try precision fp32"
            + (" and dtype float32." if dtype == np.float16 else ", and look at its training log.")
        )
    return stored


def _check_part(part: str, arrays: Mapping[str, np.ndarray], tables: Mapping[str, Any]) -> None:
    for name, rows in arrays.items():
        if name not in ARRAYS:
            raise ValueError(f"a store holds {', '.join(ARRAYS)}, not {name!r}")
        of = "text_metadata" if name == "text" and "text_metadata" in tables else "metadata"
        if np.ndim(rows) != 2 or len(rows) != tables[of].num_rows:
            raise ValueError(
                f"part {part}: {name} {np.shape(rows)} does not join {tables[of].num_rows} rows"
                f" of {of}"
            )
