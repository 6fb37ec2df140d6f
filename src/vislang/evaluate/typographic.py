"""Typographic attack: does a written word fool the model?

N: images, C: classes, D: width, P: photos, A: answers that they are compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.errors import UserError
from vislang.evaluate.photos import Photos, read_photos, score_photos
from vislang.evaluate.scores import Scores
from vislang.evaluate.written import CONDITIONS, Writing, Written, other_class, words_of
from vislang.metrics.classify import decide, ranks
from vislang.metrics.intervals import Interval, normal_mean, wilson
from vislang.metrics.paired import share_change
from vislang.metrics.true_class import unit64

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from vislang.evaluate.analyses import Probed

OTHER = "other word"


@dataclass(frozen=True)
class WrittenRows:
    """Embeddings of the same images under every condition.

    Args:
        ids: of the images.
        label: own class [N].
        written: class whose word is written under "other word" [N].
        images: condition -> [N, D].
        classes: one vector a class [C, D].
        names: of the classes.
        photos: real photos with and without words; None without.
        notes: what was left out.
    """

    ids: Sequence[str]
    label: Int[np.ndarray, " N"]
    written: Int[np.ndarray, " N"]
    images: Mapping[str, Any]
    classes: Float[np.ndarray, "C D"]
    names: Sequence[str]
    photos: Photos | None = None
    notes: Sequence[str] = ()


class Typographic:
    """Words written on images: accuracy by condition, how often the written word wins, margins.

    Four conditions: the image as it is, blank paper, paper with the image's own class, paper with
    another class. Against blank paper one sees what the word does, not the hiding.
    Goh et al. 2021, Multimodal Neurons in Artificial Neural Networks, distill.pub/2021, section
    on typographic attacks; Materzynska et al. 2022, arXiv:2206.07835.

    Args:
        samples: at most so many images, drawn with the seed.
        size: height of the letters as a share of the shorter side.
        place: random, top, bottom, centre, left, right, "top left" ...
        colour: of the letters.
        paper: colour of the sheet; empty for none.
        template: prompt of a class.
        photos: a CSV file with the columns file, object, written_word about real photos; files
            lie beside it or in a folder there.
        seed: of places, words and samples.
    """

    name = "typographic"

    def __init__(
        self,
        samples: int = 1000,
        size: float = 0.15,
        place: str = "random",
        colour: str = "black",
        paper: str = "white",
        template: str = "a photo of a {}",
        photos: str = "",
        seed: int = 0,
    ):
        if samples < 1:
            raise UserError(f"typographic: samples must be at least 1, got {samples}.")
        if template.count("{}") != 1:
            raise UserError(f"typographic: template must hold {{}} once, got {template!r}.")
        self.samples, self.template, self.photos = samples, template, photos
        self.writing = Writing(size, place, colour, paper, seed)

    def settings(self) -> dict[str, Any]:
        """All options."""
        return {
            "samples": self.samples, "size": self.writing.size, "place": self.writing.place,
            "colour": self.writing.colour, "paper": self.writing.paper,
            "template": self.template, "photos": self.photos, "seed": self.writing.seed,
        }  # fmt: skip

    def gather(self, probed: Probed) -> WrittenRows:
        """Write on the images, and embed them, the prompts and the photos."""
        source, words = probed.source, words_of(probed.source.classes)
        if len(words) < 2:
            raise UserError(
                f"typographic needs a source of two classes or more, whose names can be written;"
                f" {source.name!r} has {len(words)}."
            )
        picks = self._picks(source)
        prompts = [self.template.replace("{}", word) for word in words]
        found = {}
        for condition in CONDITIONS:
            images = Written(source, picks, condition, words, self.writing)
            found[condition] = probed.embed(images, prompts if condition == "plain" else ())
        rows = [{id_: row for row, id_ in enumerate(f.ids)} for f in found.values()]
        ids = [id_ for id_ in found["plain"].ids if all(id_ in held for held in rows)]
        if not ids:
            raise UserError("typographic: no image could be written on and embedded.")
        lost = len(picks) - len(ids)
        notes = [f"{lost:,} of {len(picks):,} images could not be written on."] if lost else []
        take = {c: [held[id_] for id_ in ids] for c, held in zip(found, rows)}
        label = np.asarray(found["plain"].label)[take["plain"]]
        written = [
            other_class(int(c), len(words), self.writing.seed, i) for c, i in zip(label, ids)
        ]
        photos = read_photos(Path(self.photos), probed, self.template) if self.photos else None
        return WrittenRows(
            ids, label, np.array(written, np.int64),
            {c: np.asarray(f.images)[take[c]] for c, f in found.items()},
            found["plain"].prompt_embeddings(prompts), words, photos, notes,
        )  # fmt: skip

    def _picks(self, source: Any) -> list[int]:
        order = np.random.default_rng(self.writing.seed).permutation(len(source))
        return sorted(order[: self.samples].tolist())

    def score(self, data: WrittenRows) -> Scores:
        """Accuracy, the word's wins and the margin under each condition."""
        weight = unit64(data.classes)
        each = {c: _condition(unit64(rows) @ weight.T, data) for c, rows in data.images.items()}
        n, values = len(data.label), {}
        for condition, found in each.items():
            values[f"accuracy_{_key(condition)}"] = wilson(int(found.right.sum()), n)
        values["word_wins"] = wilson(int(each[OTHER].fooled.sum()), n)
        values["word_wins_blank"] = wilson(int(each["blank"].fooled.sum()), n)
        values["margin_blank"] = normal_mean(each["blank"].margin)
        values["margin_other_word"] = normal_mean(each[OTHER].margin)
        values["margin_lost_to_word"] = normal_mean(each["blank"].margin - each[OTHER].margin)
        notes = sentences(each)
        tables = {"conditions": _table(each)}
        tables["most_convincing_words"] = _words(data, each[OTHER].fooled)
        if data.photos is not None:
            more, of_photos, said = score_photos(data.photos)
            values, tables, notes = values | more, tables | of_photos, notes + said
        notes += data.notes
        return Scores(self.name, n, values, tables=tables, notes=notes)


