"""A whole source into a store, unit by unit: a kill at any moment leaves nothing torn."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislang.data.decode import Limits
from vislang.data.sample import Source
from vislang.embed.embedder import Embedder, Part, disable_inner_threads
from vislang.errors import UserError
from vislang.files import run_units
from vislang.store import Store, StoreWriter, open_store

if TYPE_CHECKING:
    from vislang.models.dual import DualEncoder

UNIT = 4096  # most samples of a unit: what a kill can cost, and the size of a part's files


def embed_source(
    model: DualEncoder | str | Path,
    source: Source | str | Path,
    folder: Path | str,
    *,
    what: Sequence[str] = ("image", "text"),
    source_options: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    device: str = "auto",
    precision: str = "auto",
    workers: int = 0,
    dtype: str = "float32",
    unit_size: int = UNIT,
    engine: str = "serial",
    processes: int | None = None,
    limits: Limits = Limits(),  # noqa: B008  frozen
    on_progress: Callable[[int, int], None] | None = None,
) -> Store:
    """Fill a store with the embeddings of a source; calling it again goes on where it stopped.

    A shard, cut into units of at most `unit_size` samples, is embedded and written whole, or not
    at all. Samples that cannot be used become rows of rejected.parquet. The embeddings are those
    of the shared space, not normalised.

    Args:
        model: a dual encoder, or a MODEL of the commands.
        source: a source, or a SOURCE of the commands.
        folder: the store to fill; one made under other settings is refused.
        what: image, text (all captions) and features (the image tower's output).
        source_options: arguments of the source's layout, where `source` is text.
        batch_size: samples a forward pass; part of the settings.
        device, precision: where and how the model computes.
        workers: loader processes; 0 loads in this process.
        dtype: float32 or float16 on disk.
        unit_size: most samples in a unit.
        engine: serial, processes or ray; the latter two need `model` and `source` as text.
        processes: how many, for engine processes.
        limits: what an image may cost.
        on_progress: called with (samples done, samples) after each unit.

    Raises:
        UserError: other settings, a source or model that lacks what is asked, or a full disk.
    """
    folder = Path(folder)
    job = _Job(
        model, source, dict(source_options or {}), tuple(what), batch_size, device, precision,
        workers, dtype, unit_size, limits, engine,
    )  # fmt: skip
    if engine != "serial" and not job.portable:
        raise UserError(
            f"engine {engine!r} starts processes that open the model and the source themselves:"
            " give both as text (a run folder or a name, and a path), or use engine serial."
        )
    if unit_size < 1:
        raise UserError(f"unit_size must be at least 1, got {unit_size}.")
    embedder = job.embedder()
    settings = embedder.settings | {"dtype": dtype, "unit_size": unit_size}
    units = job.units(embedder.source)
    done = {"samples": 0}

    def report(unit: str, note: Mapping[str, Any]) -> None:
        done["samples"] += len(units[unit])
        if on_progress:
            on_progress(done["samples"], len(embedder.source))

    work = functools.partial(_embed_unit, job)
    try:
        notes = run_units(folder, list(units), work, settings, engine, processes, report)
    finally:
        embedder.close()
        _opened.cache_clear()
    rejected = [tuple(row) for note in notes.values() for row in note["rejected"]]
    StoreWriter(folder, dtype).finish(list(notes.values()), settings, rejected)
    return open_store(folder)


class _Job:
    """What a unit needs; picklable when model and source are text."""

    def __init__(self, *fields: Any):
        (
            self.model, self.source, self.source_options, self.what, self.batch_size, self.device,
            self.precision, self.workers, self.dtype, self.unit_size, self.limits, self.engine,
        ) = fields  # fmt: skip
        self.portable = all(isinstance(part, str | Path) for part in (self.model, self.source))
        self.started = os.getpid()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Job) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((str(self.model), str(self.source), self.started))

    def embedder(self) -> Embedder:
        """The embedder of this process; model and source are opened once in each."""
        if self.started != os.getpid():
            disable_inner_threads()
        return _opened(self)

    def units(self, source: Source) -> dict[str, range]:
        """Number of the part, as text -> the samples in it."""
        pieces = [
            range(at, min(at + self.unit_size, shard.stop))
            for shard in source.shards()
            for at in range(shard.start, shard.stop, self.unit_size)
        ]
        digits = max(4, len(str(len(pieces))))
        return {f"{number:0{digits}d}": piece for number, piece in enumerate(pieces)}


@functools.lru_cache(maxsize=1)
def _opened(job: _Job) -> Embedder:
    from vislang.data.sources import as_source
    from vislang.models.pretrained import as_model

    model, source = as_model(job.model), as_source(job.source, job.source_options)
    return Embedder(
        model, source, job.what, batch_size=job.batch_size, device=job.device,
        precision=job.precision, workers=job.workers, limits=job.limits,
    )  # fmt: skip


def _embed_unit(job: _Job, unit: str, folder: Path) -> dict[str, Any]:
    """Embed one unit and write its files; the note that says so is written by run_units."""
    embedder = job.embedder()
    part: Part = embedder.embed(job.units(embedder.source)[unit])
    note = StoreWriter(folder, job.dtype).write_part(
        unit, part.metadata, part.text_metadata, image=part.image, text=part.text,
        features=part.features,
    )  # fmt: skip
    return note | {"rejected": part.rejected}
