"""What fetching leaves: tars or folders of pictures, and a ledger with a row for every URL."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislang.errors import UserError
from vislang.files import plain, whole_file, write_json, write_whole

if TYPE_CHECKING:
    import pyarrow as pa

    from vislang.curate.fetch.job import Unit

LAYOUTS = ("tar", "folder")
LEDGER, DONE = "ledger.parquet", "fetched.json"
_NUMBERS = (
    "bytes", "hops", "width", "height", "original_width", "original_height", "frames",
)  # fmt: skip
_GIVEN = ("id", "domain", "url", "caption", "nsfw")  # of the table, always in the ledger
_TEXTS = ("key", *_GIVEN, "status", "detail", "sha256", "format")


def extra_fields(schema: pa.Schema) -> dict[str, pa.Field]:
    """Columns of a table that go on into the ledger: their names there and what they hold.

    Texts, numbers, truth values and lists of texts go on under their names, or as source_NAME
    where the ledger has a column of that name; embeddings and other heavy columns stay behind.
    """
    import pyarrow as pa

    found = {}
    for field in schema:
        if field.name in (*_GIVEN, "url"):
            continue
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            plainly = _is_text(kind.value_type)
        else:
            plainly = _is_text(kind) or any(
                test(kind) for test in (pa.types.is_integer, pa.types.is_floating,
                                        pa.types.is_boolean)
            )  # fmt: skip
        if plainly:
            taken = field.name in (*_TEXTS, *_NUMBERS)
            found[field.name] = pa.field(f"source_{field.name}" if taken else field.name, kind)
    return found


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _schema(extra: Mapping[str, pa.Field]) -> pa.Schema:
    import pyarrow as pa

    fields = [pa.field(name, pa.string()) for name in _TEXTS]
    fields += [pa.field(name, pa.int64()) for name in _NUMBERS]
    return pa.schema([*fields, *extra.values()])


def write_unit(
    out: Path, unit: Unit, rows: Sequence[Mapping[str, Any]],
    got: Sequence[tuple[dict[str, Any], bytes | None]], layout: str,
    extra: Mapping[str, pa.Field], keep_old: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Write the pictures of a unit, then its ledger; returns status -> rows.

    Names of files are numbers that we count: nothing in them comes from outside.

    Args:
        out: the folder of the whole job.
        unit: which.
        rows: of the table.
        got: (ledger row, JPEG or None) of each.
        layout: tar or folder.
        extra: further columns of the table, as `extra_fields` gives them.
        keep_old: pictures that lie there already stay, where `got` has none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(extra)
    ledger = []
    pictures: list[tuple[str, dict[str, bytes]]] = []
    old = _old_members(out, unit) if keep_old and layout == "tar" else {}
    for place, (row, (note, jpeg)) in enumerate(zip(rows, got)):
        key = f"{unit.first + place:09d}"
        known: dict[str, Any] = {name: _text(row.get(name)) for name in _GIVEN}
        known["caption"] = known["caption"] or _first(row.get("captions"))
        more = {field.name: row.get(name) for name, field in extra.items()}
        line = {"key": key, **known, **more, **note}
        ledger.append({name: line.get(name) for name in schema.names})
        if jpeg is not None:
            about = {name: known[name] for name in _GIVEN if name != "caption"} | more
            about |= {name: note[name] for name in ("sha256", "format", *_NUMBERS) if name in note}
            about = {name: plain(value) for name, value in about.items() if value is not None}
            text = known["caption"] or ""
            pictures.append((key, {"jpg": jpeg, "txt": text.encode(), "json": _json(about)}))
        elif key in old:
            pictures.append((key, old[key]))
    if layout == "tar":
        _write_tar(out / unit.folder / f"{unit.number:05d}.tar", pictures)
    else:
        for key, members in pictures:
            write_whole(out / unit.folder / f"{unit.number:05d}" / f"{key}.jpg", members["jpg"])
    with whole_file(out / "ledger" / f"{unit.name}.parquet") as file:
        pq.write_table(pa.Table.from_pylist(ledger, schema), file)
    return {"rows": len(rows), "status": dict(Counter(row["status"] for row in ledger))}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _first(values: Any) -> str | None:
    return next((str(value) for value in values or () if value), None)


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False).encode()


def _write_tar(path: Path, pictures: Sequence[tuple[str, Mapping[str, bytes]]]) -> None:
    """The same bytes for the same pictures: no times, no owners."""
    with whole_file(path) as file, tarfile.open(fileobj=file, mode="w") as tar:
        for key, members in pictures:
            for kind, data in members.items():
                info = tarfile.TarInfo(f"{key}.{kind}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def _old_members(out: Path, unit: Unit) -> dict[str, dict[str, bytes]]:
    path, found = out / unit.folder / f"{unit.number:05d}.tar", {}
    if path.exists():
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, kind = member.name.partition(".")
                data = tar.extractfile(member)
                assert data is not None
                found.setdefault(key, {})[kind] = data.read()
    return found


def read_ledger(out: Path, unit: Unit) -> list[dict[str, Any]]:
    """The ledger's rows of one unit."""
    import pyarrow.parquet as pq

    path = out / "ledger" / f"{unit.name}.parquet"
    if not path.exists():
        raise UserError(f"{path} is missing: fetch into another folder, or restore it.")
    return pq.read_table(path).to_pylist()


def finish(out: Path, units: Sequence[Unit], layout: str) -> dict[str, Any]:
    """Join the ledgers and count."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    tables = [pq.read_table(out / "ledger" / f"{unit.name}.parquet") for unit in units]
    ledger = pa.concat_tables(tables) if tables else _schema({}).empty_table()
    with whole_file(out / LEDGER) as file:
        pq.write_table(ledger, file)
    if layout == "folder":
        good = pc.equal(ledger["status"], "ok")  # type: ignore[attr-defined]
        places = [
            f"{unit.folder}/{unit.number:05d}/{key}.jpg"
            for unit, table in zip(units, tables)
            for key in table["key"].to_pylist()
        ]
        listed = ledger.append_column("image", pa.array(places, pa.string())).filter(good)
        with whole_file(out / "pictures.parquet") as file:
            pq.write_table(_described(listed), file)
    domains: dict[str, Counter] = {}
    for unit, table in zip(units, tables):
        domains.setdefault(unit.folder, Counter()).update(table["status"].to_pylist())
    counts = {
        "rows": ledger.num_rows,
        "status": dict(sum(domains.values(), Counter())),
        "domains": {folder: dict(count) for folder, count in sorted(domains.items())},
        "layout": layout,
    }
    write_json(out / DONE, counts)
    return counts


def _described(listed: pa.Table) -> pa.Table:
    """The columns that a user of the pictures wants: image and captions first."""
    ours = {"key", "status", "detail", "hops", "bytes", "frames"}
    first = ["image", "caption", "domain", "id"]
    return listed.select([*first, *(n for n in listed.column_names if n not in {*first, *ours})])
