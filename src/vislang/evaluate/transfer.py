"""Transfer: linear probes fitted on one domain, scored on all of them.

n: training images, m: test images, E: domains, D: width, K: classes. The matrix has a row for
each domain that was fitted and a column for each that was scored; its diagonal is what a probe of
the domain's own images reaches.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.errors import UserError
from vislang.evaluate.domains import PLAIN, Complete, DomainEmbeddings, complete, readable
from vislang.evaluate.probe import CHOICES, Probe, Shift, choose, sklearn_fit
from vislang.evaluate.scores import Scores
from vislang.evaluate.search import stratified_split
from vislang.evaluate.softmax import Fit, SoftmaxRegression
from vislang.metrics.classify import accuracy, ranks
from vislang.metrics.intervals import Interval
from vislang.metrics.paired import mean_share, share_change
from vislang.metrics.true_class import true_class

if TYPE_CHECKING:
    from jaxtyping import Float, Int

COSTS = tuple(10.0 ** (-4 + 8 * i / 9) for i in range(10))  # scikit-learn's ten
PATIENCE = 2  # costs beyond the best before the search stops; larger ones cost most


@dataclass(frozen=True)
class Transferred:
    """Probes of every domain on every domain.

    Args:
        domains: names, in the order of rows and columns.
        hits: right or wrong by (fitted, scored, image) [E, E, m].
        probes: of each domain.
        zero_shot: right or wrong by (domain, image) with standard prompts on the same test
            images; None without prompts.
        train: how many images the probes were fitted on.
        held: rows of the test images.
    """

    domains: tuple[str, ...]
    hits: np.ndarray
    probes: list[Probe]
    zero_shot: np.ndarray | None
    train: int
    held: np.ndarray

    @property
    def matrix(self) -> Float[np.ndarray, "E E"]:
        """Accuracy; rows: fitted on, columns: scored on."""
        return self.hits.mean(axis=2)


class Transfer:
    """Linear probes fitted on one domain and scored on all: what a domain teaches of the others.

    Training and test images are different images in all domains alike, so that no probe has seen
    a test image in another domain. Rows have length 1. The cost is that of the best validation
    accuracy among ten (the smallest of equals); then all training images are fitted.

    Args:
        test: share of each class to score on.
        costs: C to choose from; one number skips the search.
        validation: share of the training images that the search holds out.
        tolerance: of the gradient's norm.
        evaluations: most of the objective in one fit.
        patience: costs without a better accuracy after which the search stops; 0: never.
        solver: own, or sklearn (lbfgs, tolerance 1e-4), for numbers of the original: it stops
            short of the optimum, which can change the cost that is chosen.
        seed: of both divisions.
    """

    name = "transfer"

    def __init__(
        self,
        test: float = 0.3,
        costs: Sequence[float] | float = COSTS,
        validation: float = 0.1,
        tolerance: float = 1e-4,
        evaluations: int = 1000,
        patience: int = PATIENCE,
        solver: str = "own",
        seed: int = 0,
    ):
        choose("transfer: solver", solver, CHOICES["solver"])
        self.costs = (float(costs),) if isinstance(costs, int | float) else tuple(costs)
        if not self.costs or any(not cost > 0 for cost in self.costs):
            raise UserError(f"transfer: costs must be numbers above 0, got {costs!r}.")
        for name, share in (("test", test), ("validation", validation)):
            if not 0 < share < 1:
                raise UserError(f"transfer: {name} must be between 0 and 1, got {share}.")
        self.test, self.validation, self.tolerance = test, validation, tolerance
        self.evaluations, self.patience, self.seed = evaluations, patience, seed
        self.solver = solver

    def settings(self) -> dict[str, Any]:
        """All options."""
        return {
            "test": self.test, "costs": list(self.costs), "validation": self.validation,
            "tolerance": self.tolerance, "evaluations": self.evaluations,
            "patience": self.patience, "solver": self.solver, "seed": self.seed,
        }  # fmt: skip

    def measure(self, rows: DomainEmbeddings) -> tuple[Complete, Transferred]:
        """Fit every domain, score all."""
        part = complete(rows, self.name, plain=False)
        label = part.labels
        if len(np.unique(label)) < 2:
            raise UserError(
                "transfer needs images of at least two classes: with one there is nothing to"
                " tell apart. Use a source with more class folders."
            )
        train, held = stratified_split(label, self.test, self.seed)
        if not len(held):
            raise UserError(
                "transfer: every class has one image only, so none is left to score on."
            )
        validation = stratified_split(label[train], self.validation, self.seed + 1)[1]
        probes = [
            self.fit(np.asarray(part.rows(d)[train]), label[train], validation)
            for d in part.domains
        ]
        hits = np.zeros((len(probes), len(probes), len(held)), bool)
        for column, domain in enumerate(part.domains):
            x = np.asarray(part.rows(domain)[held])
            for row, probe in enumerate(probes):
                hits[row, column] = _hits(probe, x, label[held])
        return part, Transferred(
            part.domains, hits, probes, _zero_shot(part, held), len(train), held
        )

    def fit(
        self,
        x: Float[np.ndarray, "n D"],
        label: Int[np.ndarray, " n"],
        validation: Int[np.ndarray, " v"] | Sequence[int],
    ) -> Probe:
        """One probe: the cost by validation accuracy, then all rows.

        Args:
            x: features of any length; they are scaled to length 1.
            label: classes; gaps are allowed.
            validation: rows to hold out while choosing; with none the first cost is taken.
        """
        shift = Shift(unit=True)
        z = shift(np.asarray(x, np.float64))
        classes, y = np.unique(label, return_inverse=True)
        cost, search = self.costs[0], []
        if len(self.costs) > 1 and len(validation):
            cost, search = self._search(z, y, np.asarray(validation))
        fit = self._solver(z, y)(cost)
        table = {"columns": ["C", "validation"], "rows": search}
        return Probe(fit, cost, classes, shift, len(y), table if search else {})

    def _search(self, z, y, validation) -> tuple[float, list[list[float]]]:
        """(best cost, [cost, validation accuracy] of those tried), from the smallest cost on."""
        fitted = np.setdiff1d(np.arange(len(z)), validation)
        seen, inside = np.unique(y[fitted], return_inverse=True)
        solve, tried, best = self._solver(z[fitted], inside), [], 0
        for place, cost in enumerate(sorted(self.costs)):
            right = seen[solve(cost).scores(z[validation]).argmax(axis=1)] == y[validation]
            tried.append([cost, float(right.mean())])
            if tried[place][1] > tried[best][1]:
                best = place
            if self.patience and place - best > self.patience:
                break
        return tried[best][0], tried

    def _solver(self, z: np.ndarray, y: np.ndarray) -> Callable[[float], Fit]:
        """cost -> Fit; our own starts from the fit before."""
        if self.solver == "sklearn":
            return lambda cost: sklearn_fit(z, y, cost)
        problem = SoftmaxRegression(z, y, int(y.max()) + 1)
        before: list[Fit] = []

        def solve(cost: float) -> Fit:
            start = before[-1] if before else None
            l2 = 1 / (cost * len(y))
            before.append(problem.fit(l2, start, self.tolerance, self.evaluations))
            return before[-1]

        return solve

    def score(self, rows: DomainEmbeddings) -> Scores:
        """The matrix, what each probe is, and what they say in words."""
        return self.scores(*self.measure(rows))

    def scores(self, part: Complete, found: Transferred) -> Scores:
        """What was measured in the form of a scores file."""
        return as_scores(part, found)


def _hits(probe: Probe, x: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Right or wrong; a class that the probe never saw is wrong."""
    place = np.searchsorted(probe.classes, label)
    known = place < len(probe.classes)
    known[known] = probe.classes[place[known]] == label[known]
    return known & (ranks(probe.scores(x), np.where(known, place, 0)) == 0)


