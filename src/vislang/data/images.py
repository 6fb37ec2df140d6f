"""Images that a table or an annotation file names: in a folder, or in zip archives beside it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vislang.data.sample import BadSample, Place
from vislang.data.trees import ZipTree, fingerprint_files, fingerprint_many, open_tree
from vislang.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

# So many names, evenly spread, decide whether a folder is the right one.
_PROBES = 16


class NamedImages:
    """Images by position in a list of names.

    Args:
        home: a folder, or zip archives (a path or pattern).
        names: names below the folder; in a zip the last part alone is enough where it is unique.

    Raises:
        UserError: not one of the names is there.
    """

    def __init__(self, home: Path | str, names: pa.Array):
        from vislang.data.sources import missing_path

        self.home, self._names = Path(home), names
        self._tree: ZipTree | None = None
        if self.home.is_dir():
            if len(names) and not _holds(self.home, _probes(names), any):
                raise self._none_found()
        elif self.home.suffix.lower() == ".zip":
            tree = open_tree(str(home))
            assert isinstance(tree, ZipTree)
            self._tree, self._rows = tree, _match(tree, names)
            if len(names) and (self._rows < 0).all():
                raise self._none_found()
        elif self.home.exists():
            raise UserError(f"images must be a folder or a .zip archive, got {home}.")
        else:
            raise missing_path(self.home, "folder of images")

    def _none_found(self) -> UserError:
        return UserError(
            f"None of the images is in {self.home}, for example {self._names[0].as_py()!r}."
            " Give the folder or zip archive from which the names count as images."
        )

    def __getitem__(self, index: int) -> Path | Place:
        name = self._names[index].as_py()
        if self._tree is None:
            return self.home / name
        row = int(self._rows[index])
        if row < 0:
            raise BadSample("", f"missing file: {name} is not in {self.home.name}", str(self.home))
        return self._tree.place(row)

    def fingerprint(self) -> str:
        """Of the archives, or of the files in the folder."""
        if self._tree:
            return fingerprint_files(self._tree.archives)
        return fingerprint_many(self.home, lambda row: self._names[row].as_py(), len(self._names))


class PlacedImages:
    """Images that lie at places of containers, as a table names them; nothing is unpacked.

    Args:
        home: the folder from which the containers' names count.
        names: of the containers.
        offset, size: where each image's bytes lie.
    """

    def __init__(self, home: Path | str, names: pa.Array, offset: pa.Array, size: pa.Array):
        self.home, self._names = Path(home), names.dictionary_encode()
        self._offset, self._size = offset, size
        if len(names) and not (self.home / names[0].as_py()).is_file():
            raise UserError(
                f"{self.home} has no {names[0].as_py()!r}, which the table names first. Move table"
                " and pictures together, or give the folder from which the names count."
            )

    def __getitem__(self, index: int) -> Place:
        name, offset, size = (
            column[index].as_py() for column in (self._names, self._offset, self._size)
        )
        if name is None or not (offset or 0) >= 0 or not (size or 0) > 0:
            raise BadSample("", "missing file: the table names no place", str(self.home))
        return Place(self.home / name, offset, size)

    def fingerprint(self) -> str:
        """Of the containers."""
        names = [name for name in self._names.dictionary.to_pylist() if name]
        return fingerprint_many(self.home, lambda row: names[row], len(names))


def find_images(
    near: Path, names: pa.Array, folders: Sequence[str], option: str = "images"
) -> Path:
    """The folder or zip archive close to a file that holds the images it names.

    Args:
        near: the file.
        names: names of all images.
        folders: names of folders where such images usually lie.
        option: what to set when nothing is found.
    """
    probes = _probes(names)
    homes = [near.parent, near.parent.parent]
    candidates = [home / folder for home in homes for folder in (*folders, "")]
    for folder in candidates:
        if folder.is_dir() and _holds(folder, probes, all):
            return folder
    fitting = []
    for archive in sorted(near.parent.glob("*.zip")):
        members = set(ZipTree([archive]).names.files.to_pylist())
        if all(name.rsplit("/", 1)[-1] in members for name in probes):
            fitting.append(archive)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UserError(
            f"Several archives beside {near.name} hold its images:"
            f" {', '.join(archive.name for archive in fitting)}. Choose one with {option}."
        )
    raise UserError(
        f"The images that {near} names, such as {probes[0]!r}, were not found near it."
        f" Give their folder or zip archive as {option}."
    )


def _probes(names: pa.Array) -> list[str]:
    at = np.unique(np.linspace(0, len(names) - 1, _PROBES).astype(int)) if len(names) else []
    return [names[int(i)].as_py() for i in at]


def _holds(folder: Path, names: Iterable[str], enough) -> bool:
    return enough(os.path.isfile(folder / name) for name in names)


def _match(tree: ZipTree, names: pa.Array) -> np.ndarray:
    """Row of the tree for each name, by the whole name or by its last part; -1 if not there."""
    rows: dict[str, int] = {}
    for row, file in enumerate(tree.names.files.to_pylist()):
        rows[file] = -1 if file in rows else row  # -1: it could be either
    rows.update({tree.names[row]: row for row in range(len(tree))})
    wanted = names.to_pylist()
    return np.array([rows.get(n, rows.get(n.rsplit("/", 1)[-1], -1)) for n in wanted], np.int64)
