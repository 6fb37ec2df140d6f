"""The two kinds of index that ELEVATER's sets come with: lines of text, and COCO JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vislang.errors import UserError


@dataclass
class Index:
    """What an index says.

    Args:
        paths: of each picture: 'archive.zip@entry', or a path below the set's folder.
        labels: classes of each picture, from 0.
        ids: of each sample.
        classes: names, where the index has them.
        several: whether some picture has several classes.
    """

    paths: list[str] = field(default_factory=list)
    labels: list[tuple[int, ...]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    several: bool = False

    def add(self, path: str, labels: tuple[int, ...], id_: str = "") -> None:
        """One more sample."""
        self.paths.append(path)
        self.labels.append(labels)
        self.ids.append(id_ or path)
        self.several |= len(labels) > 1

    def check(self, classes: int, file: Path, names: str) -> None:
        """Refuse an index without samples, or with a label that no class has."""
        if not self.paths:
            raise UserError(f"The index {file} names no picture.")
        for number, row in enumerate(self.labels, 1):
            for label in row:
                if not 0 <= label < classes:
                    raise UserError(
                        f"{file}, entry {number} ({self.paths[number - 1]}): the label {label} is"
                        f" out of range: {names or 'the index'} has {classes} classes,"
                        f" 0 to {classes - 1}."
                    )


def read_lines(file: Path, multi_label: bool = False) -> Index:
    """Lines 'path label', split at the last space; several labels are separated by commas.

    Args:
        file: the index.
        multi_label: lines may have several labels, or none; else each line must have one.

    Raises:
        UserError: a line without a label, or not text.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"The index {file} is not UTF-8 text ({error}).") from error
    found = Index()
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip("\r")
        if not line.strip():
            continue
        path, space, last = line.rpartition(" ")
        labels = _labels(last) if space else None
        if labels is None and multi_label:
            path, labels = line.strip(), ()
        if labels is None or (not multi_label and len(labels) != 1):
            several = labels is not None and len(labels) > 1
            what = f"has {len(labels or ())} labels" if several else "has no label"
            raise UserError(
                f"{file}, line {number} {what}: {line[:120]!r}. A line is 'path label', the label"
                " a class's number from 0"
                + (" (several with multi_label=true)." if several else ".")
            )
        found.add(path.strip(), labels)
    return found


def _labels(text: str) -> tuple[int, ...] | None:
    """'3' and '0,4' as numbers, '' as none; None where it is something else.

    >>> _labels("0,4"), _labels(""), _labels("cat")
    ((0, 4), (), None)
    """
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",") if part.strip()))
    except ValueError:
        return None


def read_coco(file: Path) -> Index:
    """COCO JSON with images {id, file_name, zip_file}, annotations and categories.

    Labels are places of the categories sorted by id; images are in the order of their ids.

    Raises:
        UserError: not such JSON, an id that occurs twice, or one that nothing has.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        pictures = sorted(content["images"], key=lambda image: image["id"])
        categories = sorted(content["categories"], key=lambda category: category["id"])
        notes: list[dict[str, Any]] = content["annotations"]
        place = {category["id"]: k for k, category in enumerate(categories)}
        rows: dict[Any, list[int]] = {picture["id"]: [] for picture in pictures}
        for things, count, what in (
            (pictures, len(rows), "images"), (categories, len(place), "categories")
        ):  # fmt: skip
            if len(things) != count:
                raise UserError(f"{file}: two of its {what} have the same id.")
        for note in notes:
            if note["image_id"] not in rows or note["category_id"] not in place:
                raise UserError(
                    f"{file}: an annotation names image {note['image_id']} and category"
                    f" {note['category_id']}, of which one does not exist: a label out of range."
                )
            rows[note["image_id"]].append(place[note["category_id"]])
        found = Index(classes=[str(category["name"]) for category in categories])
        for picture in pictures:
            archive = picture.get("zip_file")
            path = f"{archive}@{picture['file_name']}" if archive else str(picture["file_name"])
            found.add(path, tuple(dict.fromkeys(rows[picture["id"]])))
        return found
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} is no COCO index ({type(error).__name__}: {error}): expected a JSON object"
            " with images, annotations and categories."
        ) from error
