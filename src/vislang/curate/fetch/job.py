"""Fetching a sample: units of rows, each a tar or a folder with its ledger, whole or absent.

OUT/000-blur/00000.tar        000000000.jpg .txt .json ...      (webdataset)
OUT/000-blur/00000/000000000.jpg ...                             (folder, with pictures.parquet)
OUT/ledger/000-blur-00000.parquet    one row a URL: status, detail, sha256, sizes
OUT/ledger.parquet, fetched.json     all of them, and counts; written last
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislang.curate.fetch.client import Caps, get
from vislang.curate.fetch.manners import Hosts, Robots, check_headers
from vislang.curate.fetch.network import Network, Refused
from vislang.curate.fetch.picture import Picture, make_picture
from vislang.curate.fetch.written import LAYOUTS, finish, read_ledger, write_unit
from vislang.data.decode import Limits
from vislang.errors import UserError
from vislang.files import run_units
from vislang.lookup import nearest

if TYPE_CHECKING:
    import pyarrow as pa

# A second try may end otherwise; what a site forbids or what is no picture is not asked for again.
TRY_AGAIN = ("timeout", "cannot resolve", "cannot connect", "truncated answer", "http 5",
             "http 429", "http 408", "bad answer")  # fmt: skip
_SILENT = ("timeout", "cannot resolve", "cannot connect")


@dataclass(frozen=True)
class Fetching:
    """How pictures are fetched.

    Args:
        layout: tar (webdataset) or folder.
        side: pixels of the shorter side of what is written.
        quality: of the JPEG.
        shard: rows of a unit.
        threads: requests at a time in one process.
        per_host: of these, to one host.
        pause_s: seconds between the starts of two requests to one host.
        robots: respect robots.txt.
        opt_out: respect X-Robots-Tag and TDM-Reservation.
        caps: bytes, seconds and redirects of one picture.
        limits: pixels of one picture.
    """

    layout: str = "tar"
    side: int = 224
    quality: int = 95
    shard: int = 1000
    threads: int = 32
    per_host: int = 2
    pause_s: float = 0.0
    robots: bool = True
    opt_out: bool = True
    caps: Caps = Caps()  # noqa: RUF009  frozen
    limits: Limits = Limits()  # noqa: RUF009  frozen


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
    how: Fetching = Fetching(),
    *,
    network: Network = Network(),  # noqa: B008  frozen
    engine: str = "serial",
    workers: int | None = None,
    retry: bool = False,
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
        retry: ask once more for what failed in a way that may pass.
        on_done: called after each unit.

    Returns:
        Counts: status -> rows, for each domain and for all.
    """
    _check(how)
    out, path = Path(out), _table_of(Path(sample))
    units, table = _units(path, how.shard)
    settings = {"how": asdict(how), "rows": table.num_rows, "sample": _mark(table)}
    work = partial(_fetch_unit, str(path), {unit.name: unit for unit in units}, how, network)
    run_units(out, [u.name for u in units], work, settings, engine, workers, on_done)
    if retry:
        _retry(out, units, path, how, network, engine, workers, on_done)
    return finish(out, units, how.layout)


def _check(how: Fetching) -> None:
    if how.layout not in LAYOUTS:
        raise UserError(
            f"layout must be one of {', '.join(LAYOUTS)}, got {how.layout!r}."
            f"{nearest(how.layout, LAYOUTS)}"
        )
    for name in ("side", "shard", "threads", "per_host"):
        if getattr(how, name) < 1:
            raise UserError(f"{name} must be at least 1, got {getattr(how, name)}.")
    if not 1 <= how.quality <= 100:
        raise UserError(f"quality must be 1 to 100, got {how.quality}.")


def _table_of(sample: Path) -> Path:
    from vislang.curate.sample import TABLE

    path = sample / TABLE if sample.is_dir() else sample
    if not path.is_file():
        raise UserError(f"There is no {path}. `vislang curate sample` makes one.")
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