def _zero_shot(part: Complete, held: np.ndarray) -> np.ndarray | None:
    try:
        standard = part.class_vectors("standard", PLAIN)
    except UserError:
        return None
    label = part.labels[held]
    return np.stack(
        [true_class(part.rows(d)[held], standard, label).rank == 0 for d in part.domains]
    )


def as_scores(part: Complete, found: Transferred) -> Scores:
    """The numbers in the form of a scores file."""
    names, m = list(found.domains), found.hits.shape[2]
    diagonal = found.hits[np.arange(len(names)), np.arange(len(names))]
    values: dict[str, Interval] = {}
    if PLAIN in names:
        plain = names.index(PLAIN)
        others = [i for i in range(len(names)) if i != plain]
        values["accuracy"] = accuracy(np.where(diagonal[plain], 0, 1))
        values["fitted_on_unchanged_accuracy"] = mean_share(found.hits[plain, others].mean(axis=0))
    values["fitted_on_own_domain_accuracy"] = mean_share(diagonal.mean(axis=0))
    matrix = {"columns": ["fitted on", *names],
              "rows": [[n, *row] for n, row in zip(names, found.matrix.tolist())]}  # fmt: skip
    tables = {"matrix": matrix, "decrease": _decrease(found), "probes": _probes(found)}
    notes = [
        *sentences(found),
        f"Fitted on {found.train:,} images, scored on {m:,} others, the same in all domains.",
        *part.notes,
    ]
    return Scores("transfer", m, values, tables=tables, notes=notes)


