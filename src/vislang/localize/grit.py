"""GRIT's localization and refexp tasks, from samples to a submission that is known to be whole.

Gupta et al. 2022, arXiv:2204.13653.  A run is cut into pieces; a piece is whole or absent, so a
killed run goes on where it stopped, and processes under torchrun share the pieces.
"""

from __future__ import annotations

import io
import json
import math
import os
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vislang.data.decode import decode
from vislang.data.sample import BadSample
from vislang.errors import UserError
from vislang.files import fingerprint, read_json, run_units, whole_file, write_json
from vislang.localize.protocol import Localizer
from vislang.metrics import grit as measure
from vislang.metrics.boxes import clip_boxes

TASKS = tuple(measure.TASKS)
BOXED = ("localization", "refexp")
SUBSETS = ("ablation", "test")
ANSWERS = {
    "categorization": "words",
    "vqa": "words",
    "localization": "bboxes",
    "refexp": "bboxes",
    "segmentation": "masks",
    "keypoint": "points",
    "normal": "normal",
}


@dataclass(frozen=True)
class GritSample:
    """One sample: what is asked of which picture, and the truth where it is known."""

    id: str
    image: str
    task: str
    query: str
    truth: Mapping[str, Any] | None = None
    source: str = ""


def read_samples(file: Path | str, tasks: Sequence[str] = BOXED) -> list[GritSample]:
    """Samples of GRIT/samples/SUBSET/TASK.json, or of the released examples (task -> list).

    Samples of tasks not asked for are left out; ids must be unique.
    """
    body = read_json(file)
    rows: list[Mapping[str, Any]]
    if isinstance(body, Mapping):  # released examples: they have no ids and know the truth
        if any(
            not isinstance(r, Mapping) or "image_path" not in r.get("input", ())
            for some in body.values()
            for r in (some if isinstance(some, list) else [some])
        ):
            raise UserError(
                f"{file} has neither form of GRIT's samples: a list of {{example_id, image_id,"
                " task_name, task_query}, or task -> list of {input: {image_path, task_query}}."
            )
        rows = [
            {"example_id": f"{task}_{k}", "task_name": task, "image_id": r["input"]["image_path"],
             "task_query": r["input"].get("task_query"), "gt": r.get("gt"), "src": r.get("src", "")}
            for task, some in body.items() for k, r in enumerate(some)
        ]  # fmt: skip
    else:
        rows = body
    out: dict[str, GritSample] = {}
    for place, row in enumerate(rows):
        try:
            task, name = str(row["task_name"]), str(row["example_id"])
            image = str(row["image_id"])
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{file}, sample {place}: {error!r}. A sample has example_id, image_id, task_name."
            ) from error
        if task not in TASKS:
            raise UserError(f"{file}: no task is called {task!r}. Known: {', '.join(TASKS)}.")
        if task not in tasks:
            continue
        if name in out:
            raise UserError(f"{file}: the example_id {name!r} occurs twice.")
        out[name] = GritSample(
            name,
            image,
            task,
            str(row.get("task_query") or ""),
            row.get("gt"),
            str(row.get("src", "")),
        )
    if not out:
        raise UserError(f"{file} holds no sample of {', '.join(tasks)}.")
    return list(out.values())


def distort(image: np.ndarray, delta: np.ndarray, out_of_range: str = "wrap") -> np.ndarray:
    """image + delta as uint8: wrap (as GRIT generates its distorted pictures) or clip."""
    if image.shape != delta.shape:
        raise UserError(f"The delta is {list(delta.shape)}, the picture {list(image.shape)}.")
    if out_of_range not in ("wrap", "clip"):
        raise UserError(f"out_of_range must be wrap or clip, got {out_of_range!r}.")
    wide = np.float64 if np.issubdtype(delta.dtype, np.floating) else np.int64
    total = image.astype(wide) + delta.astype(wide)
    if out_of_range == "clip":
        return np.clip(total, 0, 255).astype(np.uint8)
    return np.trunc(total).astype(np.int64).astype(np.uint8)


