"""Detection with a localizer: every category of a COCO file asked of every picture, COCO's AP.

The answers are also written as COCO's own result file, which other tools can judge.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vislang.data.sample import BadSample
from vislang.errors import UserError
from vislang.evaluate.provenance import versions
from vislang.evaluate.scores import Scores
from vislang.files import fingerprint, read_json, run_units, write_json
from vislang.localize.phrases import Images
from vislang.localize.protocol import Localizer
from vislang.metrics.boxes import as_boxes
from vislang.metrics.detection import Detections, Matches, Objects


@dataclass(frozen=True)
class Instances:
    """A COCO instances file.

    Args:
        images: id -> {"file_name", "width", "height"}.
        categories: id -> name.
        annotations: {"image_id", "category_id", "bbox", "area", "iscrowd"}.
    """

    images: dict[Any, Mapping[str, Any]]
    categories: dict[Any, str]
    annotations: tuple[Mapping[str, Any], ...]

    def objects(self) -> dict[tuple[object, object], Objects]:
        """(image, category) -> its objects, as `Matches` takes them."""
        groups: dict[tuple[object, object], list[Mapping[str, Any]]] = {}
        for one in self.annotations:
            if one["image_id"] in self.images:
                groups.setdefault((one["image_id"], one["category_id"]), []).append(one)
        return {
            key: Objects(
                _corners([a["bbox"] for a in some]),
                np.array([int(a.get("iscrowd", 0)) for a in some]),
                np.array([a.get("area", a["bbox"][2] * a["bbox"][3]) for a in some], float),
            )
            for key, some in groups.items()
        }


def read_instances(file: Path | str) -> Instances:
    """Read a COCO instances file; repeated ids, and annotations of nothing known, are errors."""
    try:
        body = json.loads(Path(file).read_text(encoding="utf-8"))
        images = {i["id"]: i for i in body["images"]}
        categories = {c["id"]: c["name"] for c in body["categories"]}
        annotations = tuple(body["annotations"])
        strange = [
            a["id"]
            for a in annotations
            if a["image_id"] not in images
            or a["category_id"] not in categories
            or not a["bbox"][3:]
        ]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{file} is not a COCO instances file: {error!r}.") from error
    if len(images) < len(body["images"]):
        raise UserError(f"{file}: an image id occurs twice; each picture needs its own.")
    if strange:
        raise UserError(
            f"{file}: {len(strange)} annotations have no box x y w h, or name an image or a"
            f" category that is not listed; the first is {strange[0]}. Mend or remove them."
        )
    return Instances(images, categories, annotations)


def detect(
    localizer: Localizer, images: Images, some: Sequence[Mapping[str, Any]], names: Mapping
) -> list[dict[str, Any]]:
    """COCO results of these pictures; one that cannot be read has a row with the reason."""
    out: list[dict[str, Any]] = []
    for image in some:
        try:
            picture = images.read(str(image["file_name"]))
        except BadSample as bad:
            out.append({"image_id": image["id"], "reason": bad.reason})
            continue
        found = localizer([picture], [list(names.values())])[0]
        factor = np.ones(4)
        if image.get("width") and image.get("height"):  # boxes count in the file's own pixels
            height, width = picture.shape[:2]
            factor = np.array([image["width"] / width, image["height"] / height] * 2)
        for category, one in zip(names, found):
            for box, score in zip(one.boxes, one.scores):
                x1, y1, x2, y2 = (np.asarray(box, float) * factor).tolist()
                out.append({"image_id": image["id"], "category_id": category,
                            "bbox": [x1, y1, x2 - x1, y2 - y1], "score": float(score)})  # fmt: skip
    return out


def judge(instances: Instances, results: Sequence[Mapping[str, Any]], draws: int = 100) -> Scores:
    """COCO's numbers with bootstrap intervals over pictures, and the AP of each category."""
    groups: dict[tuple[object, object], list[Mapping[str, Any]]] = {}
    wrong = [r for r in results if "reason" in r]
    for one in results:
        if "reason" not in one:
            groups.setdefault((one["image_id"], one["category_id"]), []).append(one)
    found = {
        key: Detections(_corners([r["bbox"] for r in rows]), np.array([r["score"] for r in rows]))
        for key, rows in groups.items()
    }
    truth = instances.objects()
    if not truth:
        raise UserError("No picture has an object, so there is no average precision.")
    matches = Matches(found, truth)
    rows = [[instances.categories[c], n, ap] for c, (ap, n) in matches.per_category().items() if n]
    notes = [f"{len(wrong)} pictures could not be read and have no detection; the first:"
             f" {wrong[0]['image_id']}, {wrong[0]['reason']}."] if wrong else []  # fmt: skip
    table = {"columns": ["category", "objects", "AP"], "rows": sorted(rows, key=lambda r: -r[2])}
    return Scores("detection", len(instances.images), matches.intervals(draws),
                  {"per_category": table}, notes=notes)  # fmt: skip


def run_detection(
    localizer: Localizer,
    images: Images,
    instances: Instances,
    folder: Path | str,
    *,
    shard: int = 64,
    draws: int = 100,
    about: Mapping[str, Any] | None = None,
) -> Scores:
    """Detect in resumable pieces of `shard` pictures; `draws` of the bootstrap make intervals.

    Writes detections.json (COCO's result format), unread.json (pictures without an answer, with
    their reasons) and detection.json (the scores) into the folder.
    """
    folder, all_images = Path(folder), list(instances.images.values())
    units = {
        f"part-{k:05d}": all_images[at : at + shard]
        for k, at in enumerate(range(0, len(all_images), shard))
    }
    settings = {"localizer": localizer.name, "options": localizer.settings, "shard": shard,
                "images": fingerprint([str(i) for i in instances.images]),
                "categories": fingerprint([str(c) for c in instances.categories.values()]),
                **(about or {})}  # fmt: skip

    def work(unit: str, place: Path) -> Mapping[str, Any]:
        found = detect(localizer, images, units[unit], instances.categories)
        write_json(place / f"{unit}.json", found)
        return {"detections": len(found)}

    run_units(folder, list(units), work, settings)
    results = [r for unit in units for r in read_json(folder / f"{unit}.json")]
    scores = judge(instances, results, draws)
    scores.provenance.update(
        model=settings.get("model", ""), source=settings.get("source", ""), settings=settings,
        versions=versions(),
    )  # fmt: skip
    write_json(folder / "detections.json", [r for r in results if "reason" not in r])
    write_json(folder / "unread.json", [r for r in results if "reason" in r])
    write_json(folder / "detection.json", scores.as_json())
    return scores


def _corners(boxes: Sequence[Sequence[float]]) -> np.ndarray:
    rows = as_boxes(boxes).astype(np.float64)
    return np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:]], axis=1)
