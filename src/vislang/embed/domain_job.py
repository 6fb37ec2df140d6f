"""What a unit of images under domains, or of prompts, needs: models, pictures, a writer.

T: domains, n: images of a unit, D: width of the joint space.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from vislang.data.class_words import class_words, distinct_prompts, official_prompts
from vislang.data.decode import Limits
from vislang.data.sample import Source
from vislang.devices import autocast, pick_device, pick_precision
from vislang.embed.domain_pictures import DomainPictures
from vislang.embed.texts import embed_texts, evaluating
from vislang.errors import UserError
from vislang.store import DomainStore, DomainWriter

if TYPE_CHECKING:
    from vislang.data.domains.domain import Domain
    from vislang.models.dual import DualEncoder
    from vislang.preprocess import Preprocess

IMAGES, PROMPTS = 512, 8192  # most of a unit: what a kill can cost
HELD = 4096  # pictures that wait for several models, 0.6 GB at 224 pixels
KINDS = ("standard", "own", "official")


class DomainJob:
    """All that a unit needs, in this process; `embed_domains` says what the arguments mean."""

    def __init__(
        self,
        models: Mapping[str, DualEncoder],
        source: Source,
        domains: Sequence[Domain],
        seed: int,
        batch: int,
        workers: int,
        device: str,
        precision: str,
        dtype: str,
        limits: Limits,
    ):
        _check(models, source, batch)
        self.models, self.source, self.domains = models, source, domains
        self.seed, self.batch, self.workers, self.dtype = seed, batch, workers, dtype
        self.limits, self.device = limits, pick_device(device)
        self.precision = pick_precision(precision, self.device)
        self.preprocesses: dict[str, Preprocess] = {
            name: cast("Preprocess", model.side("image").tower.preprocess)
            for name, model in models.items()
        }
        self.distinct = list(dict.fromkeys(self.preprocesses.values()))
        self.pictures = DomainPictures(source, domains, self.distinct, seed, limits)
        self.words: tuple[tuple[str, ...], ...] = ()
        self.official: dict[str, list[str]] | None = None
        self.prompts: list[str] = []

    def about_classes(self, words: Any, kinds: Sequence[str]) -> None:
        """Words and prompts, where the source has classes."""
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown:
            raise UserError(f"kinds must be among {', '.join(KINDS)}, got {unknown[0]!r}.")
        if not self.source.classes:
            return
        self.words = class_words(self.source, words)
        # By default they are left out where their package is not there; asked for, it is missed.
        official = "official" in kinds and (tuple(kinds) != KINDS or find_spec("open_clip"))
        self.official = official_prompts(self.source, self.words) if official else None
        if any(model.text is not None for model in self.models.values()):
            templates = [text for domain in self.domains for text in domain.templates]
            self.prompts = distinct_prompts(templates, self.words, self.official)

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """Everything that the embeddings depend on."""
        from importlib.metadata import PackageNotFoundError, version

        from vislang.models.fingerprint import fingerprint_model

        try:  # the operations are OpenCV's
            opencv = version("opencv-python-headless")
        except PackageNotFoundError:
            opencv = None
        return {
            "models": {name: fingerprint_model(model) for name, model in self.models.items()},
            "source": self.source.fingerprint,
            "source_name": self.source.name,
            "samples": len(self.source),
            "shifts": [domain.described() for domain in self.domains],
            "seed": self.seed,
            "classes": list(self.source.classes),
            "words": [list(some) for some in self.words],
            "official": self.official,
            "preprocess": {name: asdict(p) for name, p in self.preprocesses.items()},
            "batch_size": self.batch,
            "precision": self.precision,
            "device": self.device.type,
            "dtype": self.dtype,
            "limits": asdict(self.limits),
            "opencv": opencv,
        }

    def units(self, size: int) -> tuple[dict[str, range], dict[str, range]]:
        """Units of images and of prompts: name -> positions."""
        if size < 1:
            raise UserError(f"unit_size must be at least 1, got {size}.")
        ranges = [
            range(at, min(at + size, shard.stop))
            for shard in self.source.shards()
            for at in range(shard.start, shard.stop, size)
        ]
        digits = max(4, len(str(len(ranges))))
        texts = [range(at, min(at + PROMPTS, len(self.prompts)))
                 for at in range(0, len(self.prompts), PROMPTS)]  # fmt: skip
        return (
            {f"{number:0{digits}d}": piece for number, piece in enumerate(ranges)},
            {f"prompts-{number:04d}": piece for number, piece in enumerate(texts)},
        )

    def writer(self, folder: Path, name: str) -> DomainWriter:
        """The writer of one model's store."""
        return DomainWriter(folder / name, [d.described() for d in self.domains], self.dtype)

    def work(
        self, images: Mapping[str, range], prompts: Mapping[str, range], unit: str, folder: Path
    ) -> dict[str, Any]:
        """One unit: files of every model, and the note."""
        if unit in prompts:
            return self._embed_prompts(unit, prompts[unit], folder)
        return self._embed_images(unit, images[unit], folder)

    def _embed_prompts(self, unit: str, piece: range, folder: Path) -> dict[str, Any]:
        texts = self.prompts[piece.start : piece.stop]
        notes = {}
        for name, model in self.models.items():
            if model.text is None:
                continue
            rows = embed_texts(
                model, texts, batch_size=self.batch, device=self.device, precision=self.precision
            )
            number = unit.partition("-")[2]
            notes[name] = self.writer(folder, name).write_prompts(number, texts, rows)
        return {"models": notes, "rejected": []}

    def _embed_images(self, unit: str, piece: range, folder: Path) -> dict[str, Any]:
        widths = {name: model.side("image").width for name, model in self.models.items()}
        rows = {
            name: np.zeros((len(self.domains), len(piece), width), np.float32)
            for name, width in widths.items()
        }
        ids, labels, missing, rejected = [], [], [], []
        waiting = _Waiting(self, rows)
        for at, views in enumerate(self.pictures.over(piece, self.workers)):
            ids.append(views.id)
            labels.append(views.label)
            missing += [(at, d, reason) for d, reason in views.reasons]
            rejected += [(views.id, reason, views.origin) for _, reason in views.reasons]
            waiting.add(at, views.domains, views.pictures)
        waiting.embed()
        notes = {
            name: self.writer(folder, name).write_images(unit, rows[name], ids, labels, piece,
                                                         missing)
            for name in self.models
        }  # fmt: skip
        return {"models": notes, "rejected": rejected}

    def finish(
        self,
        folder: Path,
        name: str,
        settings: Mapping[str, Any],
        notes: Mapping[str, Mapping[str, Any]],
        images: Mapping[str, range],
        prompts: Mapping[str, range],
    ) -> DomainStore:
        """Write the manifests of one model's store, unless it is whole."""
        if (folder / name / "manifest.json").exists():
            return DomainStore(folder / name)
        own = {k: v for k, v in settings.items() if k not in ("models", "preprocess", "shifts")}
        own |= {"model": settings["models"][name], "preprocess": settings["preprocess"][name]}
        has_text = self.models[name].text is not None
        return self.writer(folder, name).finish(
            [notes[unit]["models"][name] for unit in images],
            [notes[unit]["models"][name] for unit in prompts] if has_text else [],
            classes=self.source.classes,
            words=self.words,
            official=self.official,
            settings=own,
            rejected=[row for unit in images for row in notes[unit]["rejected"]],
        )