def make_distorted(
    root: Path | str, samples: Sequence[GritSample], deltas: Path | str, out_of_range: str = "wrap"
) -> int:
    """Write the distorted pictures of samples whose image lies in distorted/; how many were new.

    Args:
        root: the GRIT folder, pictures in root/images.
        samples: of one task.
        deltas: its dist_deltas_TASK_SUBSET.hdf5: example_id without "_dist" -> array.
        out_of_range: see `distort`.
    """
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise UserError("GRIT's distortions need the package h5py: pip install h5py.") from error
    from PIL import Image

    made = 0
    images = Path(root) / "images"
    with h5py.File(deltas, "r") as file:
        for sample in samples:
            parts = Path(sample.image).parts
            target = images / sample.image
            if "distorted" not in parts or target.exists():
                continue
            key = sample.id.removesuffix("_dist")
            if key not in file:
                raise UserError(f"{deltas} has no delta for {key!r}.")
            # distorted/<task>/<original path>
            original = images / Path(*parts[parts.index("distorted") + 2 :])
            pixels = distort(decode(original), np.asarray(file[key]), out_of_range)
            kind = {".jpg": "JPEG", ".jpeg": "JPEG"}.get(target.suffix.lower(), "PNG")
            with whole_file(target) as handle:
                Image.fromarray(pixels).save(handle, kind)
            made += 1
    return made


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
    localizer: Localizer,
    samples: Sequence[GritSample],
    images: Path | str,
    folder: Path | str,
    *,
    confidence: Confidence = Confidence(),
    shard: int = 64,
    about: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, list[dict[str, Any]]] | None:
    """Answer all samples in resumable pieces; under torchrun each process does its share.

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
    started, done = time.monotonic(), [0]
    mine = list(units)[rank::world]
    left = [u for u in mine if not (folder / "units" / f"{u}.json").exists()]

    def work(unit: str, place: Path) -> Mapping[str, Any]:
        entries = answer(localizer, units[unit], images, confidence)
        write_json(place / f"{unit}.json", entries)
        return {"samples": len(entries), "without": sum("reason" in e for e in entries)}

    def tell(unit: str, note: Mapping[str, Any]) -> None:
        done[0] += 1
        if progress:
            spent = time.monotonic() - started
            rest = spent / done[0] * (len(left) - done[0])
            progress(f"{unit}: {done[0]} of {len(left)} pieces, {rest / 60:.1f} min left")

    run_units(folder, mine, work, settings, on_done=tell)
    missing = [u for u in units if not (folder / "units" / f"{u}.json").exists()]
    if missing:
        return None
    return {
        task: [e for u in units if u.startswith(task) for e in read_json(folder / f"{u}.json")]
        for task in tasks
    }


def write_submission(
    file: Path | str,
    answers: Mapping[str, Sequence[Mapping[str, Any]]],
    samples: Sequence[GritSample],
    parameters: int,
) -> Path:
    """The zip that GRIT's server takes, written only when it is valid.

    Args:
        file: its name must be ablation.zip or test.zip.
        answers: task -> entries.
        samples: all samples of the subset; each task's must all be answered.
        parameters: of the model, in millions.
    """
    file = Path(file)
    subset = file.stem
    if file.suffix != ".zip" or subset not in SUBSETS:
        raise UserError(f"A submission is called ablation.zip or test.zip, not {file.name}.")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        files = {"params.json": {"params_in_millions": int(parameters)}}
        for task, entries in answers.items():
            keys = ("example_id", "confidence", ANSWERS[task])
            files[f"{task}.json"] = [{k: e[k] for k in keys} for e in entries]  # type: ignore[assignment]
        for name, body in files.items():
            # A fixed date: the same answers are the same bytes.
            info = zipfile.ZipInfo(f"{subset}/{name}", (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            made.writestr(info, json.dumps(body))
    validate_submission(buffer.getvalue(), subset, samples)
    with whole_file(file) as handle:
        handle.write(buffer.getvalue())
    return file


def validate_submission(
    data: bytes | Path, subset: str, samples: Sequence[GritSample]
) -> dict[str, int]:
    """Number of entries of each task in a submission; the first fault is an error."""
    from vislang.localize.grit_format import check_entry

    with zipfile.ZipFile(io.BytesIO(data) if isinstance(data, bytes) else data) as made:
        names = [n for n in made.namelist() if not n.endswith("/")]
        wrong = [n for n in names if not n.startswith(f"{subset}/")]
        if wrong or f"{subset}/params.json" not in names:
            raise UserError(
                f"A submission is one folder {subset}/ with params.json; got {names[:9]}."
            )
        bodies = {n.partition("/")[2]: made.read(n) for n in names if n.endswith(".json")}
    parameters = json.loads(bodies.pop("params.json"))
    if not isinstance(parameters.get("params_in_millions"), int):
        raise UserError("params.json must hold params_in_millions, a whole number.")
    counts = {}
    for name, body in bodies.items():
        task = name.removesuffix(".json")
        if task not in TASKS:
            raise UserError(f"{name} belongs to no task. Known: {', '.join(TASKS)}.")
        entries = json.loads(body)
        seen: set[str] = set()
        for place, entry in enumerate(entries):
            check_entry(task, entry, place)
            if entry["example_id"] in seen:
                raise UserError(f"{name}: the example_id {entry['example_id']!r} occurs twice.")
            seen.add(entry["example_id"])
        expected = {s.id for s in samples if s.task == task}
        if expected - seen:
            some = sorted(expected - seen)
            raise UserError(
                f"{name} answers {len(seen)} samples, {len(some)} are missing, first {some[0]!r}:"
                " GRIT refuses such a submission. Repeat the run to fill the gap."
            )
        counts[task] = len(entries)
    return counts


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
            out.append(measure.Judged(sample.id, task, metric, float(entry["confidence"])))
    return out
