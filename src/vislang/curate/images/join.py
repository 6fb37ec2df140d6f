"""One table over words and providers: the same picture, found several times, is one row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislang.curate.images.provider import address_key
from vislang.files import plain, read_json, whole_file, write_json

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

TABLE, MANIFEST = "images.parquet", "images.json"
_TEXTS = ("id", "url", "caption", "word", "provider", "photo_id", "original", "page", "author",
          "author_page", "licence", "licence_page")  # fmt: skip
_NUMBERS = ("width", "height")
_LISTS = {"words": "word", "captions": "caption", "ids": "id"}
_AT_ONCE = 20_000


def found_schema() -> pa.Schema:
    """Columns of what a block of words found."""
    import pyarrow as pa

    texts = [(name, pa.string()) for name in _TEXTS]
    return pa.schema(texts + [(name, pa.int64()) for name in _NUMBERS])


def write_found(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows, one for each time that a picture was found."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = found_schema().names
    kept = [{name: _sound(row[name]) for name in names} for row in rows]
    with whole_file(path) as file:
        pq.write_table(pa.Table.from_pylist(kept, found_schema()), file)


def _sound(value: Any) -> Any:
    """Half characters (lone surrogates, which JSON can carry) cannot be written as UTF-8."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def join_images(out: Path | str) -> dict[str, Any]:
    """Join what lies in OUT/found, of all finished blocks of all providers.

    Rows with the same provider and photo id, or with the same address (without scheme and tracking
    parameters), are the same picture, also along chains of such rows. The first row found gives
    the columns; all words, captions and ids are kept in lists.

    Returns:
        What is in OUT/images.json: counts for each provider, and of what was merged and rejected.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = Path(out)
    notes = {path.stem: read_json(path) for path in sorted((out / "units").glob("*.json"))}
    paths = [out / "found" / f"{unit}.parquet" for unit in notes]
    tables = [pq.read_table(path, schema=found_schema()) for path in paths]
    rows = pa.concat_tables([*tables, found_schema().empty_table()]).combine_chunks()
    groups = _same(rows)
    pictures = 0
    with whole_file(out / TABLE) as file:
        fields = [*found_schema(), *(pa.field(name, pa.list_(pa.string())) for name in _LISTS)]
        with pq.ParquetWriter(file, pa.schema(fields)) as writer:
            for block in _blocks(rows, groups):
                writer.write_table(pa.Table.from_pylist(block, writer.schema))
                pictures += len(block)
    manifest = _counted(list(notes.values())) | {"rows": rows.num_rows, "pictures": pictures,
                                                 "merged": rows.num_rows - pictures}  # fmt: skip
    write_json(out / MANIFEST, manifest)
    return plain(manifest)


def _same(rows: pa.Table) -> np.ndarray:
    """Group of each row, int64 [n]; groups are numbered by their first row."""
    import numpy as np
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = rows.num_rows
    if not n:
        return np.zeros(0, np.int64)
    ids, addresses = _codes(rows["id"].to_pylist()), _codes(map(address_key, _texts(rows)))
    # A row joins its id with its address; what hangs together is one picture.
    first, second = ids, addresses + ids.max() + 1
    size = int(second.max()) + 1
    links = coo_matrix((np.ones(n, np.int8), (first, second)), shape=(size, size))
    part = connected_components(links, directed=False)[1][ids]
    _, start, group = np.unique(part, return_index=True, return_inverse=True)
    order = np.empty(len(start), np.int64)
    order[np.argsort(start)] = np.arange(len(start))
    return order[group]


def _texts(rows: pa.Table) -> Iterator[str]:
    for value in rows["original"]:
        yield value.as_py() or ""


def _codes(values: Iterable[str]) -> np.ndarray:
    import numpy as np

    known: dict[str, int] = {}
    return np.fromiter((known.setdefault(value, len(known)) for value in values), np.int64)


def _blocks(rows: pa.Table, groups: np.ndarray) -> Iterator[list[dict[str, Any]]]:
    """Joined rows, some thousands at a time."""
    import numpy as np

    order = np.argsort(groups, kind="stable")
    bounds = np.flatnonzero(np.diff(groups[order], prepend=-1, append=-1))
    for at in range(0, len(bounds) - 1, _AT_ONCE):
        cut = bounds[at : at + _AT_ONCE + 1]
        block = rows.take(order[cut[0] : cut[-1]]).to_pylist()
        spans = pairwise(cut - cut[0])
        yield [_joined(block[start:stop]) for start, stop in spans]


def _joined(same: list[dict[str, Any]]) -> dict[str, Any]:
    lists = {name: list(dict.fromkeys(row[column] for row in same if row[column]))
             for name, column in _LISTS.items()}  # fmt: skip
    row = same[0] | lists
    row["caption"] = row["caption"] or (lists["captions"] or [""])[0]
    return row


def _counted(notes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    providers: dict[str, Any] = {}
    for note in notes:
        counts = providers.setdefault(
            note["provider"],
            {"words": 0, "requests": 0, "rows": 0, "rejected": Counter(), "failed": Counter(),
             "notes": 0},
        )  # fmt: skip
        for name in ("words", "requests", "rows"):
            counts[name] += note[name]
        counts["rejected"].update(note["rejected"])
        counts["failed"].update(reason for _, reason in note["failed"])
        counts["notes"] += len(note["notes"])
    return {"providers": providers}
