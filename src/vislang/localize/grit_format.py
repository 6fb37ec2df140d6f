"""What an entry of a GRIT submission must look like, task by task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vislang.errors import UserError


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
