"""Pairs: two different samples of a source, chosen beforehand by what their captions say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.data.labelled import even_shards
from vislang.data.pairs import TABLE, check_made_for, is_pairs, read_pairs
from vislang.errors import UserError
from vislang.files import fingerprint, sha256_file

if TYPE_CHECKING:
    from vislang.data.sample import Sample, Source


class Pairs:
    """Pairs of samples from a table of neighbours: views with an even number show the neighbour.

    A batch then holds `image` and `text` of a sample, `image_2` and `text_2` of one of its
    neighbours, which is drawn anew each epoch; so any objective of two views becomes its
    language-guided variant. Samples without a neighbour are left out. In memory a pair costs four
    bytes, and a sample that has any twelve more.

    Args:
        path: a table, or the folder that `vislang curate neighbours` made.
        source: the SOURCE that the table was made for; '' takes what the table says.
        source_options: arguments of its layout; by default those of the table.
        k: draw among this many nearest; 0 takes all that the table has.
        threshold: leave out pairs of a lower similarity (the original's default is 0).
    """

    def __init__(
        self,
        path: str,
        *,
        source: str = "",
        source_options: Mapping[str, Any] | None = None,
        k: int = 0,
        threshold: float = 0.0,
    ):
        from vislang.data.sources import missing_path

        if not Path(path).exists():
            raise missing_path(Path(path), "pair table")
        table = read_pairs(path)
        self.source = _open(source, source_options, table.about, path)
        check_made_for(table, self.source, path)
        if k < 0:
            raise UserError(f"k must be 1 or more, or 0 for all, got {k}.")
        keep = table.similarity >= threshold
        if k:
            keep &= table.rank < k
        if not keep.any():
            highest = float(table.similarity.max(initial=-1))
            raise UserError(
                f"No pair of {path} has a similarity of {threshold:g} or more; the highest is"
                f" {highest:.3f}. Lower the threshold."
            )
        self._settings = {"k": k, "threshold": threshold}
        self._file = Path(path) / TABLE if Path(path).is_dir() else Path(path)
        source_of = table.source[keep]
        first = np.flatnonzero(np.r_[True, source_of[1:] != source_of[:-1]])
        # Compressed rows: the neighbours of sample at[i] are target[start[i] : start[i + 1]].
        self._at = source_of[first]
        self._target = table.target[keep]
        self._start = np.r_[first, len(source_of)]
        self.name = f"{self.source.name}-pairs"
        self.gives, self.classes = self.source.gives, self.source.classes
        if templates := getattr(self.source, "templates", ()):
            self.templates = templates

    def __len__(self) -> int:
        """Samples that have a neighbour."""
        return len(self._at)

    def __getitem__(self, index: int) -> Sample:
        return self.source[int(self._at[index])]

    def partner(self, index: int, rng: np.random.Generator) -> Sample:
        """One of the neighbours of the sample at `index`, each with the same chance."""
        start, end = int(self._start[index]), int(self._start[index + 1])
        return self.source[int(self._target[start + int(rng.integers(end - start))])]

    @property
    def bytes_per_pair(self) -> float:
        """Memory of the table for each pair."""
        parts = (self._at, self._target, self._start)
        return sum(part.nbytes for part in parts) / max(1, len(self._target))

    def shards(self) -> Sequence[range]:
        return even_shards(len(self))

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint([self.source.fingerprint, sha256_file(self._file), self._settings])

    @staticmethod
    def recognises(path: Path) -> bool:
        """A pair table, or a folder with one."""
        return is_pairs(path)


def _open(
    spec: str, options: Mapping[str, Any] | None, about: Mapping[str, Any], path: str
) -> Source:
    from vislang.data.sources import open_source

    made = about.get("source", {})
    wanted = spec or made.get("spec", "")
    if not wanted:
        raise UserError(
            f"The pair table {path} does not say which source it was made for: give source=SOURCE."
        )
    given = made.get("options", {}) if options is None else options
    return open_source(wanted, **given)
