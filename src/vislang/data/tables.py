"""Reading a table of any format, and its heavy columns from mapped memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.data.cache import cached
from vislang.data.columns import read_csv
from vislang.data.patterns import expand
from vislang.errors import UserError
from vislang.files import fingerprint, whole_file
from vislang.lookup import nearest

if TYPE_CHECKING:
    import pyarrow as pa

# Bytes of images of one column that are held in memory; above it they are mapped from disk.
IN_MEMORY = 1 << 30


@dataclass
class OpenedTable:
    """A table whose columns are known and read when asked for.

    Args:
        files: of one format.
        columns: names of its columns.
        text: the whole table, when it was read from text.
        damaged: (line number, what is wrong) of rows that do not fit.
        rows: those that count; None: all.
    """

    files: list[Path]
    columns: list[str]
    text: pa.Table | None = None
    damaged: list[tuple[int, str]] = field(default_factory=list)
    rows: np.ndarray | None = None

    def choose_rows(self, column: str, value: str, where: str) -> None:
        """Only rows in which a column has a value count.

        Raises:
            UserError: there is no such column, or no such row.
        """
        if column not in self.columns:
            raise UserError(
                f"{where} has no column {column!r}, so {column}={value!r} chooses nothing."
                f" Columns: {', '.join(self.columns)}."
            )
        values = np.array([str(v) for v in self.read([column])[column].to_pylist()], object)
        self.rows = np.flatnonzero(values == value)
        if not len(self.rows):
            known = sorted(set(values))
            raise UserError(
                f"{where} has no rows with {column} {value!r}.{nearest(value, known)}"
                f" It has: {', '.join(known[:20])}."
            )

    def read(self, names: Sequence[str]) -> pa.Table:
        """Some columns in memory."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self.text is not None:
            whole = self.text.select(list(names))
        else:
            parts = [pq.read_table(file, columns=list(names)) for file in self.files]
            whole = pa.concat_tables(parts, promote_options="permissive")
        return whole if self.rows is None else whole.take(pa.array(self.rows))

    def column_bytes(self, name: str) -> int:
        """Size of a column when it is unpacked."""
        import pyarrow.parquet as pq

        total = 0
        for file in self.files:
            groups = pq.ParquetFile(file).metadata
            for g in range(groups.num_row_groups):
                for c in range(groups.num_columns):
                    column = groups.row_group(g).column(c)
                    if column.path_in_schema.split(".")[0] == name:
                        total += column.total_uncompressed_size
        return total


def open_table(
    path: str, delimiter: str = "", columns: Sequence[str] = (), encoding: str = "utf8"
) -> OpenedTable:
    """Open CSV or TSV (also .txt), or Parquet (one file, a folder of them, or a pattern)."""
    if Path(path).is_dir():
        files = sorted(Path(path).glob("*.parquet")) or sorted(Path(path).glob("**/*.parquet"))
        if not files:
            raise UserError(f"The source {path} is empty: the folder has no .parquet files.")
    else:
        files = expand(path)
    if all(file.suffix.lower() == ".parquet" for file in files):
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            schema = pq.read_schema(files[0])
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{files[0]} is not a Parquet file: {error}.") from error
        return OpenedTable(files, schema.names)
    if len(files) > 1:
        raise UserError(f"{path} names {len(files)} files: only .parquet can be joined.")
    table, damaged = read_csv(files[0], delimiter, columns, encoding)
    return OpenedTable(files, table.column_names, table, damaged)


class MappedColumn:
    """A column of image bytes by row: in memory, or mapped from an Arrow file made once.

    Parquet is compressed in groups of rows, so reading one row would unpack thousands. The Arrow
    file holds the rows as they are; workers share its pages, and pickling this carries its path.
    """

    def __init__(self, table: OpenedTable, name: str):
        self._file: Path | None = None
        self._column: Any = None
        self._rows: np.ndarray | None = None
        if table.text is not None or table.column_bytes(name) <= IN_MEMORY:
            self._column = table.read([name])[name]
        else:
            self._file, self._rows = _arrow_file(table.files, name), table.rows

    def __getstate__(self) -> dict[str, Any]:
        column = None if self._file else self._column
        return {"_file": self._file, "_column": column, "_rows": self._rows}

    def __getitem__(self, row: int) -> Any:
        """Bytes, a {"bytes", "path"} dict as Hugging Face writes it, or None."""
        if self._column is None:
            import pyarrow as pa

            reader = pa.ipc.open_file(pa.memory_map(str(self._file)))
            self._column = reader.read_all()[0]
        return self._column[row if self._rows is None else int(self._rows[row])].as_py()


def _arrow_file(files: list[Path], name: str) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    stats = [(f.name, os.stat(f).st_size, os.stat(f).st_mtime_ns) for f in files]
    file_name = f".{files[0].stem}.{name}.{fingerprint(stats)}.vislang-column"

    def make(path: Path) -> None:
        schema = pa.schema([pq.read_schema(files[0]).field(name)])
        with whole_file(path) as out, pa.ipc.new_file(out, schema) as writer:
            for file in files:
                for batch in pq.ParquetFile(file).iter_batches(batch_size=256, columns=[name]):
                    writer.write_batch(batch.cast(schema))

    return cached(files[0], file_name, lambda path: True, make)
