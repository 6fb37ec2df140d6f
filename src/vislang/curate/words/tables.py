"""Sorted tables of counts on disk, and their sum in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislang.files import whole_file

if TYPE_CHECKING:
    import pyarrow as pa

AT_ONCE = 48  # tables that are summed together
_ROWS = 1 << 14  # of each of them in memory


def schema() -> pa.Schema:
    """word, count, documents."""
    import pyarrow as pa

    return pa.schema([("word", pa.string()), ("count", pa.int64()), ("documents", pa.int64())])


def write_table(path: Path, rows: Iterable[tuple[str, int, int]]) -> int:
    """Write (word, count, documents), which come sorted by word; returns how many."""
    import pyarrow as pa

    words, counts, documents = [], [], []
    for word, count, several in rows:
        words.append(word)
        counts.append(count)
        documents.append(several)
    columns = [pa.array(words, pa.string()), pa.array(counts), pa.array(documents)]
    table = pa.Table.from_arrays([c.cast(t) for c, t in zip(columns, schema().types)],
                                 schema=schema())  # fmt: skip
    write_tables(path, [table])
    return len(words)


def write_tables(path: Path, tables: Iterable[pa.Table]) -> int:
    """Write tables one behind the other into one Parquet file; returns the number of rows."""
    import pyarrow.parquet as pq

    rows = 0
    with whole_file(path) as file, pq.ParquetWriter(file, schema(), compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
            rows += table.num_rows
    return rows


def sum_tables(
    paths: Sequence[Path], folder: Path, keep: Callable[[pa.Table], pa.Table]
) -> Iterator[pa.Table]:
    """The sum of sorted tables, as sorted tables, each word once.

    Args:
        paths: of the tables.
        folder: for tables in between, when there are more than can be open together.
        keep: filters the rows of the result.
    """
    level = 0
    while len(paths) > AT_ONCE:
        next_paths = []
        for first in range(0, len(paths), AT_ONCE):
            path = folder / f"{level}-{first // AT_ONCE:05d}.parquet"
            if not path.exists():  # a level that was begun before is gone on with
                write_tables(path, _sum(paths[first : first + AT_ONCE]))
            next_paths.append(path)
        paths, level = next_paths, level + 1
    for table in _sum(paths):
        yield keep(table)


def _sum(paths: Sequence[Path]) -> Iterator[pa.Table]:
    """Rounds: everything up to the smallest of the last words in memory can be summed."""
    import pyarrow as pa
    import pyarrow.compute as pc

    compute: Any = pc
    waiting: list[tuple[pa.Table, Iterator[pa.Table]]] = []
    for path in paths:
        rest = _batches(path)
        if (table := next(rest, None)) is not None:
            waiting.append((table, rest))
    while waiting:
        until = min(table["word"][-1].as_py() for table, _ in waiting)
        ready, left = [], []
        for table, rest in waiting:
            number = compute.sum(compute.less_equal(table["word"], until)).as_py() or 0
            ready.append(table.slice(0, number))
            behind = table.slice(number) if number < table.num_rows else next(rest, None)
            if behind is not None:
                left.append((behind, rest))
        together = pa.concat_tables(ready)
        summed = together.group_by("word", use_threads=False).aggregate(
            [("count", "sum"), ("documents", "sum")]
        )
        summed = summed.select(["word", "count_sum", "documents_sum"]).rename_columns(
            schema().names
        )
        yield summed.sort_by("word")
        waiting = left


def _batches(path: Path) -> Iterator[pa.Table]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS, use_threads=False):
            if batch.num_rows:
                yield pa.Table.from_batches([batch])
