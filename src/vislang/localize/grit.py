"""GRIT's localization and refexp tasks, from samples to a submission that is known to be whole.

Gupta et al. 2022, arXiv:2204.13653.  A run is cut into pieces; a piece is whole or absent, so a
killed run goes on where it stopped, and processes under torchrun share the pieces.
"""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vislang.data.decode import decode
from vislang.data.sample import BadSample
from vislang.errors import UserError
from vislang.evaluate.scores import Scores
from vislang.files import fingerprint, read_json, run_units, write_json
from vislang.localize.grit_samples import GritSample
from vislang.localize.opening import Opening, opened
from vislang.localize.protocol import Localizer
from vislang.metrics import grit as measure
from vislang.metrics.boxes import clip_boxes
from vislang.metrics.intervals import Interval


@dataclass(frozen=True)
class Confidence:
    """From a localizer's score to a probability: 1 / (1 + exp(-(a · score + b))).

    `fit` is Platt's scaling on samples whose metric is known, by Newton steps, with a small ridge.
    """

    a: float = 4.0
    b: float = -2.0

    def __call__(self, score: float) -> float:
        """In [0, 1]; 0.5 for what is no number."""
        if not math.isfinite(score):
            return 0.5
        return float(1 / (1 + math.exp(-min(60.0, max(-60.0, self.a * score + self.b)))))

    @classmethod
    def fit(cls, scores: Sequence[float], metrics: Sequence[float]) -> Confidence:
        """Least cross-entropy with metrics in [0, 1]."""
        x = np.stack([np.asarray(scores, np.float64), np.ones(len(scores))], 1)
        y = np.asarray(metrics, np.float64)
        if len(y) < 2:
            raise UserError("A calibration needs at least two samples whose truth is known.")
        w = np.zeros(2)
        for _ in range(50):
            p = 1 / (1 + np.exp(-np.clip(x @ w, -60, 60)))
            slope = x.T @ (p - y) + 1e-3 * w
            curve = (x * (p * (1 - p))[:, None]).T @ x + 1e-3 * np.eye(2)
            step = np.linalg.solve(curve, slope)
            w -= step
            if np.abs(step).max() < 1e-10:
                break
        return cls(float(w[0]), float(w[1]))


def answer(
    localizer: Localizer,
    samples: Sequence[GritSample],
    images: Path | str,
    confidence: Callable[[float], float] = Confidence(),
) -> list[dict[str, Any]]:
    """An entry for every sample; an unusable one has no box and confidence 0, and says why."""
    entries: dict[str, dict[str, Any]] = {}
    groups: dict[str, list[GritSample]] = {}
    for sample in samples:
        if sample.query.strip():
            groups.setdefault(sample.image, []).append(sample)
        else:
            entries[sample.id] = _empty(sample, "the query is empty")
    pictures, asked = [], []
    for name, some in groups.items():
        try:
            pictures.append(_read(Path(images), name))
            asked.append(some)
        except BadSample as bad:
            entries |= {s.id: _empty(s, bad.reason) for s in some}
    found = localizer(pictures, [[s.query for s in some] for some in asked]) if pictures else []
    for picture, some, rows in zip(pictures, asked, found):
        for sample, one in zip(some, rows):
            boxes = clip_boxes(one.boxes, (picture.shape[0], picture.shape[1]))
            score = float(one.scores[0]) if len(one.scores) else 0.0
            entries[sample.id] = {
                "example_id": sample.id,
                "confidence": confidence(score) if len(boxes) else 0.0,
                "bboxes": [[round(float(v), 2) for v in box] for box in boxes],
                "score": score if math.isfinite(score) else 0.0,
            }
    return [entries[sample.id] for sample in samples]


def _read(images: Path, name: str) -> np.ndarray:
    path = (images / name).resolve()
    if not path.is_relative_to(images.resolve()):
        raise BadSample(name, "no image: the path leads out of the folder", str(images))
    if not path.is_file():
        raise BadSample(name, "no image: there is no such file", str(path))
    return decode(path)


def _empty(sample: GritSample, reason: str) -> dict[str, Any]:
    return {
        "example_id": sample.id,
        "confidence": 0.0,
        "bboxes": [],
        "score": 0.0,
        "reason": reason,
    }


