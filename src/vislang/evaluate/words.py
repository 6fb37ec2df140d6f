"""Words: a model's similarity of two words against people's, and analogies.

n: pairs, V: words of a vocabulary, P: templates, D: width.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.data.prompts import read_prompts
from vislang.errors import UserError
from vislang.evaluate.scores import Scores
from vislang.files import fingerprint
from vislang.metrics.correlation import mean_of_sets, pearson, spearman
from vislang.metrics.features import unit
from vislang.metrics.intervals import Interval, bootstrap_mean

if TYPE_CHECKING:
    from jaxtyping import Float

    from vislang.evaluate.text_suites import Rows

MODES = ("bare", "template", "templates", "rows")
TEMPLATE = "a photo of a {}."
AT_ONCE = 500  # words of 80 templates that are in memory together


@dataclass(frozen=True)
class WordSet:
    """Pairs of words that people scored."""

    name: str
    left: list[str]
    right: list[str]
    gold: Float[np.ndarray, " n"]


@dataclass(frozen=True)
class WordData:
    """All sets of a folder, and analogy questions: (section, a, b, c, answer)."""

    sets: list[WordSet]
    questions: list[tuple[str, str, str, str, str]]
    fingerprint: str
    notes: list[str] = field(default_factory=list)


class Words:
    """Word similarity (Spearman and Pearson against people) and analogies (3CosAdd).

    Args:
        sets: names of the sets, parts of file names such as RG-65; empty for all.
        modes: bare: the word alone; template: in one sentence; templates: in many, each row
            normalised and then averaged; rows: every pair in every sentence is a row of its own,
            with the pair's score repeated (the composition line's way).
        template: the one sentence.
        prompts: the many: a built-in set, a file or a list.
        analogies: answer analogy questions, where there are any, with bare words.
    """

    name = "words"

    def __init__(
        self,
        sets: Sequence[str] = (),
        modes: Sequence[str] = ("bare", "template"),
        template: str = TEMPLATE,
        prompts: str | Sequence[str] = "openai_imagenet",
        analogies: bool = True,
    ):
        for mode in modes:
            if mode not in MODES:
                raise UserError(f"words: no mode is called {mode!r}. Known: {', '.join(MODES)}.")
        if template.count("{}") != 1:
            raise UserError(f"words: the template needs one gap {{}}, got {template!r}.")
        self.sets, self.modes, self.template = tuple(sets), tuple(modes), template
        self.prompts, self.analogies = prompts, analogies

    def read(self, path: Path) -> WordData:
        """Files of pairs below `path`, or one file."""
        return read_words(path, self.sets)

    def score(self, read: WordData, rows: Rows) -> Scores:
        """Correlations of each set and mode; their means; analogies."""
        table: list[list[Any]] = []
        values: dict[str, Interval] = {}
        for mode in self.modes:
            found = []
            for words in read.sets:
                similar, gold = self._similar(mode, words, rows)
                n = len(words.gold)
                rank, linear = spearman(similar, gold, n), pearson(similar, gold, n)
                values[f"{words.name}_{mode}"] = rank
                found.append(rank)
                table.append([words.name, mode, n, rank.value, rank.low, rank.high,
                              linear.value, linear.low, linear.high])  # fmt: skip
            if len(found) > 1:
                values[f"mean_{mode}"] = mean_of_sets(found)
        columns = ["set", "mode", "pairs", "spearman", "low", "high", "pearson", "low ", "high "]
        tables = {"sets": {"columns": columns, "rows": table}}
        if self.analogies and read.questions:
            total, tables["analogies"] = analogy_scores(read.questions, rows)
            values["analogies"] = total
        n = sum(len(words.gold) for words in read.sets)
        return Scores(self.name, n, values, tables=tables, notes=list(read.notes))

    def settings(self) -> dict[str, Any]:
        """Everything."""
        prompts = self.prompts if isinstance(self.prompts, str) else list(self.prompts)
        return {
            "sets": list(self.sets), "modes": list(self.modes), "template": self.template,
            "prompts": prompts, "analogies": self.analogies, "similarity": "cosine",
        }  # fmt: skip

    def _similar(
        self, mode: str, words: WordSet, rows: Rows
    ) -> tuple[Float[np.ndarray, " r"], Float[np.ndarray, " r"]]:
        """Similarities and gold of a set; in the mode "rows" of P rows a pair."""
        if mode in ("bare", "template"):
            frame = "{}" if mode == "bare" else self.template
            both = unit(rows([frame.replace("{}", w) for w in words.left + words.right]))
            left, right = both[: len(words.left)], both[len(words.left) :]
            return _cosines(left, right), words.gold
        frames = read_prompts(self.prompts)
        if mode == "templates":
            place, mean = _mean_rows(words.left + words.right, frames, rows)
            left = mean[[place[w] for w in words.left]]
            return _cosines(left, mean[[place[w] for w in words.right]]), words.gold
        found = []
        for frame in frames:
            both = unit(rows([frame.replace("{}", w) for w in words.left + words.right]))
            found.append(_cosines(both[: len(words.left)], both[len(words.left) :]))
        return np.stack(found, axis=1).ravel(), np.repeat(words.gold, len(frames))


def _cosines(left: np.ndarray, right: np.ndarray) -> Float[np.ndarray, " n"]:
    return np.einsum("nd,nd->n", left, right, dtype=np.float64)


def _mean_rows(
    words: Sequence[str], frames: Sequence[str], rows: Rows
) -> tuple[dict[str, int], Float[np.ndarray, "V D"]]:
    """Mean of the unit rows of a word in every sentence, normalised."""
    distinct = sorted(set(words))
    means = []
    for first in range(0, len(distinct), AT_ONCE):
        part = distinct[first : first + AT_ONCE]
        texts = [frame.replace("{}", word) for word in part for frame in frames]
        means.append(unit(rows(texts)).reshape(len(part), len(frames), -1).mean(axis=1))
    return {word: row for row, word in enumerate(distinct)}, unit(np.concatenate(means))


def analogy_scores(
    questions: Sequence[tuple[str, str, str, str, str]], rows: Rows
) -> tuple[Interval, dict[str, list]]:
    """a is to b as c to ?: the word nearest to b - a + c, the three asked words left out.

    The vocabulary is the words of all questions. Questions of one pair (a, b) hang together, so
    the interval draws pairs. Mikolov et al. 2013, arXiv:1301.3781.
    """
    vocabulary = sorted({word for question in questions for word in question[1:]})
    place = {word: row for row, word in enumerate(vocabulary)}
    v = unit(rows(vocabulary))
    asked = np.array([[place[word] for word in question[1:]] for question in questions])
    right = np.zeros(len(asked))
    for first in range(0, len(asked), 4096):
        a, b, c, answer = asked[first : first + 4096].T
        score = (v[b] - v[a] + v[c]) @ v.T
        own = np.arange(len(a))
        for known in (a, b, c):
            score[own, known] = -np.inf
        wanted = score[own, answer].copy()
        score[own, answer] = -np.inf
        right[first : first + 4096] = wanted > score.max(axis=1)
    _, pair = np.unique(asked[:, 0] * len(vocabulary) + asked[:, 1], return_inverse=True)
    sections = list(dict.fromkeys(question[0] for question in questions))
    of = np.array([sections.index(question[0]) for question in questions])
    body = []
    for number, section in enumerate(sections):
        mine = of == number
        part = bootstrap_mean(right[mine], pair[mine], proportion=True)
        body.append([section, int(mine.sum()), part.value, part.low, part.high])
    total = bootstrap_mean(right, pair, proportion=True)
    return total, {"columns": ["section", "questions", "accuracy", "low", "high"], "rows": body}


def read_words(path: Path, chosen: Sequence[str] = ()) -> WordData:
    """Sets of a folder: lines `word1 word2 score`, separated by tab, space, comma or `;`.

    Raises:
        UserError: nothing there, an unknown set, or a line that is no pair with a number.
    """
    files = [path] if path.is_file() else sorted(
        f for f in path.iterdir() if f.suffix in (".txt", ".csv") and f.is_file()
    )  # fmt: skip
    sets, notes = [], []
    for file in files:
        if chosen and not any(_plain(name) in _plain(file.stem) for name in chosen):
            continue
        words, blank = _read_set(file)
        sets.append(words)
        if blank:
            notes.append(f"{words.name}: {blank} blank lines or lines without a score left out.")
    for name in chosen:
        if not any(_plain(name) in _plain(file.stem) for file in files):
            have = ", ".join(file.stem for file in files)
            raise UserError(f"words: no set {name!r} below {path}. There are: {have or 'none'}.")
    if not sets:
        raise UserError(f"words: no file of pairs (.txt, .csv) at {path}.")
    questions: list[tuple[str, str, str, str, str]] = []
    for file in sorted(path.glob("questions-words.txt.gz")) if path.is_dir() else ():
        questions = _read_questions(file)
    content = [[w.name, w.left, w.right, w.gold.tolist()] for w in sets]
    return WordData(sets, questions, fingerprint([content, questions]), notes)


def _plain(name: str) -> str:
    return re.sub(r"\W", "", name).lower()


def _read_set(file: Path) -> tuple[WordSet, int]:
    left, right, gold, blank = [], [], [], 0
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), 1):
        parts = [part for part in re.split(r"[;,\t ]+", line.strip()) if part]
        if len(parts) <= 2 and (not parts or len(parts) == 2):
            blank += 1
            continue
        try:
            a, b, score = parts[0], parts[1], float(parts[2])
        except (ValueError, IndexError):
            raise UserError(
                f"{file}, line {number}: expected two words and a score, got {line[:60]!r}."
            ) from None
        left.append(a)
        right.append(b)
        gold.append(score)
    if len(gold) < 2:
        raise UserError(f"{file} has {len(gold)} pairs: a correlation needs at least two.")
    return WordSet(file.stem.removeprefix("EN-"), left, right, np.array(gold)), blank


def _read_questions(file: Path) -> list[tuple[str, str, str, str, str]]:
    found, section = [], ""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.startswith(":"):
                section = line[1:].strip()
            elif line.strip():
                words = line.split()
                if len(words) != 4:
                    raise UserError(f"{file}, line {number}: expected four words, got {line!r}.")
                found.append((section, *words))
    return found
