"""A folder or archive of SentEval's files, and what is read from it: parts of sentences."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vislang.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True)
class Part:
    """Sentences of one split: one or two a row, with a score or a class."""

    left: list[str]
    right: list[str]  # empty where a row is one sentence
    gold: Float[np.ndarray, " n"] | Int[np.ndarray, " n"]


@dataclass(frozen=True)
class Task:
    """One task: its parts by name (a year's sets; train, dev, test; or all), and what was odd."""

    name: str
    parts: dict[str, Part]
    notes: list[str] = field(default_factory=list)


class Tree:
    """Files below a folder or in a zip, found by the end of their path."""

    def __init__(self, root: Path):
        self.root, self.latin = root, set()
        self.lacks: list[str] = []  # files of a task that is there in part
        if root.is_dir():
            archives = sorted(root.glob("*.zip"))
            files = [f for f in sorted(root.rglob("*")) if f.is_file()]
            if archives and len(files) < 20 and not any(d.is_dir() for d in root.iterdir()):
                root = archives[0]  # a folder that holds the archive only
            else:
                self.archive, self.names = None, [f.relative_to(root).as_posix() for f in files]
                return
        try:
            self.archive = zipfile.ZipFile(root)
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"{root} is neither a folder nor a zip archive: {error}.") from error
        self.names = sorted(self.archive.namelist())

    def find(self, *ends: str) -> str | None:
        """The first file whose path ends in one of `ends`, whole parts of the path compared."""
        for end in ends:
            for name in self.names:
                if f"/{name}".endswith(f"/{end}"):
                    return name
        return None

    def folder(self, name: str) -> list[str]:
        """The files directly in the folder called `name`."""
        return [n for n in self.names if n.rpartition("/")[0].rpartition("/")[2] == name]

    def lines(self, name: str) -> list[str]:
        """Lines of a text file: UTF-8, or latin-1 where it is none (counted in `latin`)."""
        raw = self.archive.read(name) if self.archive else (self.root / name).read_bytes()
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            self.latin.add(name)
            text = raw.decode("latin-1")
        # Not splitlines: sentences hold characters that it takes for line ends.
        found = text.replace("\r\n", "\n").split("\n")
        return found[:-1] if found and not found[-1] else found


def clean(sentence: str) -> str:
    """Runs of white space become one space; nothing becomes a full stop, as in SentEval.

    >>> clean(" a \\t b ")
    'a b'
    """
    return " ".join(sentence.split()) or "."


def score_of(text: str, file: str, line: int) -> float:
    """A finite number; a UserError that names the line where it is none."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise UserError(f"{file}, line {line}: expected a score, got {text[:40]!r}.")
    return value


def split_files(tree: Tree, files: dict[str, tuple[str, ...]]) -> dict[str, str] | None:
    """The file of each split by the ends it may have; None unless all are there."""
    found = {split: tree.find(*ends) for split, ends in files.items()}
    there = {split: name for split, name in found.items() if name is not None}
    if there and len(there) < len(files):
        tree.lacks += [ends[0] for split, ends in files.items() if split not in there]
    return there if len(there) == len(files) else None


def class_of(label: str, classes: tuple[str, ...], file: str, line: int) -> int:
    """The place of a label among the classes; a UserError that names the line."""
    if label not in classes:
        raise UserError(f"{file}, line {line}: {label!r} is none of {', '.join(classes)}.")
    return classes.index(label)
