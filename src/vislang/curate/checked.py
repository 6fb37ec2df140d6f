"""The pictures of one ledger of fetching, each decoded in full, with clean captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislang.curate.captions import clean_captions
from vislang.curate.duplicates import perceptual_hash
from vislang.data.decode import Limits, decode
from vislang.data.sample import BadSample, Place
from vislang.data.tars import read_members
from vislang.files import whole_file

if TYPE_CHECKING:
    import pyarrow as pa


def check_unit(
    pictures: str, ledgers: Mapping[str, str], max_caption: int, unit: str, folder: Path
) -> dict[str, Any]:
    """Decode the pictures of a ledger and clean their captions; a unit of `run_units`.

    Args:
        pictures: folder of `vislang curate fetch`.
        ledgers: unit -> its ledger.
        max_caption: characters of a caption.
        unit: which.
        folder: where FOLDER/<unit>.parquet goes.

    Returns:
        Counts of rows, of unreadable ones, and of what was done to captions.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(ledgers[unit])
    ledger = pq.read_table(path)
    ledger = ledger.filter(pa.array([s == "ok" for s in ledger["status"].to_pylist()], pa.bool_()))
    domain, _, number = path.stem.rpartition("-")
    counts: Counter[str] = Counter()
    places = _places(Path(pictures) / domain, number)
    rows = []
    for row in ledger.to_pylist():
        texts = row.get("captions") or [row.get("caption")]
        made = {"captions": clean_captions(texts, max_caption, counts)}
        rows.append(made | _looked_at(places, row, domain) | {"unit": domain})
    columns = _checked_schema()
    made = pa.Table.from_pylist(rows, columns)
    dropped = [name for name in columns.names if name in ledger.column_names]
    write_table(folder / f"{unit}.parquet", _beside(ledger.drop_columns(dropped), made))
    bad = sum(row["reason"] is not None for row in rows)
    return {"rows": len(rows), "unreadable": bad, "captions": dict(counts)}


def _checked_schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([
        ("captions", pa.list_(pa.string())), ("image", pa.string()), ("image_offset", pa.int64()),
        ("image_size", pa.int64()), ("phash", pa.uint64()), ("width", pa.int64()),
        ("height", pa.int64()), ("unit", pa.string()), ("reason", pa.string()),
        ("more", pa.string()),
    ])  # fmt: skip


def _places(folder: Path, number: str) -> Callable[[str], Path | Place | None]:
    """Where the picture of a key lies."""
    tar = folder / f"{number}.tar"
    if not tar.exists():
        return lambda key: folder / number / f"{key}.jpg"
    members = read_members(tar)
    rows = {name: row for row, name in enumerate(members.names)}

    def find(key: str) -> Place | None:
        row = rows.get(f"{key}.jpg")
        return None if row is None else Place(tar, members.offsets[row], members.sizes[row])

    return find


def _looked_at(places: Callable[[str], Any], row: Mapping[str, Any], domain: str) -> dict[str, Any]:
    """Place, size and hash of a picture that is decoded in full, or why there is none."""
    place = places(row["key"])
    made: dict[str, Any] = {"reason": None, "more": None, "width": None, "height": None}
    try:
        if place is None:
            raise BadSample("", "missing file: it is not in its tar")
        pixels = decode(place, Limits())
        made |= {"phash": perceptual_hash(pixels)}
        made |= {"height": pixels.shape[0], "width": pixels.shape[1]}
    except BadSample as bad:
        made["reason"], _, made["more"] = bad.reason.partition(": ")
        return made
    if isinstance(place, Place):
        made |= {"image": f"{domain}/{place.path.name}", "image_offset": place.offset}
        made |= {"image_size": place.size}
    else:
        made |= {"image": f"{domain}/{place.parent.name}/{place.name}"}
    return made


def _beside(left: pa.Table, right: pa.Table) -> pa.Table:
    for name in right.column_names:
        left = left.append_column(name, right[name])
    return left


def write_table(path: Path, table: pa.Table) -> None:
    """Write Parquet that is whole or absent."""
    import pyarrow.parquet as pq

    with whole_file(path) as file:
        pq.write_table(table, file)