def _read_rows(path: str, unit: Unit) -> list[dict[str, Any]]:
    import pyarrow.dataset as ds

    # Only the row groups that hold these rows are read.
    start, stop = unit.rows
    return ds.dataset(path).scanner().take(list(range(start, stop))).to_pylist()


def _fetch_unit(
    path: str, units: Mapping[str, Unit], how: Fetching, network: Network, name: str, folder: Path
) -> dict[str, Any]:
    unit = units[name]
    rows = _read_rows(path, unit)
    got = fetch_rows(rows, how, network)
    return write_unit(folder, unit, rows, got, how.layout)


def fetch_rows(
    rows: Sequence[Mapping[str, Any]], how: Fetching, network: Network
) -> list[tuple[dict[str, Any], bytes | None]]:
    """(ledger row, JPEG or None) of each row, by `how.threads` threads."""
    urls = [str(row.get("url") or "") for row in rows]
    hosts = Hosts(urls, how.per_host, how.pause_s)
    robots = Robots(network, how.caps) if how.robots else None
    out: list[Any] = [None] * len(rows)

    def work() -> None:
        while (taken := hosts.take()) is not None:
            place, host, silent = taken
            answered = True
            try:
                if silent:
                    raise Refused("timeout", "the host gave no answer several times in a row")
                out[place] = _fetch_one(urls[place], how, network, robots)
            except Refused as refused:
                out[place] = {"status": refused.kind, "detail": refused.detail}, None
                answered = refused.kind not in _SILENT
            except Exception as error:  # whatever a hostile answer sets off is a row as well
                detail = f"{type(error).__name__}: {error}"[:200]
                out[place] = {"status": "failed", "detail": detail}, None
            finally:
                hosts.done(host, answered)

    threads = [threading.Thread(target=work, daemon=True, name="fetch")
               for _ in range(min(how.threads, max(1, len(rows))))]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return out


def _fetch_one(
    url: str, how: Fetching, network: Network, robots: Robots | None
) -> tuple[dict[str, Any], bytes]:
    agent = how.caps.agent
    look = (lambda headers: check_headers(headers, agent)) if how.opt_out else None
    answer = get(url, network, how.caps, robots.check if robots else None, look)
    picture: Picture = make_picture(answer.body, how.side, how.quality, how.limits)
    sizes = {name: value for name, value in picture._asdict().items() if name != "jpeg"}
    note = {
        "status": "ok",
        "bytes": len(answer.body),
        "sha256": hashlib.sha256(answer.body).hexdigest(),
        "hops": answer.hops,
    }
    return note | sizes, picture.jpeg


def _retry(
    out: Path, units: Sequence[Unit], path: Path, how: Fetching, network: Network, engine: str,
    workers: int | None, on_done: Any,
) -> None:  # fmt: skip
    """A round over units with passing failures; an unfinished round is gone on with."""
    number = 0
    while (out / "retries" / f"{number}" / "done.json").exists():
        number += 1
    folder = out / "retries" / f"{number}"
    failed = [u.name for u in units if any(map(_passing, read_ledger(out, u)))]
    work = partial(_retry_unit, str(out), str(path), {u.name: u for u in units}, how, network)
    run_units(folder, failed, work, {"round": number}, engine, workers, on_done)
    from vislang.files import write_json

    write_json(folder / "done.json", {"units": failed})


def _passing(row: Mapping[str, Any]) -> bool:
    return str(row["status"]).startswith(TRY_AGAIN)


def _retry_unit(
    out: str, path: str, units: Mapping[str, Unit], how: Fetching, network: Network, name: str,
    folder: Path,
) -> dict[str, Any]:  # fmt: skip
    unit = units[name]
    old = read_ledger(Path(out), unit)
    again = [place for place, row in enumerate(old) if _passing(row)]
    rows = _read_rows(path, unit)
    got: list[Any] = [(row, None) for row in old]
    for place, new in zip(again, fetch_rows([rows[place] for place in again], how, network)):
        got[place] = new
    return write_unit(Path(out), unit, rows, got, how.layout, keep_old=True)