def run_grit(
    localizer: Localizer | Opening,
    samples: Sequence[GritSample],
    images: Path | str,
    folder: Path | str,
    *,
    confidence: Confidence = Confidence(),
    shard: int = 64,
    engine: str = "serial",
    workers: int | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, list[dict[str, Any]]] | None:
    """Answer all samples in resumable pieces; under torchrun each process does its share.

    Args:
        localizer: one, or for the engines processes and ray what opens it elsewhere.
        samples, images, confidence: see `answer`.
        folder: of the pieces.
        shard: samples in a piece.
        engine: serial, processes or ray.
        workers: processes; by default all cores.
        about: more of what the answers depend on.
        progress: is told of each finished piece, and how long the rest may take.

    Returns:
        task -> entries in the samples' order, or None while other processes still work.
    """
    folder = Path(folder)
    tasks = sorted({s.task for s in samples})
    units: dict[str, list[GritSample]] = {}
    for task in tasks:
        some = [s for s in samples if s.task == task]
        for k, at in enumerate(range(0, len(some), shard)):
            units[f"{task}-{k:05d}"] = some[at : at + shard]
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    settings = {"localizer": localizer.name, "options": localizer.settings, "shard": shard,
                "confidence": [confidence.a, confidence.b],
                "samples": fingerprint([[s.id, s.image, s.query] for s in samples]),
                **(about or {})}  # fmt: skip
    mine = list(units)[rank::world]
    left = [u for u in mine if not (folder / "units" / f"{u}.json").exists()]
    if engine == "serial":
        work = functools.partial(_work, localizer, images, confidence, units)
    else:
        if not isinstance(localizer, Opening):
            raise UserError(f"engine {engine!r} starts processes: give an Opening, not a model.")
        for unit in left:  # a process is told the piece, not all samples
            asked = [[s.id, s.image, s.task, s.query] for s in units[unit]]
            write_json(folder / "asked" / f"{unit}.json", asked)
        work = functools.partial(_work, localizer, images, confidence, None)
    run_units(folder, mine, work, settings, engine, workers, on_done=_teller(len(left), progress))
    if any(not (folder / "units" / f"{u}.json").exists() for u in units):
        return None
    return {
        task: [e for u in units if u.startswith(task) for e in read_json(folder / f"{u}.json")]
        for task in tasks
    }


def _work(
    localizer: Localizer | Opening,
    images: Path | str,
    confidence: Confidence,
    units: Mapping[str, Sequence[GritSample]] | None,
    unit: str,
    place: Path,
) -> Mapping[str, Any]:
    if units is None:
        some = [GritSample(*asked) for asked in read_json(place / "asked" / f"{unit}.json")]
    else:
        some = list(units[unit])
    ready = opened(localizer) if isinstance(localizer, Opening) else localizer
    entries = answer(ready, some, images, confidence)
    write_json(place / f"{unit}.json", entries)
    return {"samples": len(entries), "without": sum("reason" in e for e in entries)}


def _teller(
    pieces: int, progress: Callable[[str], None] | None
) -> Callable[[str, Mapping[str, Any]], None]:
    started, done = time.monotonic(), [0]

    def tell(unit: str, note: Mapping[str, Any]) -> None:
        done[0] += 1
        if progress:
            rest = (time.monotonic() - started) / done[0] * (pieces - done[0])
            progress(f"{unit}: {done[0]} of {pieces} pieces, {rest / 60:.1f} min left")

    return tell


def judge_answers(
    answers: Mapping[str, Sequence[Mapping[str, Any]]], samples: Sequence[GritSample]
) -> list[measure.Judged]:
    """Metric and confidence of every answered sample whose truth is known."""
    known = {s.id: s for s in samples if s.truth}
    out = []
    for task, entries in answers.items():
        for entry in entries:
            sample = known.get(entry["example_id"])
            truth = sample.truth if sample else None
            if sample is None or truth is None or sample.task != task:
                continue
            if task == "localization":
                metric = measure.localization(entry["bboxes"], truth.get("bboxes") or [])
            elif task == "refexp":
                metric = measure.refexp(entry["bboxes"], truth["bboxes"])
            elif task == "categorization":
                metric = measure.categorization(entry["words"], truth["words"][0])
            elif task == "vqa":
                metric = measure.vqa([entry["words"]], truth["words"])
            else:
                continue
            out.append(
                measure.Judged(
                    sample.id, task, metric, float(entry["confidence"]), sample.new_source,
                    sample.new_concept, sample.groups,
                )
            )  # fmt: skip
    return out


def grit_scores(
    judged: Sequence[measure.Judged], provenance: Mapping[str, Any] | None = None
) -> Scores:
    """All of GRIT's published numbers as scores; in per cent, as they are published."""
    rows = measure.aggregate(judged)
    values = {
        name: Interval(row["value"], row["low"], row["high"], int(row["n"]), "as GRIT's 95%")
        for name, row in rows.items()
    }
    per_sample = {
        "metric": {"ids": [j.id for j in judged], "values": [j.metric for j in judged],
                   "groups": [j.id.removesuffix("_dist") for j in judged]}
    }  # fmt: skip
    notes = [
        "Values are per cent. Tasks that were not answered count 0 in agg.all, so that boxes alone"
        " reach 14 at most; sameSrc and newSrc need two samples each."
    ]
    return Scores("grit", len(judged), values, per_sample=per_sample,
                  provenance=dict(provenance or {}), notes=notes)  # fmt: skip
