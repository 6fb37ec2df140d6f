"""Grounding under described shifts: how far the boxes go astray, and whether words bring them back.

Each picture is shown under each domain. Where a domain moves the content (fisheye, tilt, ...), a
mask of the true boxes is moved by the same operation with the same randomness, and the box around
what becomes of it is the new truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.data.sample import BadSample
from vislang.errors import UserError
from vislang.evaluate.scores import Scores
from vislang.files import read_json, write_json
from vislang.localize.grounding import run_grounding
from vislang.localize.phrases import Grounded, Images
from vislang.localize.protocol import Localizer
from vislang.metrics import boxes as measure
from vislang.metrics.intervals import bootstrap_mean

if TYPE_CHECKING:
    from jaxtyping import Float

    from vislang.data.domains.domain import Domain

# Operations that move what is in the picture.
MOVING = ("vislang.data.domains.geometry:", "vislang.data.domains.corrupt_pixels:elastic")


class Shifted(Images):
    """The pictures of `images` under one domain."""

    def __init__(self, images: Images, domain: Domain, seed: int = 0):
        self.images, self.domain, self.seed = images, domain, seed

    def __contains__(self, name: str) -> bool:
        return name in self.images

    def read(self, name: str) -> np.ndarray:
        """The picture as uint8 [H, W, 3] under the domain; BadSample says why there is none."""
        return self.shift(self.images.read(name), name)

    def shift(self, pixels: np.ndarray, name: str) -> np.ndarray:
        """Any pixels as the domain changes the picture of this name."""
        from vislang.data.domains import apply_domains

        made = apply_domains(pixels, [self.domain], seed=self.seed, id=name)[0]
        if isinstance(made, BadSample):
            raise made
        return made

    def truth(self, phrase: Grounded) -> Grounded | None:
        """The phrase with its boxes where the domain puts them; None where nothing is left."""
        if not str(self.domain.operation).startswith(MOVING):
            return phrase
        try:
            size = self.images.read(phrase.image).shape[:2]
        except BadSample:
            return phrase  # the run says what is wrong with the picture
        boxes = measure.as_boxes(phrase.boxes)
        if phrase.size and min(phrase.size) > 0:
            boxes = boxes * np.array([size[1] / phrase.size[1], size[0] / phrase.size[0]] * 2)
        moved = [self._moved(box, size, phrase.image) for box in boxes]
        left = tuple(box for box in moved if box is not None)
        return replace(phrase, boxes=left, size=None) if left else None

    def _moved(
        self, box: Float[np.ndarray, " 4"], size: tuple[int, int], name: str
    ) -> tuple[float, float, float, float] | None:
        mask = np.zeros((*size, 3), np.uint8)
        x1, y1, x2, y2 = measure.clip_boxes(box[None], size)[0]
        mask[int(y1) : max(int(np.ceil(y2)), int(y1) + 1),
             int(x1) : max(int(np.ceil(x2)), int(x1) + 1)] = 255  # fmt: skip
        seen = self.shift(mask, name)[..., 0] > 127
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        if not len(rows):
            return None
        return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def run_shifts(
    localizer: Localizer,
    images: Images,
    phrases: Sequence[Grounded],
    folder: Path | str,
    domains: Sequence[Domain],
    *,
    named: bool = False,
    seed: int = 0,
    several: str = "union",
    shard: int = 64,
    about: Mapping[str, Any] | None = None,
) -> Scores:
    """Ground under each domain in resumable pieces, and compare each with the plain pictures.

    Args:
        localizer, images, phrases, several, shard, about: as for `run_grounding`.
        folder: each domain has a folder below it; the comparison is `shifts.json`.
        domains: which; noop, with which the others are compared, among them.
        named: ask by the domain's first template ("a drawing of a {}"), not by the phrase alone.
        seed: of random domains.

    Returns:
        Accuracy at IoU 0.5 under each domain, and the paired change against noop on the phrases
        that both have, with intervals over pictures.
    """
    if "noop" not in [domain.name for domain in domains]:
        raise UserError("The domains must hold noop, with which the others are compared.")
    domains = sorted(domains, key=lambda domain: domain.name != "noop")  # it comes first
    folder, right, notes = Path(folder), {}, []
    values, rows = {}, []
    for domain in domains:
        pictures = Shifted(images, domain, seed)
        moved = [p for p in map(pictures.truth, phrases) if p is not None]
        if len(moved) < len(phrases):
            notes.append(f"{domain.name} leaves nothing of {len(phrases) - len(moved)} phrases.")
        if named:
            moved = [replace(p, text=_spoken(domain, p.text)) for p in moved]
        place = folder / domain.name.replace("/", "-")
        told = {**(about or {}), "domain": domain.name, "named": named, "seed": seed}
        found = run_grounding(
            localizer, pictures, moved, place, several=several, shard=shard, about=told
        )
        records = read_json(place / "records.json")
        per = dict(zip([r["id"] for r in records], found.per_sample["iou"]["values"]))  # type: ignore[index]
        right[domain.name] = {id: iou > 0.5 for id, iou in per.items()}
        group = {r["id"]: r["image"] for r in records}
        plain = right["noop"]
        both = [id for id in right[domain.name] if id in plain]
        change = np.array([float(right[domain.name][id]) - float(plain[id]) for id in both])
        where = np.unique([group[id] for id in both], return_inverse=True)[1]
        moved_by = bootstrap_mean(change, where)
        accuracy, point = found.values["accuracy_iou50"], found.values["pointing"]
        values[f"{domain.name}_accuracy_iou50"] = accuracy
        if domain.name != "noop":
            values[f"{domain.name}_change"] = moved_by
        rows.append([domain.name, len(moved), accuracy.value, accuracy.low, accuracy.high,
                     point.value, found.values["mean_iou"].value, moved_by.value, moved_by.low,
                     moved_by.high])  # fmt: skip
    columns = ["domain", "n", "accuracy_iou50", "low", "high", "pointing", "mean_iou",
               "change", "change low", "change high"]  # fmt: skip
    scores = Scores(
        "shifts", len(phrases), values, {"domains": {"columns": columns, "rows": rows}},
        notes=notes, provenance=dict(found.provenance),
    )  # fmt: skip
    write_json(folder / "shifts.json", scores.as_json())
    return scores


def _spoken(domain: Domain, phrase: str) -> str:
    """The phrase in the domain's first template; an article that it brings itself is not doubled.

    "a drawing of a {}" with "a red mug" is "a drawing of a red mug".
    """
    template = domain.templates[0]
    first = phrase.partition(" ")[0].lower()
    if first in ("a", "an", "the", "two", "three", "several", "some", "his", "her", "their", "its"):
        template = template.replace("a {}", "{}")
    return template.replace("{}", phrase)
