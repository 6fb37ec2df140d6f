"""The search as units of work: a kill costs one unit, and repeating the command goes on.

A unit is a number of small scopes, or a stripe of a large one. What it finds is written as pairs;
in the end the pairs of all units are merged, whatever their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vislang.curate.exact import Allowed, Nearest, make_bound, nearest_among, scan, seed
from vislang.curate.graph import Graph
from vislang.curate.lists import Lists
from vislang.errors import UserError
from vislang.files import run_units, whole_file

INDICES = ("exact", "ivf", "hnsw")
STRIPE = 16_384  # rows of a unit; a stripe of a million rows is a minute's work on two cores


@dataclass(frozen=True)
class _Unit:
    """Rows that one unit of work searches for.

    Args:
        scopes: the rows of each scope; of a stripe, of its only scope.
        stripe: which rows of the scope; None for whole scopes.
    """

    scopes: list[np.ndarray]
    stripe: range | None = None

    def __len__(self) -> int:
        return len(self.stripe) if self.stripe else sum(map(len, self.scopes))


def plan(group: np.ndarray) -> dict[str, _Unit]:
    """Units by name: whole scopes together, and stripes of scopes of more than STRIPE rows."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(group[order]) != 0]) if len(order) else []
    scopes = np.split(order, starts[1:]) if len(order) else []
    units: list[_Unit] = []
    small: list[np.ndarray] = []
    for rows in scopes:
        if len(rows) > STRIPE:
            stripes = (range(a, min(a + STRIPE, len(rows))) for a in range(0, len(rows), STRIPE))
            units += [_Unit([rows], stripe) for stripe in stripes]
            continue
        small.append(rows)
        if sum(map(len, small)) >= STRIPE:
            units.append(_Unit(small))
            small = []
    units += [_Unit(small)] if small else []
    return {f"{number:06d}": unit for number, unit in enumerate(units)}


class _Large:
    """A scope that is searched in stripes: what has been found so far, and with what."""

    def __init__(self, job: _Job, rows: np.ndarray, name: str):
        self.rows, self.x = rows, np.ascontiguousarray(job.x[rows])
        self.found = Nearest(len(rows), job.k, job.threshold)
        self.allowed = partial(_mapped, job.allowed, rows)
        self.graph: Graph | None = None
        self.lists: Lists | None = None
        if job.index == "hnsw":
            self.graph = Graph(self.x, job.recall, job.k, job.folder / f"graph-{name}.faiss")
            return
        self.bound = make_bound(self.x, job.precision, job.device)
        if job.index == "exact":
            seed(self.found, self.x, self.bound, self.allowed)
        else:
            path = job.folder / f"lists-{name}.npz"
            self.lists = Lists(
                self.x, self.bound, job.recall, job.k, job.threshold, self.allowed, path
            )
            self.lists.begin(self.found)

    @property
    def note(self) -> dict[str, Any] | None:
        """On an approximate search."""
        index = self.lists or self.graph
        return index.note if index else None

    def search(self, stripe: range) -> None:
        if self.graph is not None:
            for first in range(stripe.start, stripe.stop, 1024):
                rows = np.arange(first, min(first + 1024, stripe.stop))
                self.graph.search(self.found, rows, self.allowed)
        elif self.lists is not None:
            self.lists.search(self.found, stripe)
        else:
            for _ in scan(self.found, self.x, self.bound, self.allowed, stripe):
                pass


@dataclass
class _Job:
    x: np.ndarray
    k: int
    threshold: float
    allowed: Allowed
    folder: Path
    index: str
    recall: float
    device: str
    precision: str
    large: tuple[int, _Large] | None = None  # the first row of the scope tells which it is


