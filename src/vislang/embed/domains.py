"""Images under every domain, and the prompts about them, into one store a model.

Units of images and of prompts are whole or absent, so a kill at any moment costs at most one.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislang.data.decode import Limits
from vislang.data.domains import open_domains
from vislang.data.sample import Source
from vislang.embed.domain_job import IMAGES, KINDS, DomainJob
from vislang.errors import UserError
from vislang.files import read_json, run_units
from vislang.store import DomainStore

if TYPE_CHECKING:
    from vislang.data.domains.domain import Domain
    from vislang.models.dual import DualEncoder


def embed_domains(
    models: Mapping[str, DualEncoder],
    source: Source | str | Path,
    domains: str | Sequence[str | Domain] = "described",
    folder: Path | str = "",
    *,
    seed: int = 0,
    batch: int = 256,
    workers: int = 0,
    part: tuple[int, int] = (0, 1),
    source_options: Mapping[str, Any] | None = None,
    sentences: Mapping[str, Sequence[str]] | None = None,
    axes: str = "corrected",
    words: Mapping[str, str | Sequence[str]] | Path | str | None = None,
    kinds: Sequence[str] = KINDS,
    device: str = "auto",
    precision: str = "auto",
    dtype: str = "float32",
    unit_size: int = IMAGES,
    limits: Limits = Limits(),  # noqa: B008  frozen
    trusted: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, DomainStore]:
    """Embed all samples under all domains with several models from one pass of making pictures.

    The store of a model is `folder/<name>`. Calling it again goes on where it stopped; parts in
    other processes or on other machines may fill the same folder at the same time.

    Args:
        models: name, fit for a folder -> dual encoder with an image side. Prompts are embedded by
            those that have a text side, if the source has classes. They are used one after the
            other, so `models.swapped.Swapped` gives many of them in the memory of one.
        source: a source, or a SOURCE of the commands.
        domains: as `open_domains` takes them; "noop" is always among them.
        folder: where stores and progress go.
        seed: of random domains; part of the settings.
        batch: pictures (or prompts) in one forward pass; part of the settings.
        workers: processes that make pictures; 0 makes them in this one.
        part: (i, n) takes every n-th unit, beginning with the i-th.
        source_options: arguments of the source's layout, where `source` is text.
        sentences: templates of domains that are the user's own.
        axes: of the background mask: corrected or original.
        words: words of the classes, see `class_words`.
        kinds: of prompts: standard and own always are there with classes; official (80 templates)
            comes from open_clip's package, and by default only where that is installed.
        device, precision: where and how the models compute.
        dtype: float32 or float16, on disk.
        unit_size: images of a unit.
        limits: what an image may cost.
        trusted: whether the user typed the names of the domains.
        on_progress: called with (images done, images of this part) after each unit.

    Returns:
        name -> store, once all parts are done; before that nothing.

    Raises:
        UserError: other settings than before, a class without words, or a full disk.
    """
    from vislang.data.sources import as_source

    source = as_source(source, source_options)
    chosen = open_domains(domains, sentences=sentences, axes=axes, trusted=trusted)
    job = DomainJob(models, source, chosen, seed, batch, workers, device, precision, dtype, limits)
    job.about_classes(words, kinds)
    return _run(job, Path(folder), part, unit_size, on_progress)


def _run(
    job: DomainJob,
    folder: Path,
    part: tuple[int, int],
    unit_size: int,
    on_progress: Callable[[int, int], None] | None,
) -> dict[str, DomainStore]:
    number, parts = part
    if not 0 <= number < parts:
        raise UserError(f"part must be (i, n) with 0 <= i < n, got {part}.")
    images, prompts = job.units(unit_size)
    every = [*prompts, *images]
    own = every[number::parts]
    total, done = sum(len(images[u]) for u in own if u in images), 0

    def report(unit: str, _: Mapping[str, Any]) -> None:
        nonlocal done
        done += len(images.get(unit, ()))
        if on_progress:
            on_progress(done, total)

    work = functools.partial(job.work, images, prompts)
    settings = job.settings | {"unit_size": unit_size}
    try:
        run_units(folder, own, work, settings, on_done=report)
    finally:
        job.pictures.close()
    notes = folder / "units"
    with _alone(folder):
        if not all((notes / f"{unit}.json").exists() for unit in every):
            return {}
        for left in [*folder.glob(".*.tmp"), *notes.glob(".*.tmp")]:  # of parts that were killed
            left.unlink(missing_ok=True)
        read = {unit: read_json(notes / f"{unit}.json") for unit in every}
        return {name: job.finish(folder, name, settings, read, images, prompts)
                for name in job.models}  # fmt: skip


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One part at a time; a process that is killed lets go by dying."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "finish.lock", "a") as file:
        try:
            import fcntl
        except ModuleNotFoundError:  # pragma: no cover  Windows: parts must end one by one
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
