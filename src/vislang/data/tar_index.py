"""Samples of a tar shard: members grouped by key, kept as a small Parquet file beside the shard."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vislang.data.cache import cached
from vislang.data.places import forget
from vislang.data.tars import read_members
from vislang.files import whole_file

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = "1"


def read_index(shard: Path) -> pa.Table:
    """One row a sample: `key`, and `<extension>.offset`, `<extension>.size` (-1: absent).

    The schema's metadata holds `damage` (see tars.Members). Built once for each state (size and
    time) of the shard; whole or absent, so an interrupted build is simply repeated.
    """
    import pyarrow.parquet as pq

    forget(shard)
    status = os.stat(shard)
    state = {b"vislang": f"{VERSION} {status.st_size} {status.st_mtime_ns}".encode()}

    def valid(path: Path) -> bool:
        try:
            found = pq.read_schema(path).metadata or {}
        except Exception:  # a foreign or damaged file is simply made again
            return False
        return found.get(b"vislang") == state[b"vislang"]

    def make(path: Path) -> None:
        table = _group(shard)
        metadata = {**(table.schema.metadata or {}), **state}
        with whole_file(path) as file:
            pq.write_table(table.replace_schema_metadata(metadata), file)

    path = cached(shard, f".{shard.name}.vislang-index", valid, make)
    # memory_map off: the index is small and its file may be on a network
    return pq.read_table(path, memory_map=False)


def split_key(name: str) -> tuple[str, str]:
    """A member's key and extension, which begins at the first dot of the file's own name.

    >>> split_key("a.b/0001.seg.PNG")
    ('a.b/0001', 'seg.png')
    """
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return folder + slash + stem, extension.lower()


def _group(shard: Path) -> pa.Table:
    import pyarrow as pa

    members = read_members(shard)
    rows: dict[str, int] = {}
    columns: dict[str, list[tuple[int, int, int]]] = {}
    for name, offset, size in zip(members.names, members.offsets, members.sizes):
        key, extension = split_key(name.removeprefix("./"))
        stem = key.rpartition("/")[2]
        if not extension or not stem or stem.startswith("__"):
            continue  # hidden files, and notes such as __classes__.json
        row = rows.setdefault(key, len(rows))
        columns.setdefault(extension, []).append((row, offset, size))
    data = {"key": pa.array(list(rows), pa.string())}
    for extension, found in columns.items():
        at, offset, size = np.array(found, np.int64).T
        for what, values in (("offset", offset), ("size", size)):
            column = np.full(len(rows), -1, np.int64)
            column[at] = values
            data[f"{extension}.{what}"] = pa.array(column)
    return pa.table(data).replace_schema_metadata({b"damage": members.damage.encode()})
