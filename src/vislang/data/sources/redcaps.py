"""RedCaps, CC3M and CC12M as downloaded: folders of <id>.jpg beside <id>.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from vislang.data.patterns import name_of
from vislang.data.places import read_bytes
from vislang.data.sample import BadSample, Sample
from vislang.data.trees import Tree, is_image, open_tree
from vislang.errors import UserError
from vislang.files import fingerprint
from vislang.lookup import nearest

_MOST_JSON_BYTES = 16_000_000


class RedCaps:
    """RedCaps / CC layout: <root>/[<split>/]<folder>/<id>.jpg with <id>.json holding its caption.

    Sorted by folder, then id. An annotation without image, or an image without annotation, is a
    sample that is rejected when what it lacks is needed; nothing is left out silently. The root
    may be a zip archive. Desai et al. 2021, arXiv:2111.11431.

    Args:
        path: the root.
        split: a folder right below it.
        year: only folders of that year, by the field of <subreddit>_<year>_<number>.
        caption: key of the caption in the JSON (a string, or a list of strings).
    """

    gives = frozenset({"image", "text"})
    classes: tuple[str, ...] = ()

    def __init__(self, path: str, *, split: str = "", year: int = 0, caption: str = "caption"):
        from vislang.data.sources import missing_path

        root = Path(path) / split if split and Path(path).is_dir() else Path(path)
        if not root.exists():
            raise missing_path(root, "folder")
        self.caption = caption
        self.name = name_of(path, split, str(year or ""))
        self.tree = open_tree(root, lambda name: name.endswith(".json") or is_image(name))
        self._rows, self._starts = _pair(self.tree, str(year) if year else "")
        if not len(self._rows):
            of_year = f" of the year {year}" if year else ""
            raise UserError(f"The source {path} is empty: it has no <id>.json or images{of_year}.")
        if (self._rows[:, 1] < 0).all():
            raise UserError(f"{path} has images but not one .json beside them: is it a folder?")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        image, note = map(int, self._rows[index])
        name = self.tree.names[image if image >= 0 else note]
        id_, origin = _stem(name), self.tree.origin(image if image >= 0 else note)
        try:
            texts = self._captions(note) if note >= 0 else ()
            place = self.tree.place(image) if image >= 0 else None
        except BadSample as bad:
            raise BadSample(id_, bad.reason, origin) from bad
        return Sample(id_, place, texts, (), origin)

    def file_of(self, index: int) -> str:
        """The image file of a sample, relative to the root and its split; '' without one."""
        image = int(self._rows[index][0])
        return str(self.tree.names[image]) if image >= 0 else ""

    def _captions(self, row: int) -> tuple[str, ...]:
        raw = read_bytes(self.tree.place(row), _MOST_JSON_BYTES)
        try:
            content = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise BadSample("", f"damaged record: its JSON: {error}") from error
        if not isinstance(content, dict):
            raise BadSample("", "damaged record: its JSON is no object")
        value = content.get(self.caption)
        if value is None and self.caption != "caption":
            hint = nearest(self.caption, map(str, content))
            raise BadSample("", f"no caption: no key {self.caption!r} in its JSON.{hint}")
        values = value if isinstance(value, list) else [value]
        return tuple(text.strip() for text in values if isinstance(text, str) and text.strip())

    def shards(self) -> Sequence[range]:
        """One range a folder."""
        ends = [*self._starts[1:], len(self)]
        return [range(start, end) for start, end in zip(self._starts, ends)]

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint([self.tree.fingerprint(), self.name, self.caption])

    @staticmethod
    def recognises(path: Path) -> bool:
        """A folder in whose first subfolders images lie beside JSON files of the same stem."""
        if not path.is_dir():
            return False
        for folder in [path, *_folders(path)[:4]]:
            for inner in [folder, *_folders(folder)[:4]]:
                files = sorted(p.name for p in inner.iterdir())[:64]
                notes = {_stem(name) for name in files if name.endswith(".json")}
                if any(_stem(name) in notes for name in files if is_image(name)):
                    return True
        return False


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _stem(name: str) -> str:
    """Folders and the part of the file's name before its first dot, as the original has it.

    >>> _stem("a.b/x1.orig.jpg")
    'a.b/x1'
    """
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.split(".")[0]


def _pair(tree: Tree, year: str) -> tuple[np.ndarray, list[int]]:
    """([n, 2] rows of image and annotation, -1 for none, by folder and id; starts of folders)."""
    blocks, starts, n = [], [], 0
    edges = np.searchsorted(tree.names.folder, np.arange(len(tree.names.folders) + 1))
    for folder, low, high in zip(tree.names.folders, edges, edges[1:]):
        if year and year not in folder.rpartition("/")[2].split("_"):
            continue
        pairs: dict[str, list[int]] = {}
        for row in range(low, high):
            file = tree.names.files[row].as_py()
            pairs.setdefault(_stem(file), [-1, -1])[file.endswith(".json")] = row
        starts.append(n)
        n += len(pairs)
        blocks.append(np.array([pairs[stem] for stem in sorted(pairs)], np.int64))
    return np.concatenate(blocks) if blocks else np.zeros((0, 2), np.int64), starts
