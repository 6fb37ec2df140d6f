"""Fetching a sample: units of rows, each a tar or a folder with its ledger, whole or absent.

OUT/000-blur/00000.tar        000000000.jpg .txt .json ...      (webdataset)
OUT/000-blur/00000/000000000.jpg ...                             (folder, with pictures.parquet)
OUT/ledger/000-blur-00000.parquet    one row a URL: status, detail, sha256, sizes
OUT/ledger.parquet, fetched.json     all of them, and counts; written last
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislang.curate.fetch.network import Network
from vislang.curate.fetch.picture import ANIMATED
from vislang.curate.fetch.session import Fetching, close_session, session
from vislang.curate.fetch.written import LAYOUTS, extra_fields, finish, read_ledger, write_unit
from vislang.errors import UserError
from vislang.files import cores, run_units, write_json
from vislang.lookup import nearest

if TYPE_CHECKING:
    import pyarrow as pa

# A second try may end otherwise; what a site forbids or what is no picture is not asked for again.
TRY_AGAIN = ("timeout", "cannot resolve", "cannot connect", "truncated answer", "http 5",
             "http 429", "http 408", "bad answer")  # fmt: skip
RETRY = ("no", "passing", "all")


@dataclass(frozen=True)
class Unit:
    """Rows of one domain: which, and where they go.

    Args:
        name: of the unit.
        folder: of its domain, below OUT.
        number: of the unit in its domain.
        first: number of its first row in the domain.
        rows: positions in the table.
    """

    name: str
    folder: str
    number: int
    first: int
    rows: tuple[int, int]


def fetch_sample(
    sample: Path | str,
    out: Path | str,
    how: Fetching = Fetching(),  # noqa: B008  frozen
    *,
    network: Network = Network(),  # noqa: B008  frozen
    engine: str = "serial",
    workers: int | None = None,
    retry_failed: str = "no",
    on_done: Callable[[str, Mapping[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Fetch the pictures of a sample; the same command again goes on where it stopped.

    Args:
        sample: folder of `vislang curate sample`, or a Parquet file with a column url.
        out: folder to fill.
        how: limits, layout, manners.
        network: where one may connect to.
        engine: serial, processes or ray; limits per host count for each process.
        workers: processes.
        retry_failed: ask once more for what failed in a way that may pass (`TRY_AGAIN`): "passing";
            for everything that is not there: "all"; or for nothing: "no".
        on_done: called after each unit.

    Returns:
        Counts: status -> rows, for each domain and for all.
    """
    _check(how)
    _check_choice("retry_failed", retry_failed, RETRY)
    out, path = Path(out), _table_of(Path(sample))
    units, table = _units(path, how.shard)
    if engine != "serial" and not how.decode_workers:
        how = replace(how, decode_workers=max(1, cores() // max(1, workers or cores())))
    settings = {"how": how.settings, "rows": table.num_rows, "sample": _mark(table)}
    work = partial(_fetch_unit, str(path), {unit.name: unit for unit in units}, how, network)
    try:
        run_units(out, [u.name for u in units], work, settings, engine, workers, on_done)
        if retry_failed != "no":
            _retry(out, units, path, how, network, retry_failed, engine, workers, on_done)
    finally:
        close_session()
    return finish(out, units, how.layout)


def _check(how: Fetching) -> None:
    _check_choice("layout", how.layout, LAYOUTS)
    _check_choice("animated", how.animated, ANIMATED)
    for name in ("side", "shard", "threads", "per_host", "max_side", "max_frames"):
        if getattr(how, name) < 1:
            raise UserError(f"{name} must be at least 1, got {getattr(how, name)}.")
    for name, value in (("decode_s", how.decode_s), ("seconds", how.caps.seconds)):
        if not value > 0:
            raise UserError(f"{name} must be more than 0, got {value}.")
    if not 1 <= how.quality <= 100:
        raise UserError(f"quality must be 1 to 100, got {how.quality}.")
    agent = how.caps.agent
    if not (agent.strip() and agent.isascii() and agent.isprintable()):
        raise UserError(
            f"agent must be printable ASCII, got {agent!r}. For example"
            " 'my-project/1.0 (+https://example.org/contact)'."
        )


def _check_choice(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UserError(
            f"{name} must be one of {', '.join(known)}, got {value!r}.{nearest(value, known)}"
        )


def _table_of(sample: Path) -> Path:
    """The table in a folder of `vislang curate sample` or `vislang curate images`, or the file."""
    from vislang.curate.images.join import TABLE as FOUND
    from vislang.curate.sample import TABLE

    paths = [sample / TABLE, sample / FOUND] if sample.is_dir() else [sample]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise UserError(
            f"There is no {' or '.join(map(str, paths))}. `vislang curate sample` and `vislang"
            " curate images` make them."
        )
    return path


def _units(path: Path, shard: int) -> tuple[list[Unit], pa.Table]:
    """Runs of rows of one domain, in the table's order."""
    from vislang.curate.collections import read_table

    schema = read_table(path, "schema")
    if "url" not in schema.names:
        raise UserError(f"{path} has no column url. It has: {', '.join(schema.names)}.")
    named = "domain" in schema.names
    table = read_table(path, "table", columns=["url", *(["domain"] if named else [])])
    if not named:
        spans = {"all": [(0, table.num_rows)]}
    else:
        spans = _spans(table["domain"].to_pylist())
    units = []
    for place, (domain, runs) in enumerate(sorted(spans.items())):
        folder, number, first = f"{place:03d}-{file_name(domain)}", 0, 0
        for start, stop in runs:
            for at in range(start, stop, shard):
                rows = (at, min(at + shard, stop))
                units.append(Unit(f"{folder}-{number:05d}", folder, number, first, rows))
                number, first = number + 1, first + rows[1] - rows[0]
    return units, table


def _spans(domains: Sequence[str]) -> dict[str, list[tuple[int, int]]]:
    spans: dict[str, list[tuple[int, int]]] = {}
    start = 0
    for at in range(1, len(domains) + 1):
        if at == len(domains) or domains[at] != domains[start]:
            spans.setdefault(str(domains[start]), []).append((start, at))
            start = at
    return spans


def file_name(domain: str) -> str:
    """A domain as a part of a file's name: cifar/fog/4 becomes cifar-fog-4."""
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in domain)[:80]


def _mark(table: pa.Table) -> str:
    """Changes when the URLs do."""
    digest = hashlib.sha256()
    for chunk in table["url"].chunks:
        digest.update("\n".join(map(str, chunk.to_pylist())).encode())
    return digest.hexdigest()[:16]


def _read_rows(path: str, unit: Unit) -> pa.Table:
    import pyarrow.dataset as ds

    # Only the row groups that hold these rows are read.
    start, stop = unit.rows
    return ds.dataset(path).scanner().take(list(range(start, stop)))


def _fetch_unit(
    path: str, units: Mapping[str, Unit], how: Fetching, network: Network, name: str, folder: Path
) -> dict[str, Any]:
    unit = units[name]
    table = _read_rows(path, unit)
    rows = table.to_pylist()
    got = session(how, network).fetch(rows)
    return write_unit(folder, unit, rows, got, how.layout, extra_fields(table.schema))


def _retry(
    out: Path, units: Sequence[Unit], path: Path, how: Fetching, network: Network, which: str,
    engine: str, workers: int | None, on_done: Any,
) -> None:  # fmt: skip
    """A round over units with failures; an unfinished round is gone on with."""
    number = 0
    while (out / "retries" / f"{number}" / "done.json").exists():
        number += 1
    folder = out / "retries" / f"{number}"
    wanted = partial(_wanted, which)
    failed = [u.name for u in units if any(map(wanted, read_ledger(out, u)))]
    known = {u.name: u for u in units}
    work = partial(_retry_unit, str(out), str(path), known, how, network, which)
    settings = {"round": number, "retry_failed": which}
    run_units(folder, failed, work, settings, engine, workers, on_done)
    write_json(folder / "done.json", {"units": failed})


def _wanted(which: str, row: Mapping[str, Any]) -> bool:
    """Whether a row is to be asked for again."""
    status = str(row["status"])
    return status != "ok" if which == "all" else status.startswith(TRY_AGAIN)


def _retry_unit(
    out: str, path: str, units: Mapping[str, Unit], how: Fetching, network: Network, which: str,
    name: str, folder: Path,
) -> dict[str, Any]:  # fmt: skip
    unit = units[name]
    old = read_ledger(Path(out), unit)
    again = [place for place, row in enumerate(old) if _wanted(which, row)]
    table = _read_rows(path, unit)
    rows = table.to_pylist()
    got: list[Any] = [(row, None) for row in old]
    fetched = session(how, network).fetch([rows[place] for place in again])
    for place, new in zip(again, fetched):
        got[place] = new
    fields = extra_fields(table.schema)
    return write_unit(Path(out), unit, rows, got, how.layout, fields, keep_old=True)
