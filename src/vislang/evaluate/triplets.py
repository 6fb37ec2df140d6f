"""Triplets: whether a sentence lies nearer to one of its own section than to one of another.

n: triplets, D: width.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.errors import UserError
from vislang.evaluate.scores import Scores
from vislang.files import fingerprint
from vislang.metrics.features import unit
from vislang.metrics.intervals import wilson

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from vislang.evaluate.text_suites import Rows

COLUMNS = ("Sentence1", "Sentence2", "Sentence3")  # anchor, near, far
DISTANCES = ("cosine", "manhattan", "euclidean")
BLOCK = 16_384


@dataclass(frozen=True)
class TripletData:
    """Triplets: anchor, near and far sentence of each."""

    triplets: list[tuple[str, str, str]]
    fingerprint: str
    notes: list[str] = field(default_factory=list)


class Triplets:
    """Share of triplets whose anchor is strictly nearer to the near sentence than to the far one.

    Wikipedia sections: Ein Dor et al. 2018, ACL. The score is that of the cosine distance; the
    others stand beside it, for the composition line reports the best of the three.

    Args:
        split: of a folder: SPLIT.csv, test by default.
        columns: of anchor, near and far sentence.
    """

    name = "triplets"

    def __init__(self, split: str = "test", columns: tuple[str, str, str] = COLUMNS):
        if len(columns) != 3 or len(set(columns)) != 3:
            raise UserError(f"triplets: columns must be three names, got {list(columns)}.")
        self.split, self.columns = split, tuple(columns)

    def read(self, path: Path) -> TripletData:
        """A CSV file, or a folder with `test.csv` (or .csv.gz)."""
        names = (f"{self.split}.csv", f"{self.split}.csv.gz")
        file = (
            path
            if path.is_file()
            else next((path / n for n in names if (path / n).is_file()), None)
        )
        if file is None:
            raise UserError(f"triplets: no {' or '.join(names)} in {path}.")
        found, blank = [], 0
        for line, triplet in _triplets(file, self.columns):
            if None in triplet:
                raise UserError(
                    f"{file}, line {line}: expected the cells of {', '.join(self.columns)}."
                )
            if all(text.strip() for text in triplet):
                found.append(triplet)
            else:
                blank += 1
        if not found:
            raise UserError(f"triplets: {file} has no triplet.")
        notes = [f"{blank:,} triplets with a blank sentence were left out."] if blank else []
        return TripletData(found, fingerprint(found), notes)

    def score(self, read: TripletData, rows: Rows) -> Scores:
        """Accuracy by cosine, Manhattan and Euclidean distance."""
        right: dict[str, list[np.ndarray]] = {name: [] for name in DISTANCES}
        for first in range(0, len(read.triplets), BLOCK):
            part = read.triplets[first : first + BLOCK]
            sides = (np.asarray(rows(list(side)), np.float64) for side in zip(*part))
            for name, each in nearer(*sides).items():
                right[name].append(each)
        n = len(read.triplets)
        hits = {name: np.concatenate(each) for name, each in right.items()}
        values = {
            "accuracy" if name == "cosine" else f"accuracy_{name}": wilson(int(each.sum()), n)
            for name, each in hits.items()
        }
        few = {
            "accuracy": {"ids": [str(i) for i in range(n)], "values": hits["cosine"].astype(int)}
        }
        return Scores(
            self.name, n, values, notes=list(read.notes), per_sample=few if n <= 50_000 else None
        )

    def settings(self) -> dict[str, Any]:
        """Split and columns."""
        return {"split": self.split, "columns": list(self.columns), "ties": "wrong"}


def nearer(
    anchor: Float[np.ndarray, "n D"], near: Float[np.ndarray, "n D"], far: Float[np.ndarray, "n D"]
) -> dict[str, Bool[np.ndarray, " n"]]:
    """By each distance, whether the anchor is strictly nearer to the near row.

    >>> nearer(np.array([[1.0, 0]]), np.array([[2.0, 0]]), np.array([[1.0, 0.5]]))["euclidean"]
    array([False])
    """
    a, p, n = unit(anchor), unit(near), unit(far)
    return {
        "cosine": (a * p).sum(1) > (a * n).sum(1),
        "manhattan": np.abs(anchor - near).sum(1) < np.abs(anchor - far).sum(1),
        "euclidean": ((anchor - near) ** 2).sum(1) < ((anchor - far) ** 2).sum(1),
    }


def _triplets(file: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, Any]]:
    raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text: {error}.") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    known = reader.fieldnames or ()
    if lost := [name for name in columns if name not in known]:
        raise UserError(f"{file} has no column {', '.join(lost)}. Columns: {', '.join(known)}.")
    for row in reader:
        yield reader.line_num, tuple(row[name] for name in columns)
