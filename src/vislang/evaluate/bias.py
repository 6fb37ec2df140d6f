"""Bias: are some groups of images nearer to some groups of captions than other groups are?

P: images of a group, M: captions of a group, D: width.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.errors import UserError
from vislang.evaluate.scores import Scores
from vislang.metrics.association import association, leaning
from vislang.metrics.intervals import Interval, normal_mean
from vislang.metrics.paired import holm

if TYPE_CHECKING:
    from jaxtyping import Float

    from vislang.evaluate.analyses import Probed


@dataclass(frozen=True)
class Groups:
    """Embeddings of groups of images and of groups of captions.

    Args:
        images: name -> [P, D].
        captions: name -> [M, D].
        notes: what was left out.
    """

    images: Mapping[str, Float[np.ndarray, "P D"]]
    captions: Mapping[str, Float[np.ndarray, "M D"]]
    notes: Sequence[str] = ()


class Bias:
    """Association of groups of images with groups of captions: effect size, permutation test.

    For every two groups of images and every two of captions: the WEAT effect size, a bootstrap
    interval, the p-value of a permutation test, and that value by Holm over all comparisons.

    Args:
        folder: one folder of images a group, and one text file of captions a group (a caption a
            line), side by side.
        resamples: of the intervals.
        seed: of the draws.
    """

    name = "bias"

    def __init__(self, folder: str = "", resamples: int = 2000, seed: int = 0):
        self.folder, self.resamples, self.seed = folder, resamples, seed

    def settings(self) -> dict[str, Any]:
        """All options."""
        return {"folder": self.folder, "resamples": self.resamples, "seed": self.seed}

    def gather(self, probed: Probed) -> Groups:
        """Read the folder and embed its groups."""
        if not self.folder:
            raise UserError(
                "bias needs a folder with one folder of images and one text file of captions a"
                " group: --bias FOLDER."
            )
        from vislang.data.sources.folder import FolderOfClasses

        folders, files = find_groups(Path(self.folder))
        texts = {file.stem: read_captions(file) for file in files}
        every = [text for some in texts.values() for text in some]
        images, notes, captions = {}, [], {}
        for place, folder in enumerate(folders):
            source = FolderOfClasses(str(folder))
            found = probed.embed(source, every if place == 0 else ())
            images[folder.name] = np.asarray(found.images)
            notes += [f"{folder.name}: {note}" for note in found.notes]
            if place == 0:
                captions = {name: found.prompt_embeddings(some) for name, some in texts.items()}
        return Groups(images, captions, notes)

    def score(self, data: Groups) -> Scores:
        """Every comparison of two groups of images by two groups of captions."""
        short = [name for name, rows in data.images.items() if len(rows) < 2]
        if short:
            raise UserError(
                f"bias: the group of images {short[0]!r} has fewer than two that can be read;"
                " an effect size needs a deviation."
            )
        pairs = itertools.product(
            itertools.combinations(data.images, 2), itertools.combinations(data.captions, 2)
        )
        found = []
        for (x, y), (a, b) in pairs:
            sides = [leaning(data.images[g], data.captions[a], data.captions[b]) for g in (x, y)]
            test = association(*sides, resamples=self.resamples, seed=self.seed)
            found.append(((x, y, a, b), test))
        raised = holm([test.p for _, test in found])
        values = {f"effect_{x}_{y}_by_{a}_{b}": test.effect for (x, y, a, b), test in found}
        notes = [*_sentences(found, raised), *data.notes]
        tables = {"association": _table(found, raised), "cosines": _cosines(data)}
        n = sum(len(rows) for rows in data.images.values())
        return Scores(self.name, n, values, tables=tables, notes=notes)


def find_groups(folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders of images and files of captions, at least two each."""
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder} of groups. Give --bias FOLDER.")
    inside = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    folders = [path for path in inside if path.is_dir()]
    files = [path for path in inside if path.suffix.lower() == ".txt"]
    if len(folders) < 2 or len(files) < 2:
        raise UserError(
            f"{folder} must hold at least two folders of images and two text files of captions;"
            f" it holds {len(folders)} and {len(files)}."
        )
    return folders, files


def read_captions(file: Path) -> list[str]:
    """Captions, one a line; empty lines and lines that begin with # do not count."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text ({error}). Save it as UTF-8.") from error
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise UserError(f"{file} holds no caption. Write one a line.")
    return found


def _table(found, raised) -> dict[str, list]:
    rows = [
        [x, y, a, b, t.effect.value, t.effect.low, t.effect.high, t.difference, t.p, p,
         "all" if t.exact else "drawn"]
        for ((x, y, a, b), t), p in zip(found, raised)
    ]  # fmt: skip
    columns = ["images", "against", "captions", "rather than", "effect", "low", "high",
               "difference of cosines", "p", "p (Holm)", "divisions"]  # fmt: skip
    return {"columns": columns, "rows": rows}


def _cosines(data: Groups) -> dict[str, list]:
    """Mean cosine of each group of images to each group of captions."""
    rows = []
    for group, images in data.images.items():
        for name, captions in data.captions.items():
            nothing = np.zeros((1, captions.shape[1]))
            mean: Interval = normal_mean(leaning(images, captions, nothing))
            rows.append([group, name, mean.value, mean.low, mean.high])
    return {"columns": ["images", "captions", "mean cosine", "low", "high"], "rows": rows}


def _sentences(found, raised) -> list[str]:
    if not found:
        return []
    sure = [(pair, t) for (pair, t), p in zip(found, raised) if p < 0.05]
    (x, y, a, b), test = max(found, key=lambda item: abs(item[1].effect.value))
    lean = (a, b) if test.effect.value > 0 else (b, a)
    return [
        f"{len(sure)} of {len(found)} comparisons differ beyond chance (Holm, 5%). The largest"
        f" effect: images of “{x}” lean to “{lean[0]}” rather than “{lean[1]}” more than those of"
        f" “{y}” do (d = {abs(test.effect.value):.2f}, p = {test.p:.3g})."
    ]
