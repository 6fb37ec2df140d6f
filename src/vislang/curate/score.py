"""Every row of a collection judged by a classifier: a stream, the best K of each domain kept.

Each part is a unit of work: killed at any moment and repeated, the result is the same bytes.

n: rows of a part, C: domains, D: width, K: rows kept of each domain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.curate.blocks import map_blocks, memory_bytes
from vislang.curate.collections import Collection, Part
from vislang.curate.filters import Filters, total
from vislang.curate.topk import TopK
from vislang.errors import UserError
from vislang.files import (
    npy_bytes,
    plain,
    read_json,
    run_units,
    whole_file,
    write_json,
    write_whole,
)

if TYPE_CHECKING:
    from vislang.curate.classifier import DomainClassifier

K = 140_000
TOP, MANIFEST = "top.parquet", "scoring.json"
FULL = ("", "float32", "float16")
CANDIDATE = np.dtype([("domain", "<i2"), ("score", "<f4"), ("key", "<i8")])


@dataclass(frozen=True)
class Scoring:
    """How a collection is scored.

    Args:
        k: rows to keep of each domain.
        filters: rows that may not be kept.
        full: also write all log-probabilities beside the result, as float32 or float16.
        precision: auto, fp32 or bf16 of the products.
        block: rows at a time.
    """

    k: int = K
    filters: Filters = Filters()  # noqa: RUF009  frozen
    full: str = ""
    precision: str = "auto"
    block: int = 4096


@dataclass(frozen=True)
class _Job:
    collection: Collection
    folder: str
    how: Scoring
    threads: int
    past_cache: bool
    on_rows: Callable[[int, int], None] | None = None


def score_collection(
    collection: Collection,
    classifier: DomainClassifier,
    out: Path | str,
    how: Scoring = Scoring(),
    *,
    engine: str = "serial",
    workers: int | None = None,
    skip_bad: bool = False,
    on_rows: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write OUT/top.parquet (domain, rank, score, part, row), the best K of each domain.

    Equal scores are ordered as the original's heaps do: the image whose name (group, part, row)
    sorts later comes first. Rows with a score that is not finite (a NaN, a zero row) are counted
    and never kept.

    Args:
        collection: parts to score.
        classifier: of the same width.
        out: folder; the same command again goes on where it stopped.
        how: what to keep.
        engine: serial, processes (a part each; the fastest where there are more parts than
            cores) or ray.
        workers: processes.
        skip_bad: finish without the parts that cannot be used, instead of stopping at the end.
        on_rows: called with (rows, bytes) as they are done; a part at a time unless serial.

    Returns:
        The manifest: rows, refused, filtered, kept, parts left out.

    Raises:
        UserError: widths differ; or a part cannot be used, once all others are scored.
    """
    _check(collection, classifier, how)
    out = Path(out)
    settings = {
        "classifier": classifier.fingerprint,
        "domains": classifier.names,
        "parts": collection.fingerprint_of(),
        "how": {**asdict(how), "block": how.block},
    }
    classifier.save(out / "classifier")
    serial = engine == "serial"
    large = collection.nbytes > memory_bytes() / 2
    job = _Job(collection, str(out), how, 0 if serial else 1, large, on_rows if serial else None)
    running = _Running(out, len(classifier.names), how.k)

    def on_done(unit: str, note: Mapping[str, Any]) -> None:
        running.take(unit)
        if on_rows and not serial:
            on_rows(note["rows"], note["bytes"])

    units = [part.name for part in collection.parts]
    work = partial(_score_part, job)
    notes = run_units(out, units, work, plain(settings), engine, workers, on_done)
    for unit in notes:  # those of earlier calls
        running.add(unit)
    manifest = _finish(out, collection, classifier, how, notes, running.top)
    if collection.bad and not skip_bad:
        name, reason = next(iter(collection.bad.items()))
        raise UserError(
            f"{len(collection.bad)} parts cannot be used; all {len(notes)} others are scored."
            f" First, {name}: {reason} Mend them and repeat the command in another folder, or give"
            f" skip_bad to go on without them. All: {', '.join(collection.bad)}."
        )
    return manifest


def _check(collection: Collection, classifier: DomainClassifier, how: Scoring) -> None:
    if how.full not in FULL:
        raise UserError(f"full must be float32 or float16, or empty for none, got {how.full!r}.")
    if how.block < 1:
        raise UserError(f"block must be at least 1 row, got {how.block}.")
    if collection.width != classifier.width:
        raise UserError(
            f"{collection.address} has embeddings of width {collection.width}, the classifier"
            f" reads {classifier.width}: train it with the model that made the collection"
            " (LAION-5B's is open_clip:ViT-L-14-quickgelu/openai)."
        )


class _Running:
    """The best of all parts that are done; its K-th scores let workers turn most rows away.

    A floor is a lower bound of the final K-th score, so it changes what a part writes, but never
    the result.
    """

    def __init__(self, out: Path, domains: int, k: int):
        self.out, self.top = out, TopK(domains, k)
        self.taken: set[str] = set()

    def take(self, unit: str) -> None:
        self.add(unit)
        write_whole(self.out / "floor.npy", npy_bytes(self.top.lowest()))

    def add(self, unit: str) -> None:
        if unit not in self.taken:
            merge_candidates(self.top, self.out / "candidates" / f"{unit}.npy")
            self.taken.add(unit)


def merge_candidates(top: TopK, path: Path) -> None:
    """Add a part's candidates."""
    rows = np.load(path, allow_pickle=False)
    for domain in range(len(top.floor)):
        mine = rows[rows["domain"] == domain]
        top.merge(domain, mine["score"], mine["key"])