def _decrease(found: Transferred) -> dict[str, list]:
    """What a shift costs: probes of the own domain, the probe of unchanged images, zero-shot."""
    if PLAIN not in found.domains:
        return {"columns": ["domain"], "rows": []}
    plain = found.domains.index(PLAIN)
    before, rows = found.hits[plain, plain], []
    for i, domain in enumerate(found.domains):
        if i == plain:
            continue
        sides = [share_change(found.hits[i, i], before), share_change(found.hits[plain, i], before)]
        if found.zero_shot is not None:
            sides.append(share_change(found.zero_shot[i], found.zero_shot[plain]))
        ends = [(c.interval.value, c.interval.low, c.interval.high) for c in sides]
        rows.append([domain, *(v for end in ends for v in end)])
    heads = ["own probe", "low", "high", "probe of unchanged", "low", "high"]
    heads += ["zero-shot", "low", "high"] if found.zero_shot is not None else []
    return {"columns": ["domain", *heads], "rows": rows}


def _probes(found: Transferred) -> dict[str, list]:
    columns = ["domain", "C", "training images", "mean over domains", "gradient norm", "converged"]
    rows = [
        [name, probe.cost, probe.samples, float(row.mean()), probe.fit.gradient_norm,
         probe.fit.converged]
        for name, probe, row in zip(found.domains, found.probes, found.matrix)
    ]  # fmt: skip
    return {"columns": columns, "rows": rows}


def sentences(found: Transferred) -> list[str]:
    """What transfers and what does not, in plain words."""
    matrix, names = found.matrix, [readable(d) for d in found.domains]
    said = []
    off = np.where(np.eye(len(names), dtype=bool), np.inf, matrix)
    row, column = divmod(int(off.argmin()), len(names))
    teacher = int(matrix.mean(axis=1).argmax())
    if PLAIN in found.domains:
        plain = found.domains.index(PLAIN)
        lost = np.diagonal(matrix) - matrix[plain]
        worst = int(lost.argmax())
        if lost[worst] > 0:
            said.append(
                f"A probe of unchanged images is right on {matrix[plain, worst]:.1%} of"
                f" “{names[worst]}” images, one of that domain's own on"
                f" {matrix[worst, worst]:.1%}: there the embedding keeps the class, but elsewhere."
            )
    said.append(
        f"The worst transfer is from “{names[row]}” to “{names[column]}”"
        f" ({matrix[row, column]:.1%}); the probe that does best over all domains was fitted on"
        f" “{names[teacher]}” ({matrix[teacher].mean():.1%} on average)."
    )
    return said


def drawn_share(sizes: Sequence[int], share: float, seed: int = 0) -> list[list[int]]:
    """The original's draw: of each class max(round(share n), 1) of its n sorted files, sorted.

    One of Python's generators, seeded once, serves all classes in turn.

    >>> drawn_share([4, 8], 0.25)
    [[3], [0, 6]]
    """
    generator = random.Random(seed)
    return [
        sorted(generator.sample(range(n), max(round(share * n), 1))) if n else [] for n in sizes
    ]
