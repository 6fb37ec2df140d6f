"""Phrase grounding judged: accuracy at overlaps, per type of phrase, the pointing game.

A record is one phrase: what was found, what is true, or the reason why nothing could be found.
Every number stands beside that of a box in the middle and of a random box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vislang.data.sample import BadSample
from vislang.errors import UserError
from vislang.evaluate.provenance import versions
from vislang.evaluate.scores import Scores
from vislang.files import fingerprint, read_json, run_units, write_json
from vislang.localize.baselines import centre, random
from vislang.localize.phrases import Grounded, Images, by_image
from vislang.localize.protocol import Localizer
from vislang.metrics import boxes as measure
from vislang.metrics.intervals import Interval, bootstrap_mean

Record = dict[str, Any]
SEVERAL = ("union", "any")


def ground(
    localizer: Localizer, images: Images, phrases: Sequence[Grounded], batch: int = 8
) -> list[Record]:
    """A record for each phrase; a phrase without a usable picture has a reason and no box."""
    out: list[Record] = []
    groups = list(by_image(phrases))
    baselines = {"centre": centre(), "random": random()}
    for start in range(0, len(groups), batch):
        pictures, spoken, kept = [], [], []
        for name, some in groups[start : start + batch]:
            try:
                picture = images.read(name)
            except BadSample as bad:
                out += [_record(p, (0, 0)) | {"reason": bad.reason} for p in some]
                continue
            empty = [p for p in some if not p.text.strip()]
            out += [
                _record(p, picture.shape[:2]) | {"reason": "the phrase is empty"} for p in empty
            ]
            some = [p for p in some if p.text.strip()]
            pictures.append(picture)
            spoken.append([p.text for p in some])
            kept.append(some)
        if not pictures:
            continue
        found = localizer(pictures, spoken)
        others = {name: b(pictures, spoken) for name, b in baselines.items()}
        for k, some in enumerate(kept):
            for j, phrase in enumerate(some):
                one, size = found[k][j], pictures[k].shape[:2]
                record = _record(phrase, size)
                record |= {"boxes": one.boxes, "scores": one.scores, "notes": list(one.notes)}
                record["point"] = _point(one, size)
                for name, rows in others.items():
                    record[name] = rows[k][j].boxes[0]
                out.append(record)
    order = {p.id: i for i, p in enumerate(phrases)}
    return sorted(out, key=lambda r: order[r["id"]])


def _point(one: Any, size: Sequence[int]) -> list[float] | None:
    if one.heat is not None:
        return list(measure.peak(one.heat, (size[0], size[1])))
    if one.best is None:
        return None
    return _middle(one.best)


def _middle(box: Any) -> list[float] | None:
    if box is None:
        return None
    return [float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2]


def _record(phrase: Grounded, size: Sequence[int]) -> Record:
    """The phrase with its boxes in the picture that is really there, which may be smaller."""
    truth = measure.as_boxes(phrase.boxes)
    if phrase.size and min(size) > 0 and min(phrase.size) > 0:
        truth = truth * np.array([size[1] / phrase.size[1], size[0] / phrase.size[0]] * 2)
    return {
        "id": phrase.id, "image": phrase.image, "text": phrase.text, "kind": phrase.kind,
        "size": [int(size[0]), int(size[1])], "truth": truth.tolist(),
        "boxes": [], "scores": [], "point": None, "reason": None,
    }  # fmt: skip


def _overlap(box: Any, truth: Any, several: str) -> float:
    truth = measure.as_boxes(truth)
    if box is None or not len(truth):
        return 0.0
    if several == "union":
        truth = np.concatenate([truth[:, :2].min(0), truth[:, 2:].max(0)])[None]
    return float(measure.iou_matrix(measure.as_boxes(box)[:1], truth).max())


def judge(
    records: Sequence[Record],
    *,
    several: str = "union",
    thresholds: Sequence[float] = measure.THRESHOLDS,
    provenance: Mapping[str, Any] | None = None,
) -> Scores:
    """Scores of records, with intervals over pictures.

    "over_centre_iou50" is the paired difference from the box in the middle, on the same phrases.

    Args:
        records: of `ground`.
        several: boxes of one phrase count as their union (as zero-shot grounding merged them), or
            any of them will do.
        thresholds: of overlap. "iou50" is above it strictly, "iou50_inclusive" at it, too.
        provenance: goes into the scores.
    """
    if several not in SEVERAL:
        raise UserError(f"several must be one of {', '.join(SEVERAL)}, got {several!r}.")
    if not records:
        raise UserError("There is no phrase to judge.")
    groups = np.unique([r["image"] for r in records], return_inverse=True)[1]
    who = {"": "boxes", "centre_": "centre", "random_": "random"}
    overlaps = {
        prefix: np.array([_overlap(_first(r.get(key)), r["truth"], several) for r in records])
        for prefix, key in who.items()
    }
    values: dict[str, Interval] = {}
    for prefix, iou in overlaps.items():
        for t in thresholds:
            for strict in (True, False):
                name = f"{prefix}accuracy_iou{round(100 * t)}{'' if strict else '_inclusive'}"
                values[name] = _share(measure.hits(iou, t, strict), groups)
        values[f"{prefix}mean_iou"] = bootstrap_mean(iou, groups)
    above = (overlaps[""] > 0.5).astype(float) - (overlaps["centre_"] > 0.5)
    values["over_centre_iou50"] = bootstrap_mean(above, groups)
    pointed = {
        "": [r["point"] for r in records],
        "centre_": [[r["size"][1] / 2, r["size"][0] / 2] for r in records],
        "random_": [_middle(_first(r.get("random"))) for r in records],
    }
    for prefix, points in pointed.items():
        right = np.array([_points_at(p, r["truth"]) for p, r in zip(points, records)])
        values[f"{prefix}pointing"] = _share(right, groups)
    kinds = sorted({r["kind"] for r in records if r["kind"]})
    tables = {}
    if kinds:
        rows = []
        for kind in kinds:
            mine = np.array([r["kind"] == kind for r in records])
            share = [float((overlaps[p][mine] > 0.5).mean()) for p in who]
            own = _share(overlaps[""][mine] > 0.5, groups[mine])
            rows.append([kind, int(mine.sum()), share[0], own.low, own.high, *share[1:]])
        columns = ["kind", "n", "accuracy_iou50", "low", "high", "centre", "random"]
        tables["per_kind"] = {"columns": columns, "rows": rows}
    reasons: dict[str, int] = {}
    for r in records:
        if r["reason"]:
            kind = r["reason"].partition(":")[0]
            reasons[kind] = reasons.get(kind, 0) + 1
    notes = [
        f"{count} phrases without a picture or words count as wrong: {why}."
        for why, count in reasons.items()
    ]
    notes += _told(records)
    per_sample = {
        "iou": {"ids": [r["id"] for r in records], "values": overlaps[""].tolist(),
                "groups": [r["image"] for r in records]}
    }  # fmt: skip
    return Scores("grounding", len(records), values, tables, per_sample=per_sample,
                  provenance=dict(provenance or {}), notes=notes)  # fmt: skip


def _told(records: Sequence[Record]) -> list[str]:
    """What a reader should know of phrases that were cut and of boxes that lie nowhere."""
    found = []
    cut = sum(any("cut" in note for note in r.get("notes", ())) for r in records)
    if cut:
        found.append(f"{cut} phrases were as long as the text tower reads: their ends may be lost.")
    lost = 0
    for r in records:
        if not r["reason"]:
            height, width = r["size"]
            inside = measure.clip_boxes(measure.as_boxes(r["truth"]), (height, width))
            lost += not (measure.areas(inside) > 0).any()
    if lost:
        found.append(f"{lost} phrases have no true box within their picture and count as wrong.")
    return found


def _first(boxes: Any) -> Any:
    rows = measure.as_boxes(boxes if boxes is not None else [])
    return rows[0] if len(rows) else None


def _points_at(point: Any, truth: Any) -> bool:
    truth = measure.as_boxes(truth)
    if point is None or not len(truth):
        return False
    return bool(
        measure.inside(np.tile(np.asarray(point, np.float64), (len(truth), 1)), truth).any()
    )


def _share(right: np.ndarray, groups: np.ndarray) -> Interval:
    return bootstrap_mean(right.astype(float), groups, proportion=True)


def run_grounding(
    localizer: Localizer,
    images: Images,
    phrases: Sequence[Grounded],
    folder: Path | str,
    *,
    several: str = "union",
    shard: int = 64,
    about: Mapping[str, Any] | None = None,
) -> Scores:
    """Ground in resumable pieces of `shard` pictures; records lie in the folder, scores, too."""
    folder = Path(folder)
    groups = list(by_image(phrases))
    units = {
        f"part-{k:05d}": groups[at : at + shard]
        for k, at in enumerate(range(0, len(groups), shard))
    }
    settings = {"localizer": localizer.name, "options": localizer.settings, "shard": shard,
                "phrases": fingerprint([p.id for p in phrases]), **(about or {})}  # fmt: skip

    def work(unit: str, place: Path) -> Mapping[str, Any]:
        some = [p for _, group in units[unit] for p in group]
        write_json(place / f"{unit}.json", ground(localizer, images, some))
        return {"phrases": len(some)}

    run_units(folder, list(units), work, settings)
    records = [r for unit in units for r in read_json(folder / f"{unit}.json")]
    scores = judge(records, several=several, provenance={
        "model": settings.get("model", ""), "source": settings.get("source", ""),
        "settings": settings, "versions": versions(),
    })  # fmt: skip
    write_json(folder / "records.json", records)
    write_json(folder / "grounding.json", scores.as_json())
    return scores