def search_groups(
    x: np.ndarray,
    group: np.ndarray,
    k: int,
    threshold: float,
    allowed: Allowed,
    folder: Path,
    settings: Mapping[str, Any],
    index: str = "exact",
    recall: float = 0.99,
    device: str = "cpu",
    precision: str = "fp32",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Nearest, list[dict[str, Any]]]:
    """The k nearest allowed rows of every row within its group, and notes on approximate searches.

    Args:
        x: unit rows [n, D].
        group: number of each row's scope.
        k, threshold: how many, and the least similarity.
        allowed: symmetric test of pairs of rows.
        folder: for parts; repeating the call there goes on.
        settings: all that the result depends on.
        index, recall: exact, or ivf or hnsw with the recall to reach.
        device, precision: of the block products.
        on_progress: called with (rows done, rows).

    Raises:
        UserError: an unknown index, or a recall that cannot be.
    """
    if index not in INDICES:
        raise UserError(
            f"The index must be {', '.join(INDICES[:-1])} or {INDICES[-1]}; got {index!r}."
        )
    units = plan(group)
    job = _Job(x, k, threshold, allowed, folder, index, recall, device, precision)
    done = sum(len(units[name]) for name in units if (folder / "units" / f"{name}.json").exists())

    def report(name: str, note: Mapping[str, Any]) -> None:
        nonlocal done
        done += len(units[name])
        on_progress(done, len(x))

    work = partial(_search_unit, job, units)
    notes = run_units(folder, list(units), work, settings, on_done=report)
    found = Nearest(len(x), k, threshold)
    for name in units:
        found.add(*_read(folder / f"{name}.npy"))
    return found, [note["index"] for note in notes.values() if note.get("index")]


def _search_unit(job: _Job, units: dict[str, _Unit], name: str, folder: Path) -> dict[str, Any]:
    unit = units[name]
    note: dict[str, Any] = {"rows": len(unit)}
    if unit.stripe is None:
        found = [_search_scope(job, rows) for rows in unit.scopes if len(rows) > 1]
        pairs = _joined(found)
    else:
        large = _large(job, units, name)
        before = large.found.index.copy()
        large.search(unit.stripe)
        changed = (large.found.index != before).any(1)
        row, column, similarity = large.found.pairs()
        fresh = changed[row]
        if unit.stripe.start == 0:
            fresh[:] = True  # also what the first comparison with a sample has found
        pairs = large.rows[row[fresh]], large.rows[column[fresh]], similarity[fresh]
        if large.note and unit.stripe.start == 0:
            note["index"] = large.note
    _write(folder / f"{name}.npy", pairs)
    return note | {"pairs": len(pairs[0])}


def _search_scope(job: _Job, rows: np.ndarray) -> tuple[np.ndarray, ...]:
    found = nearest_among(
        np.ascontiguousarray(job.x[rows]), job.k, threshold=job.threshold,
        allowed=partial(_mapped, job.allowed, rows), device=job.device, precision=job.precision,
    )  # fmt: skip
    row, column, similarity = found.pairs()
    return rows[row], rows[column], similarity


def _large(job: _Job, units: dict[str, _Unit], name: str) -> _Large:
    """The state of a large scope: kept between its stripes, or read from those that are done."""
    rows = units[name].scopes[0]
    first = int(rows[0])
    if job.large is None or job.large[0] != first:
        state = _Large(job, rows, f"{first:09d}")
        place = np.zeros(len(job.x), np.int64)
        place[rows] = np.arange(len(rows))
        for done in _finished(job.folder, units, first):
            row, column, similarity = _read(done)
            state.found.add(place[row], place[column], similarity)
        job.large = first, state
    return job.large[1]


def _finished(folder: Path, units: dict[str, _Unit], first: int) -> Iterator[Path]:
    for name, unit in units.items():
        note = folder / "units" / f"{name}.json"
        if unit.stripe is not None and int(unit.scopes[0][0]) == first and note.exists():
            yield folder / f"{name}.npy"


def _mapped(allowed: Allowed, rows: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return allowed(rows[left], rows[right])


def _joined(found: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    return tuple(np.concatenate(parts) for parts in zip(*found))


_PAIR = np.dtype([("row", "<i8"), ("column", "<i8"), ("similarity", "<f8")])


def _write(path: Path, pairs: tuple[np.ndarray, ...]) -> None:
    table = np.empty(len(pairs[0]), _PAIR)
    for name, values in zip(_PAIR.names or (), pairs):
        table[name] = values
    with whole_file(path) as file:
        np.save(file, table, allow_pickle=False)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = np.load(path)
    return table["row"], table["column"], table["similarity"]
