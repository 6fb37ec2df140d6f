"""Sentences: similarity against people's (STS, SICK-R), and classification by embeddings.

n: rows, D: width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.errors import UserError
from vislang.evaluate.scores import Scores
from vislang.evaluate.sentence_classes import (
    Answers,
    by_folds,
    by_inner_folds,
    by_split,
    pair_features,
)
from vislang.evaluate.sentence_files import (
    BY_CLASS,
    CLASSIFIED,
    RANKED,
    TRANSFER,
    YEARS,
    read_task,
)
from vislang.evaluate.sentence_splits import PROBING
from vislang.evaluate.sentence_tree import Part, Task, Tree
from vislang.files import fingerprint
from vislang.lookup import nearest
from vislang.metrics.correlation import mean_of_sets, pearson, spearman
from vislang.metrics.features import unit
from vislang.metrics.intervals import Interval, wilson

if TYPE_CHECKING:
    from jaxtyping import Float

    from vislang.evaluate.text_suites import Rows

TASKS = (*RANKED, *CLASSIFIED)


@dataclass(frozen=True)
class SentenceData:
    """The tasks that were found."""

    tasks: list[Task]
    fingerprint: str
    notes: list[str] = field(default_factory=list)


class Sentences:
    """STS12-16, STS-B and SICK-R by cosine; SentEval's transfer and probing tasks by a classifier.

    A year of STS has three numbers: all pairs together (named after the year, as SimCSE reports
    it), the mean over its sets, and the mean weighted by pairs (SentEval's two).

    Args:
        tasks: names, by default all that are there.
        inner: folds by which C is chosen within each outer fold of MR, CR, SUBJ and MPQA; 10 is
            SentEval's protocol, 1 a tenth of its cost.
        threads: of the classifiers; 0 takes all cores.
    """

    name = "sentences"

    def __init__(self, tasks: Sequence[str] = (), inner: int = 1, threads: int = 1):
        for task in tasks:
            if task not in TASKS:
                raise UserError(
                    f"sentences: no task is called {task!r}.{nearest(task, TASKS)}"
                    f" Known: {', '.join(TASKS)}."
                )
        if inner < 1:
            raise UserError(f"sentences: inner must be at least 1, got {inner}.")
        self.tasks, self.inner, self.threads = tuple(tasks), inner, threads

    def read(self, path: Path) -> SentenceData:
        """SentEval's files below `path`, or in a zip."""
        tree = Tree(path)
        found, notes, absent = [], [], []
        for name in self.tasks or TASKS:
            task = read_task(tree, name)
            if task is None:
                absent.append(name)
                if tree.lacks:
                    notes.append(f"{name}: {', '.join(tree.lacks)} missing below {path}: left out.")
            else:
                found.append(task)
                notes += task.notes
        if plainly := [name for name in absent if not any(n.startswith(f"{name}:") for n in notes)]:
            notes.append(f"Not below {path}, left out: {', '.join(plainly)}.")
        if not found:
            raise UserError(
                f"sentences: none of {', '.join(self.tasks or TASKS)} is at {path}. Expected"
                " SentEval's folders: STS/STS12-en-test, STSBenchmark, SICK, MR, CR ..."
            )
        content = [
            [task.name, {k: [p.left, p.right, p.gold.tolist()] for k, p in task.parts.items()}]
            for task in found
        ]
        return SentenceData(found, fingerprint(content), notes)

    def score(self, read: SentenceData, rows: Rows) -> Scores:
        """Spearman for similarity, accuracy for classes, and their means."""
        values: dict[str, Interval] = {}
        similar: list[list[Any]] = []
        classes: list[list[Any]] = []
        outcomes: dict[str, dict[str, Any]] = {}
        n = 0
        for task in read.tasks:
            if task.name in RANKED:
                values |= _similarity(task, rows, similar)
                test = task.parts.get("test")
                n += len(test.gold) if test else sum(len(p.gold) for p in task.parts.values())
            else:
                values |= self._classified(task, rows, classes, outcomes)
                n += classes[-1][1]
        columns = ["task", "part", "pairs", "spearman", "low", "high", "pearson"]
        tables = {"similarity": {"columns": columns, "rows": similar}} if similar else {}
        if classes:
            columns = ["task", "n", "accuracy", "validation", "C", "mean over folds"]
            tables["classes"] = {"columns": columns, "rows": classes}
        ranked = [values[name] for name in RANKED if name in values]
        if len(ranked) > 1:
            values["similarity_mean"] = mean_of_sets(ranked)
        for mean, names in (("classes_mean", TRANSFER), ("probing_mean", tuple(PROBING))):
            right = [values[name] for name in names if name in values]
            if len(right) > 1:
                values[mean] = mean_of_sets(right)
        return Scores(
            self.name, n, values, tables=tables, notes=list(read.notes), per_sample=outcomes or None
        )

    def settings(self) -> dict[str, Any]:
        """Tasks and protocol."""
        return {
            "tasks": list(self.tasks), "similarity": "cosine", "inner": self.inner,
            "classifier": "logistic regression, C by SentEval's grids and folds, seed 1111",
        }  # fmt: skip

    def _classified(
        self, task: Task, rows: Rows, table: list[list[Any]], outcomes: dict[str, dict[str, Any]]
    ) -> dict[str, Interval]:
        x = {
            split: _features(part, rows, task.name == "SNLI") for split, part in task.parts.items()
        }
        y = {split: np.asarray(part.gold) for split, part in task.parts.items()}
        threads = self.threads or None
        learnt = y["all" if "all" in y else "train"]
        if len(np.unique(learnt)) <= max(1, *(int(each.max()) for each in y.values())):
            raise UserError(f"{task.name}: not every class has a sentence to learn from.")
        if task.name in BY_CLASS:
            found, gold = by_inner_folds(
                x["all"], y["all"], inner=self.inner, threads=threads
            ), y["all"]  # fmt: skip
        else:
            gold = y["test"]
            if "dev" in x:
                found = by_split(
                    x["train"], y["train"], x["dev"], y["dev"], x["test"], gold, threads=threads
                )
            else:
                found = by_folds(x["train"], y["train"], x["test"], gold, threads=threads)
        table.append([task.name, len(gold), float(found.right.mean()), found.validation,
                      found.cost, found.mean])  # fmt: skip
        ids = [str(row) for row in range(len(gold))]
        outcomes[task.name] = {"ids": ids, "values": found.right}
        made = {task.name: wilson(int(found.right.sum()), len(gold))}
        if task.name == "MRPC":
            made["MRPC_f1"] = f1(found, gold)
        return made


def f1(found: Answers, gold: np.ndarray) -> Interval:
    """F1 of class 1, 2 TP / (2 TP + FP + FN), with a bootstrap over rows.

    >>> answers = Answers(np.array([1, 0]), np.array([1, 1]), 0.0, 1.0, 0.5)
    >>> round(f1(answers, np.array([1, 0])).value, 3)
    0.667
    """
    from vislang.metrics.intervals import bootstrap

    said, true = found.said == 1, gold == 1

    def statistic(rows: np.ndarray) -> float:
        both = 2 * int((said[rows] & true[rows]).sum())
        return both / max(int(said[rows].sum()) + int(true[rows].sum()), 1)

    return bootstrap(statistic, len(gold))


def _similarity(task: Task, rows: Rows, table: list[list[Any]]) -> dict[str, Interval]:
    """Spearman of cosine and gold: of a year all, mean and weighted; else of the test part."""
    both: list[tuple[np.ndarray, np.ndarray]] = []
    found: list[tuple[Interval, Interval]] = []
    for name, part in task.parts.items():
        cosine = _cosines(part, rows)
        both.append((cosine, part.gold))
        found.append((spearman(cosine, part.gold), pearson(cosine, part.gold)))
        table.append(_row(task.name, name, *found[-1]))
    cosines, golds = (np.concatenate(side) for side in zip(*both))
    overall = spearman(cosines, golds), pearson(cosines, golds)
    sizes = [len(gold) for _, gold in both]
    mean, weighted = (
        tuple(mean_of_sets([f[k] for f in found], w) for k in (0, 1)) for w in (None, sizes)
    )
    for label, pair in (("all", overall), ("mean", mean), ("weighted mean", weighted)):
        table.append(_row(task.name, label, *pair))
    if task.name not in YEARS:
        return {task.name: found[list(task.parts).index("test")][0]}
    return {
        task.name: overall[0],
        f"{task.name}_mean": mean[0],
        f"{task.name}_weighted_mean": weighted[0],
    }


def _row(task: str, part: str, rank: Interval, linear: Interval) -> list[Any]:
    return [task, part, rank.n, rank.value, rank.low, rank.high, linear.value]


def _cosines(part: Part, rows: Rows) -> Float[np.ndarray, " n"]:
    n = len(part.left)
    both = unit(np.asarray(rows([*part.left, *part.right]), np.float64))
    return np.einsum("nd,nd->n", both[:n], both[n:])


def _features(part: Part, rows: Rows, themselves: bool) -> Float[np.ndarray, "n D"]:
    if not part.right:
        return np.asarray(rows(part.left))
    n = len(part.left)
    both = np.asarray(rows([*part.left, *part.right]))
    return pair_features(both[:n], both[n:], themselves)