def _score_part(job: _Job, unit: str, folder: Path) -> dict[str, Any]:
    import torch

    from vislang.curate.classifier import load_classifier

    if job.threads:
        torch.set_num_threads(job.threads)
    part = next(p for p in job.collection.parts if p.name == unit)
    classifier = load_classifier(Path(job.folder) / "classifier")
    floor = folder / "floor.npy"
    low = np.load(floor, allow_pickle=False) if floor.exists() else None
    top = TopK(len(classifier.names), job.how.k, low)
    keep, filtered = _allowed(part, job.how.filters)
    rows, _ = part.shape
    writes = _full_file(folder, unit, job.how.full, rows, len(classifier.names))
    with writes as full:
        for first, scores in log_probs_of(part.array, classifier, job.how, job.past_cache):
            last = first + len(scores)
            keys = job.collection.keys(part, np.arange(first, last))
            top.add(scores, keys, None if keep is None else keep[first:last])
            if full is not None:
                full.write(np.ascontiguousarray(scores, job.how.full).tobytes())
            if job.on_rows:
                job.on_rows(len(scores), len(scores) * part.shape[1] * part.dtype.itemsize)
    kept = _write_candidates(folder / "candidates" / f"{unit}.npy", top, classifier.names)
    return {
        "rows": rows,
        "bytes": rows * part.shape[1] * part.dtype.itemsize,
        "refused": top.refused,
        "filtered": filtered,
        "candidates": kept,
    }


def log_probs_of(
    path: Path, classifier: DomainClassifier, how: Scoring, past_cache: bool = False
) -> Any:
    """(first row, log-probabilities float32 [b, C]) of an array's blocks; see `map_blocks`.

    Each of torch's threads takes blocks of its own, whole, so that none waits for another's part
    of a product, and a number does not depend on how many there are.
    """
    import torch

    from vislang.devices import pick_precision

    precision = pick_precision(how.precision, torch.device("cpu"))
    score = classifier.scorer(torch.bfloat16 if precision == "bf16" else torch.float32)
    threads = torch.get_num_threads()
    try:
        one = partial(torch.set_num_threads, 1)
        yield from map_blocks(
            path, score, how.block, threads=threads, begin=one, past_cache=past_cache
        )
    finally:  # it is each thread's own number, but also that of threads that come later
        torch.set_num_threads(threads)


def _allowed(part: Part, filters: Filters) -> tuple[np.ndarray | None, dict[str, int]]:
    if part.table is None:
        return None, {}
    return filters.mask(part.columns(filters.needed()))


def _full_file(folder: Path, unit: str, dtype: str, rows: int, domains: int) -> Any:
    """A .npy that grows block by block and appears when it is whole; nothing without dtype."""
    import contextlib

    if not dtype:
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def opened():
        with whole_file(folder / "log_probs" / f"{unit}.npy") as file:
            descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
            head = {"descr": descr, "fortran_order": False, "shape": (rows, domains)}
            np.lib.format.write_array_header_1_0(file, head)
            yield file

    return opened()


def _write_candidates(path: Path, top: TopK, names: tuple[str, ...]) -> dict[str, int]:
    parts, kept = [], {}
    for domain, name in enumerate(names):
        score, key = top.kept(domain)
        rows = np.empty(len(score), CANDIDATE)
        rows["domain"], rows["score"], rows["key"] = domain, score, key
        parts.append(rows)
        kept[name] = len(rows)
    write_whole(path, npy_bytes(np.concatenate(parts)))
    return kept


def _finish(
    out: Path, collection: Collection, classifier: DomainClassifier, how: Scoring,
    notes: Mapping[str, Mapping[str, Any]], top: TopK,
) -> dict[str, Any]:  # fmt: skip
    """Write the table and the manifest."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kept = {}
    parts = pa.array([part.name for part in collection.parts])
    numbers = {part.name: i for i, part in enumerate(collection.parts)}
    schema = pa.schema([("domain", pa.string()), ("rank", pa.int32()), ("score", pa.float32()),
                        ("part", pa.string()), ("row", pa.int64()),
                        ("key", pa.int64())])  # fmt: skip
    named: Any = ["domain", "part"]  # the other columns repeat nothing
    with (
        whole_file(out / TOP) as file,
        pq.ParquetWriter(file, schema, use_dictionary=named) as writer,
    ):
        for domain, name in enumerate(classifier.names):
            score, key = top.best(domain)
            kept[name] = len(score)
            part, row = np.empty(len(key), np.int32), np.empty(len(key), np.int64)
            for one, at, rows in collection.places(key):
                part[at], row[at] = numbers[one.name], rows
            arrays = [pa.repeat(name, len(key)), np.arange(len(key), dtype=np.int32),
                      score.astype(np.float32), parts.take(pa.array(part)), row, key]  # fmt: skip
            writer.write_table(pa.table(arrays, schema))
    manifest = {
        "domains": classifier.names,
        "k": how.k,
        "rows": sum(note["rows"] for note in notes.values()),
        "refused": sum(note["refused"] for note in notes.values()),
        "filtered": total(note["filtered"] for note in notes.values()),
        "kept": kept,
        "parts": len(notes),
        "left_out": collection.bad,
        "collection": collection.address,
        "classifier": classifier.fingerprint,
    }
    write_json(out / MANIFEST, manifest)
    return plain(manifest)


def read_scoring(folder: Path | str) -> dict[str, Any]:
    """The manifest of a finished scoring."""
    path = Path(folder) / MANIFEST
    if not path.exists():
        raise UserError(
            f"{folder} holds no finished scoring ({MANIFEST}). Run `vislang curate score` to its"
            " end; it goes on where it stopped."
        )
    return read_json(path)
