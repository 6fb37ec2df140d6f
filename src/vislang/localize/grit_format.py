"""A GRIT submission: what it must look like, task by task; written only when it is valid."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vislang.errors import UserError
from vislang.files import whole_file
from vislang.localize.grit_samples import TASKS, GritSample

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


def check_entry(task: str, entry: Any, place: int) -> None:
    """Raise a UserError that names the entry and what is wrong with it.

    words: a string; bboxes: x1 y1 x2 y2; masks: COCO's compressed runs with size and counts;
    points: 51 numbers x y v an instance; normal: a file name. No number may be NaN.
    """

    def wrong(what: str) -> UserError:
        name = entry.get("example_id", place) if isinstance(entry, Mapping) else place
        return UserError(f"{task}.json, entry {name!r}: {what}.")

    if not isinstance(entry, Mapping) or not isinstance(entry.get("example_id"), str):
        raise wrong("it has no example_id")
    if not _number(entry.get("confidence")) or not 0 <= entry["confidence"] <= 1:
        raise wrong(f"confidence must be in [0, 1], got {entry.get('confidence')!r}")
    if task in ("categorization", "vqa"):
        if not isinstance(entry.get("words"), str):
            raise wrong(f"words must be one string, got {entry.get('words')!r}")
    elif task in ("localization", "refexp"):
        _rows(entry.get("bboxes"), 4, "bboxes", wrong)
    elif task == "keypoint":
        _rows(entry.get("points"), 51, "points", wrong)
    elif task == "segmentation":
        masks = entry.get("masks")
        if not isinstance(masks, list):
            raise wrong("masks must be a list")
        for mask in masks:
            good = isinstance(mask, Mapping) and isinstance(mask.get("counts"), str)
            if not good or not _numbers(mask.get("size"), 2):
                raise wrong("a mask has size [height, width] and counts as text")
    elif not isinstance(entry.get("normal"), str):
        raise wrong("normal must be a file name in normals/")


def _rows(rows: Any, width: int, name: str, wrong: Any) -> None:
    if not isinstance(rows, list):
        raise wrong(f"{name} must be a list")
    for row in rows:
        if not _numbers(row, width):
            raise wrong(f"each of {name} has {width} finite numbers, got {row!r}")


def _numbers(row: Any, width: int) -> bool:
    return isinstance(row, list) and len(row) == width and all(map(_number, row))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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