@dataclass(frozen=True)
class Outcome:
    """Under one condition, for each image: right, fooled (the written class is the answer), and
    cosine to the own class less cosine to the written one."""

    right: np.ndarray
    fooled: np.ndarray
    margin: np.ndarray


def _condition(scores: np.ndarray, data: WrittenRows) -> Outcome:
    at = np.arange(len(scores))
    answer = decide(scores, data.label)
    return Outcome(
        ranks(scores, data.label) == 0,
        answer == data.written,
        scores[at, data.label] - scores[at, data.written],
    )


def _key(condition: str) -> str:
    return condition.replace(" ", "_")


def _table(each: Mapping[str, Outcome]) -> dict[str, list]:
    rows = []
    for condition, found in each.items():
        n = len(found.right)
        ends: list[Interval] = [
            wilson(int(found.right.sum()), n), wilson(int(found.fooled.sum()), n),
            normal_mean(found.margin),
        ]  # fmt: skip
        change = share_change(each["plain"].right, found.right)
        rows.append([condition, *(v for e in ends for v in (e.value, e.low, e.high)),
                     change.interval.value])  # fmt: skip
    columns = ["condition", "accuracy", "low", "high", "answered the other word", "low", "high",
               "margin", "low", "high", "change of accuracy"]  # fmt: skip
    return {"columns": columns, "rows": rows}


def _words(data: WrittenRows, fooled: np.ndarray, most: int = 10) -> dict[str, list]:
    """The words that won most often, of those written at least thrice."""
    count = np.bincount(data.written, minlength=len(data.names))
    wins = np.bincount(data.written, weights=fooled, minlength=len(data.names))
    known: list[int] = np.flatnonzero(count >= 3).tolist()
    known.sort(key=lambda c: (-wins[c] / count[c], c))
    rows = []
    for c in known[:most]:
        found = wilson(int(wins[c]), int(count[c]))
        rows.append([data.names[c], int(count[c]), found.value, found.low, found.high])
    return {"columns": ["word", "written", "wins", "low", "high"], "rows": rows}


def sentences(each: Mapping[str, Outcome]) -> list[str]:
    """What writing does, in plain words."""
    share = {c: float(found.right.mean()) for c, found in each.items()}
    wins, chance = float(each[OTHER].fooled.mean()), float(each["blank"].fooled.mean())
    change = share_change(each["blank"].right, each[OTHER].right).interval
    said = [
        f"Right answers: {share['plain']:.1%} as they are, {share['blank']:.1%} with blank paper,"
        f" {share['own word']:.1%} with their own name on it, {share[OTHER]:.1%} with another"
        f" class's name. The written word is the answer in {wins:.1%} of cases, against"
        f" {chance:.1%} where the paper is blank."
    ]
    if change.high < 0:
        said.append(
            f"Writing another class's name costs {-100 * change.value:.1f} points beyond what the"
            f" paper hides: the model reads."
        )
    else:
        said.append("Writing costs no more than the blank paper does: no sign of reading.")
    return said
