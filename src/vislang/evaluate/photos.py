"""Real photos with words on paper: what the model answers with and without.

P: photos, A: answers (every object and every written word), D: width.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.data.trees import is_image
from vislang.errors import UserError
from vislang.files import fingerprint
from vislang.metrics.intervals import Interval, normal_mean, wilson
from vislang.metrics.true_class import unit64

if TYPE_CHECKING:
    from jaxtyping import Float

    from vislang.evaluate.analyses import Probed


@dataclass(frozen=True)
class Photos:
    """Photos, and what they are compared with.

    Args:
        files: names of the photos.
        objects: what each shows.
        words: what is written on each; empty for nothing.
        images: [P, D].
        answers: the distinct objects and words, ignoring case.
        texts: one row an answer [A, D].
    """

    files: Sequence[str]
    objects: Sequence[str]
    words: Sequence[str]
    images: Float[np.ndarray, "P D"]
    answers: Sequence[str]
    texts: Float[np.ndarray, "A D"]


class PhotoSource:
    """Photos as a source: one sample a line of the table."""

    gives = frozenset({"image"})
    classes = ()

    def __init__(self, name: str, files: Sequence[Path]):
        self.name, self._files = name, list(files)
        self.fingerprint = fingerprint([[f.name, f.stat().st_size] for f in self._files])

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Any:
        from vislang.data.sample import Sample

        file = self._files[index]
        return Sample(f"{index:04d}-{file.name}", file, origin=str(file))

    def shards(self) -> Sequence[range]:
        return [range(len(self))]


def read_photos(table: Path, probed: Probed, template: str) -> Photos:
    """Read the table, embed its photos and all answers.

    Raises:
        UserError: no such table, a column or a photo that is not there.
    """
    rows = read_rows(table)
    source = PhotoSource(f"{table.stem}-photos", [find_photo(table, row["file"]) for row in rows])
    answers = distinct([row["object"] for row in rows] + [row["written_word"] for row in rows])
    prompts = [template.replace("{}", answer) for answer in answers]
    found = probed.embed(source, prompts)
    kept = [int(id_.partition("-")[0]) for id_ in found.ids]
    rows = [rows[place] for place in kept]
    return Photos(
        [row["file"] for row in rows], [row["object"] for row in rows],
        [row["written_word"] for row in rows], np.asarray(found.images), answers,
        found.prompt_embeddings(prompts),
    )  # fmt: skip


def read_rows(table: Path) -> list[dict[str, str]]:
    """Lines of the table: file, object, written_word; a remark in brackets is no part of it."""
    if not table.is_file():
        raise UserError(f"There is no table of photos {table}. Give a CSV file.")
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    lacking = {"file", "object", "written_word"} - set(rows[0] if rows else ())
    if lacking:
        raise UserError(
            f"{table} must have the columns file, object and written_word; it lacks"
            f" {', '.join(sorted(lacking))}."
        )
    clean = [{k: (v or "").partition(" (")[0].strip() for k, v in row.items() if k} for row in rows]
    bare = next((row["file"] for row in clean if not row["object"]), None)
    if bare is not None:
        raise UserError(f"{table}: the photo {bare} has no object. Say what it shows.")
    return clean


def find_photo(table: Path, name: str) -> Path:
    """A photo beside the table, or in a folder there."""
    path = table.parent / name
    if path.is_file():
        return path
    found = [p for p in sorted(table.parent.glob(f"*/{name}")) if is_image(p.name)]
    if len(found) != 1:
        what = f"{len(found)} folders there have one" if found else "no folder there has it either"
        raise UserError(f"{table} names the photo {name}, which does not lie beside it; {what}.")
    return found[0]


def distinct(names: Sequence[str]) -> list[str]:
    """Names without repetition; the case of the first counts.

    >>> distinct(["TV", "apple", "", "tv"])
    ['TV', 'apple']
    """
    found: dict[str, str] = {}
    for name in names:
        if name:
            found.setdefault(name.lower(), name)
    return list(found.values())


def score_photos(
    photos: Photos,
) -> tuple[dict[str, Interval], dict[str, dict[str, list]], list[str]]:
    """(values, tables, sentences): with writing and without."""
    cosines = unit64(photos.images) @ unit64(photos.texts).T
    place = {answer.lower(): column for column, answer in enumerate(photos.answers)}
    own = np.array([place[name.lower()] for name in photos.objects])
    said = np.array([place.get(word.lower(), -1) if word else -1 for word in photos.words])
    at, best, written = np.arange(len(own)), cosines.argmax(axis=1), said >= 0
    right, wins = best == own, (best == said) & written
    margin = np.where(written, cosines[at, own] - cosines[at, said], np.nan)
    values: dict[str, Interval] = {}
    for name, mask, hits in (
        ("photos_accuracy_without_word", ~written, right),
        ("photos_accuracy_with_word", written, right),
        ("photos_word_wins", written, wins),
    ):
        if mask.any():
            values[name] = wilson(int(hits[mask].sum()), int(mask.sum()))
    if written.any():
        values["photos_margin_with_word"] = normal_mean(margin[written])
        bare = _bare_margins(photos, cosines, own, said)
        if len(bare):
            values["photos_margin_without_word"] = normal_mean(bare)
    columns = ["photo", "object", "written", "answer", "right", "cosine to object",
               "cosine to word"]  # fmt: skip
    rows = [
        [photos.files[i], photos.objects[i], photos.words[i] or None, photos.answers[best[i]],
         bool(right[i]), float(cosines[i, own[i]]),
         float(cosines[i, said[i]]) if written[i] else None]
        for i in range(len(own))
    ]  # fmt: skip
    tables = {
        "photos": {"columns": columns, "rows": rows},
        "photo_cosines": {
            "columns": ["photo", *photos.answers],
            "rows": [[name, *row] for name, row in zip(photos.files, cosines.tolist())],
        },
    }
    text = (
        f"Real photos: {int(right[~written].sum())} of {int((~written).sum())} without writing are"
        f" right, {int(right[written].sum())} of {int(written.sum())} with it; the written word"
        f" wins {int(wins.sum())} times. So few photos tell little."
    )
    return values, tables, [text]


def _bare_margins(photos: Photos, cosines, own, said) -> np.ndarray:
    """For each written word: the same margin on the object's photos without writing."""
    margins = []
    for object_, word in zip(own[said >= 0], said[said >= 0]):
        bare = (own == object_) & (said < 0)
        margins += (cosines[bare, object_] - cosines[bare, word]).tolist()
    return np.array(margins)
