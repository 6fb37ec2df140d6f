"""Tables on disk as Arrow columns, and the choice of a column by name."""

from __future__ import annotations

from collections.abc import Sequence
from csv import reader
from pathlib import Path
from typing import TYPE_CHECKING

from vislang.errors import UserError
from vislang.lookup import nearest

if TYPE_CHECKING:
    import pyarrow as pa

DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}


def sniff_delimiter(header: str) -> str:
    """The delimiter that occurs most often outside quotes in a table's first line.

    >>> sniff_delimiter('image;"a, b, c";label')
    ';'
    >>> sniff_delimiter("caption")
    ','
    """
    bare = "".join(header.split('"')[::2])
    return max(DELIMITERS, key=lambda mark: (bare.count(mark), mark == ","))


def first_line(path: Path) -> str:
    """The first line of a text file, without a byte order mark."""
    try:
        with open(path, "rb") as file:
            line = file.readline(1 << 20)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    return line.decode("utf-8-sig", "replace").rstrip("\r\n")


def read_csv(
    path: Path, delimiter: str = "", columns: Sequence[str] = (), encoding: str = "utf8"
) -> tuple[pa.Table, list[tuple[int, str]]]:
    """A delimited text file, every column as strings, and the rows that do not fit.

    Strings, because types guessed from the data would turn the id "007" into 7.

    Args:
        path: the file.
        delimiter: one character; empty detects it from the first line.
        columns: names of the columns of a file without a header line.
        encoding: of the text.

    Returns: (table, [(line number, what is wrong with it)]).
    """
    import pyarrow as pa
    from pyarrow import csv

    line = first_line(path)
    if not line.strip():
        raise UserError(f"The table {path} is empty: its first line should name the columns.")
    mark = _one_character(delimiter) or sniff_delimiter(line)
    names = list(columns) or next(reader([line], delimiter=mark))
    damaged: list[tuple[int, str]] = []

    def note(row: csv.InvalidRow) -> str:
        damaged.append((row.number or 0, f"{row.actual_columns} columns, not {len(names)}"))
        return "skip"

    try:
        table = csv.read_csv(
            path,
            # one thread: only then the numbers of bad rows are known
            csv.ReadOptions(use_threads=False, column_names=columns or None, encoding=encoding),
            csv.ParseOptions(delimiter=mark, newlines_in_values=True, invalid_row_handler=note),
            csv.ConvertOptions(column_types={name: pa.string() for name in names}),
        )
    except (pa.ArrowException, UnicodeDecodeError, LookupError) as error:
        raise UserError(
            f"The table {path} cannot be read with the delimiter {mark!r} and encoding"
            f" {encoding!r}: {error}. Set delimiter or encoding."
        ) from error
    _check_damage(path, len(damaged), len(table), len(names), mark)
    return table, damaged


def _check_damage(path: Path, damaged: int, good: int, columns: int, mark: str) -> None:
    """More bad rows than good ones mean another delimiter, not bad rows."""
    if damaged > max(10, good):
        raise UserError(
            f"{damaged:,} of {damaged + good:,} rows of {path} do not have the {columns} columns of"
            f" its first line, split by {mark!r}. Set delimiter."
        )


def _one_character(delimiter: str) -> str:
    named = {name: mark for mark, name in DELIMITERS.items()} | {"\\t": "\t"}
    mark = named.get(delimiter, delimiter)
    if len(mark) > 1:
        raise UserError(
            f"delimiter must be one character or one of {', '.join(DELIMITERS.values())},"
            f" got {delimiter!r}."
        )
    return mark


def choose(
    name: str | None, known: Sequence[str], usual: Sequence[str], what: str, where: str
) -> str | None:
    """The column `name`, or else the first of the usual names (in any case) that is there.

    Raises:
        UserError: `name` was given and there is no such column.
    """
    if name:
        if name not in known:
            raise UserError(
                f"{where} has no column {name!r} ({what}).{nearest(name, known)}"
                f" Columns: {', '.join(known)}."
            )
        return name
    lower = {column.lower(): column for column in reversed(known)}
    return next((lower[column] for column in usual if column in lower), None)
