"""ELEVATER's data sets: its text and COCO indices, with archives that are read in place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.data.elevater_index import Index, read_coco, read_lines
from vislang.data.elevater_sets import ELEVATER, ElevaterSet, read_registry
from vislang.data.labelled import even_shards
from vislang.data.labels import read_classes
from vislang.data.sample import BadSample, Place, Sample
from vislang.data.trees import ZipTree, fingerprint_files
from vislang.errors import UserError
from vislang.files import fingerprint

if TYPE_CHECKING:
    from jaxtyping import Int


class ElevaterImages:
    """ELEVATER's sets, by index: lines of 'archive.zip@entry label' or COCO JSON, read in place.

    Args:
        path: the folder of one set, such as ROOT/classification/dtd_20211007.
        split: train or test.
        registry: JSON of the toolkit's form that describes the folder, for a set of your own.
        index: the index file, for a folder that nothing describes.
        labels: file of class names, one a line in the order of the labels; '' without one.
        multi_label: whether pictures may have several classes.
    """

    def __init__(
        self,
        path: str,
        *,
        split: str = "test",
        registry: str = "",
        index: str = "",
        labels: str = "labels.txt",
        multi_label: bool = False,
    ):
        from vislang.data.sources import missing_path

        self.home = Path(path)
        if not self.home.is_dir():
            raise missing_path(self.home, "folder of an ELEVATER set")
        if split not in ("train", "test"):
            raise UserError(f"An ELEVATER set has the splits train and test, got {split!r}.")
        self.entry = None if index else _described(self.home, registry)
        if self.entry is not None:
            index, labels = self.entry.index(split), self.entry.labels
            multi_label = self.entry.multi_label
        if not index:
            raise UserError(f"{self.home.name} has no {split} split.")
        self.name = f"{self.entry.name if self.entry else self.home.name}-{split}"
        found = self._read(index, multi_label)
        if found.several and self.entry is not None and not multi_label:
            raise UserError(
                f"{self.home / index} gives a picture several labels, but {self.entry.name} is"
                f" judged by {self.entry.metric}, for which each has one."
            )
        self.multi_label = multi_label or found.several
        self.classes = self._names(found, labels)
        found.check(len(self.classes), self.home / index, labels)
        self._labels, self._paths = found.labels, found.paths
        self._ids = _distinct(found.ids)
        self._open_archives()
        files = [self.home / index, self.home / labels] if labels else [self.home / index]
        files += [tree.archives[0] for tree in self._trees if tree is not None]
        files = [file for file in files if file.is_file()]
        self.fingerprint = fingerprint([fingerprint_files(files), self.classes, self.name])
        self.gives = frozenset({"image", "label"})

    def _read(self, index: str, multi_label: bool) -> Index:
        file = self.home / index
        if not file.is_file():
            raise UserError(
                f"The index {file} does not exist. `vislang data elevater status ROOT` tells what"
                " is missing of each set."
            )
        return read_coco(file) if index.endswith(".json") else read_lines(file, multi_label)

    def _names(self, found: Index, labels: str) -> tuple[str, ...]:
        """Names by the index's own (COCO), by the file of labels, or numbers."""
        names = found.classes
        if not names and labels and (self.home / labels).is_file():
            names = read_classes(self.home / labels)
        if not names:
            count = 1 + max((label for row in found.labels for label in row), default=-1)
            names = [str(k) for k in range(max(count, self.entry.classes if self.entry else 0))]
        if self.entry is not None and len(names) != self.entry.classes:
            raise UserError(
                f"{self.home}: {labels or 'the index'} names {len(names)} classes, but"
                f" {self.entry.name} has {self.entry.classes}. It is another file, or damaged."
            )
        return tuple(names)

    def _open_archives(self) -> None:
        """The place of every sample: (archive, row within it), -1 for a plain file, -2 for none."""
        archives = sorted({path.partition("@")[0] for path in self._paths if "@" in path})
        self._trees: list[ZipTree | None] = []
        rows: dict[str, dict[str, int]] = {}
        for archive in archives:
            file = self.home / archive
            tree = ZipTree([file], lambda name: True) if file.is_file() else None
            if tree is None and not (self.home / archive.removesuffix(".zip")).is_dir():
                raise UserError(
                    f"The archive {file} does not exist, nor a folder with what was in it."
                )
            self._trees.append(tree)
            rows[archive] = {tree.names[row]: row for row in range(len(tree))} if tree else {}
        number = {archive: k for k, archive in enumerate(archives)}
        places = []
        for path in self._paths:
            archive, at, entry = path.partition("@")
            k = number[archive] if at else -1
            zipped = k >= 0 and self._trees[k] is not None
            places.append((k, rows[archive].get(entry, -2) if zipped else -1))
        self._places = np.array(places, np.int64).reshape(-1, 2)
        if len(places) and (self._places[:, 1] == -2).all():
            raise UserError(
                f"Not one of the {len(places):,} entries of the index is in"
                f" {', '.join(archives)} of {self.home}, for example {self._paths[0]!r}."
            )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Sample:
        id_ = self._ids[index]
        origin = f"{self.home}/{self._paths[index]}"
        try:
            image = self._image(index)
        except BadSample as bad:
            raise BadSample(id_, bad.reason, origin) from bad
        return Sample(id_, image, (), self._labels[index], origin)

    def _image(self, index: int) -> Path | Place:
        archive, row = map(int, self._places[index])
        path = self._paths[index]
        if row == -2:
            zip_, _, entry = path.partition("@")
            raise BadSample("", f"missing file: {entry} is not in {zip_}")
        tree = self._trees[archive] if archive >= 0 else None
        if tree is not None:
            return tree.place(row)
        return self.home / path.replace(".zip@", "/", 1)

    @property
    def label_rows(self) -> list[tuple[int, ...]]:
        """The labels of every sample, also of those whose picture cannot be used."""
        return list(self._labels)

    @property
    def ids(self) -> list[str]:
        """Ids of all samples, in order."""
        return list(self._ids)

    def targets(self) -> Int[np.ndarray, "*shape"]:
        """Class of each sample [N]; of a multi-label set 0 or 1 [N, C]."""
        if not self.multi_label:
            return np.array([row[0] if row else -1 for row in self._labels], np.int64)
        table = np.zeros((len(self), len(self.classes)), np.int64)
        for i, row in enumerate(self._labels):
            table[i, list(row)] = 1
        return table

    def shards(self) -> Sequence[range]:
        return even_shards(len(self))

    @staticmethod
    def recognises(path: Path) -> bool:
        """A folder of one of the known sets that holds one of its indices."""
        known = [e for e in ELEVATER.values() if e.folder == path.name]
        return any((path / e.index(split)).is_file() for e in known for split in ("train", "test"))


def _described(home: Path, registry: str) -> ElevaterSet:
    table = read_registry(registry) if registry else ELEVATER
    for entry in table.values():
        if Path(entry.folder).name == home.name:
            return entry
    known = ", ".join(entry.folder for entry in table.values())
    raise UserError(
        f"{home.name} is no folder of {'the registry' if registry else 'ELEVATER'}: {known}."
        " For a set of your own give index=FILE and labels=FILE, or registry=FILE."
    )


def _distinct(ids: list[str]) -> list[str]:
    """Ids in which a repeated one carries its number: an index may name a picture twice."""
    seen: dict[str, int] = {}
    found: list[Any] = []
    for id_ in ids:
        seen[id_] = seen.get(id_, 0) + 1
        found.append(id_ if seen[id_] == 1 else f"{id_}#{seen[id_]}")
    return found