class _Waiting:
    """Pictures that wait until there are enough: for a forward pass, or with several models for
    many, so that each model is called for once (`models/swapped.py`) and has the device alone."""

    def __init__(self, job: DomainJob, rows: Mapping[str, np.ndarray]):
        self.job, self.rows = job, rows
        self.room = job.batch if len(job.models) == 1 else max(1, HELD // job.batch) * job.batch
        self.places: list[tuple[int, int]] = []  # (domain, image within the unit)
        self.pictures: list[list[Any]] = [[] for _ in job.distinct]

    def add(self, image: int, domains: Sequence[int], pictures: Sequence[Any]) -> None:
        self.places += [(d, image) for d in domains]
        for group, some in zip(self.pictures, pictures):
            group.append(some)
        while len(self.places) >= self.room:
            self.embed(self.room)

    def embed(self, count: int | None = None) -> None:
        """The first `count` pictures (all that wait) through every model, in batches."""
        import torch

        places = self.places[:count]
        if not places:
            return
        domain, image = np.array(places).T
        wholes = [torch.cat(group) for group in self.pictures]
        job = self.job
        for name, model in job.models.items():
            whole = wholes[job.distinct.index(job.preprocesses[name])]
            with evaluating(model, job.device), autocast(job.device, job.precision):
                for at in range(0, len(places), job.batch):
                    part = slice(at, min(at + job.batch, len(places)))
                    x = whole[part].to(job.device, non_blocking=True)
                    made = model.side("image")(x).float().cpu().numpy()
                    self.rows[name][domain[part], image[part]] = made
        self.pictures = [[whole[len(places) :]] for whole in wholes]
        self.places = self.places[len(places) :]


def _check(models: Mapping[str, DualEncoder], source: Source, batch: int) -> None:
    if not models:
        raise UserError("There are no models: give at least one, as {name: model}.")
    for name in models:
        if not re.fullmatch(r"\w[\w.-]*", name) or name == "units":
            raise UserError(
                f"The name {name!r} of a model becomes a folder: use letters, digits, _ . and -,"
                " and not 'units'."
            )
    if "image" not in source.gives:
        raise UserError(f"The source {source.name!r} has no images. Give one that has.")
    if batch < 1:
        raise UserError(f"batch must be at least 1, got {batch}.")
