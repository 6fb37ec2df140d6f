"""Linear probe: softmax regression on frozen features, its penalty chosen on a validation split.

n: training samples, K: classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.errors import UserError
from vislang.evaluate.classified import score_classes
from vislang.evaluate.requests import Embeddings, Requests, need
from vislang.evaluate.scores import Scores
from vislang.evaluate.search import as_table, held_out, search_cost, search_grid
from vislang.evaluate.softmax import Fit, SoftmaxRegression, unsquared_fit
from vislang.lookup import nearest
from vislang.metrics.classify import mean_recall, ranks
from vislang.metrics.features import unit

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from vislang.data.sample import Source

CHOICES = {
    "space": ("features", "embedding"),
    "solver": ("own", "sklearn"),
    "penalty": ("squared", "norm"),
    "metric": ("accuracy", "mean_class_recall"),
    "scale": ("none", "unit", "standard"),
}


ROUGH = 100.0  # tolerances of the search's fits


class LinearProbe:
    """Linear probe by L-BFGS to a certified optimum; C from a validation split, never the test.

    Mean cross-entropy + 1/(2 C n) ‖W‖² on the image tower's features. The cost C is searched on
    a stratified, seeded fifth of the training samples; then train and validation are fitted
    together and the test samples are scored once. Language-guided pre-training (CVPR 2023) and
    CLIP (arXiv:2103.00020, appendix A.3) probe alike.

    Args:
        C: a cost to use without a search; scikit-learn's C (with penalty norm: the original's).
        space: features (before the head) or embedding.
        scale: of the features: none, unit (rows of length 1) or standard (by training statistics).
        metric: what the search maximises: accuracy or mean_class_recall.
        refit: fit train and validation together at the end; False keeps the fit on train.
        solver: own, or sklearn (LogisticRegression, lbfgs, tolerance 1e-4, cold starts).
        penalty: squared; norm is ½ ‖W‖ / C, not squared, for numbers of the original.
        tolerance: of the gradient's norm, for solver own; the search, which asks for validation
            accuracies alone, stops at 100 times that (penalty squared).
        share: of each class that the search holds out.
        seed: of the split.
        validation: what is held out: stratified (a share of each class), contiguous (the last
            share of the rows, as the original does), or id:PREFIX (samples whose id begins so).
        grid: search this many costs, even in the logarithm, instead of in two stages; 0 does not.
    """

    name = "probe"

    def __init__(
        self,
        C: float | None = None,
        space: str = "features",
        scale: str = "none",
        metric: str = "accuracy",
        refit: bool = True,
        solver: str = "own",
        penalty: str = "squared",
        tolerance: float = 1e-6,
        share: float = 0.2,
        seed: int = 93,
        validation: str = "stratified",
        grid: int = 0,
    ):
        self._settings = {
            "C": C, "space": space, "scale": scale, "metric": metric, "refit": refit,
            "solver": solver, "penalty": penalty, "tolerance": tolerance, "share": share,
            "seed": seed, "validation": validation, "grid": grid,
        }  # fmt: skip
        for name, known in CHOICES.items():
            choose(f"probe: {name}", self._settings[name], known)
        if C is not None and not C > 0:
            raise UserError(f"probe: C must be above 0, got {C}.")
        if solver == "sklearn" and penalty == "norm":
            raise UserError("probe: scikit-learn has no penalty norm; use solver own.")
        if not 0 < share < 1:
            raise UserError(f"probe: share must be between 0 and 1, got {share}.")
        self.C, self.space, self.scale, self.metric, self.refit = C, space, scale, metric, refit
        self.solver, self.penalty, self.tolerance = solver, penalty, tolerance
        if not validation.startswith("id:"):
            choose("probe: validation", validation, ("stratified", "contiguous", "id:PREFIX"))
        if grid and grid < 2:
            raise UserError(f"probe: grid must be 2 costs or more, or 0, got {grid}.")
        self.share, self.seed, self.validation, self.grid = share, seed, validation, grid

    def requests(self, source: Source) -> Requests:
        """Features and labels of both sources."""
        need(source, "label", self.name)
        return space_request(self.space)

    def score(self, embeddings: Embeddings) -> Scores:
        """Accuracy on the test samples."""
        train, test, how = embeddings.with_train()
        x, label = train.space(self.space), train.label
        found = self.fit(x, label, ids=train.ids)
        scores = np.full((len(test.label), embeddings.class_count), -np.inf)
        scores[:, found.classes] = found.scores(test.space(self.space))
        notes = [*embeddings.notes, f"Trained on: {how}.", *found.notes]
        unseen = np.setdiff1d(test.label, found.classes)
        if len(unseen):
            notes.append(f"{len(unseen)} classes of the test samples have no training sample.")
        final = {
            "columns": ["C", "training samples", "classes", "objective", "gradient_norm", "gap",
                        "evaluations", "converged"],
            "rows": [[found.cost, found.samples, len(found.classes), found.fit.objective,
                      found.fit.gradient_norm, found.fit.gap, found.fit.evaluations,
                      found.fit.converged]],
        }  # fmt: skip
        tables = {"solution": final} | ({"search": found.search} if found.search else {})
        return score_classes(
            self.name, scores, test.label, embeddings.class_names, test.ids, tables=tables,
            notes=notes,
        )  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """All options."""
        return dict(self._settings)

    def fit(
        self,
        x: Float[np.ndarray, "n D"],
        label: Int[np.ndarray, " n"],
        validation: Int[np.ndarray, " m"] | None = None,
        ids: Sequence[str] = (),
    ) -> Probe:
        """Search C, then fit.

        Args:
            x: training features.
            label: classes; gaps are allowed.
            validation: rows of x to hold out in the search; by default as the options say.
            ids: of the samples, where the options tell validation samples by them.
        """
        classes, y = np.unique(label, return_inverse=True)
        if len(classes) < 2:
            raise UserError(
                f"probe needs training samples of at least two classes, got {len(classes)}:"
                " there is nothing to tell apart. Look at the labels of the training source."
            )
        if self.C is not None:
            shift = Shift.of(x, self.scale)
            return self._done(self._solver(shift(x), y)(self.C), self.C, classes, shift, len(x), {})
        if validation is None:
            validation = held_out(self.validation, y, ids, self.share, self.seed)
        if not len(validation):
            raise UserError(
                "probe: no class has two training samples, so none can be held out to choose C."
                " Give C, for example C=1."
            )
        fitted = np.setdiff1d(np.arange(len(x)), validation)
        seen, inside = np.unique(y[fitted], return_inverse=True)
        shift = Shift.of(x[fitted], self.scale)
        solve, fits = self._solver(shift(x[fitted]), inside, rough=ROUGH), {}
        held, held_label = shift(x[validation]), y[validation]

        def validate(cost: float) -> float:
            fits[cost] = solve(cost)
            scores = np.full((len(held), len(classes)), -np.inf)
            scores[:, seen] = fits[cost].scores(held)
            return self._value(scores, held_label)

        cost, tried = search_grid(validate, self.grid) if self.grid else search_cost(validate)
        search, ends = as_table(tried, fits), (min(tried), max(tried))
        notes = [f"The best C, {cost:g}, lies at the end of the range that was searched."]
        notes = notes if cost in ends else []
        if not self.refit:
            fit = solve(cost, 1.0) if self.solver == "own" else fits[cost]
            return self._done(fit, cost, classes[seen], shift, len(fitted), search, notes)
        start = fits[cost] if len(seen) == len(classes) and self.scale != "standard" else None
        shift = Shift.of(x, self.scale)
        fit = self._solver(shift(x), y, start)(cost)
        return self._done(fit, cost, classes, shift, len(x), search, notes)

    def _value(self, scores: np.ndarray, label: np.ndarray) -> float:
        """What the search maximises."""
        place = ranks(scores, label)
        if self.metric == "accuracy":
            return float((place == 0).mean())
        return mean_recall(place, label, scores.shape[1]).value

    def _solver(self, x, y, start: Fit | None = None, rough: float = 1.0) -> Callable[..., Fit]:
        """(cost, how rough) -> Fit; each starts from the nearest cost that was solved before."""
        if self.solver == "sklearn":
            return lambda cost, rough=rough: sklearn_fit(x, y, cost)
        problem = SoftmaxRegression(x, y, int(y.max()) + 1)
        solved: dict[float, Fit] = {}

        def solve(cost: float, rough: float = rough) -> Fit:
            near = min(solved, key=lambda c: abs(np.log(c / cost)), default=None)
            begin = solved[near] if near is not None else start
            if self.penalty == "norm":
                fit = unsquared_fit(problem, cost, begin, min(self.tolerance, 1e-7))
            else:
                fit = problem.fit(1 / (cost * len(y)), begin, rough * self.tolerance)
            solved[cost] = fit
            return fit

        return solve

    def _done(self, fit, cost, classes, shift, samples, search, notes=()) -> Probe:
        notes = list(notes)
        if not fit.converged:
            notes.append(
                f"The solver stopped at a gradient norm of {fit.gradient_norm:.1e} before its"
                " tolerance."
            )
        return Probe(fit, cost, classes, shift, samples, search, notes)


@dataclass(frozen=True)
class Shift:
    """What is done to features before the classifier: rows to unit length, or x -> (x - m) / s."""

    unit: bool = False
    mean: Any = 0.0
    deviation: Any = 1.0

    @classmethod
    def of(cls, x: np.ndarray, scale: str) -> Shift:
        if scale == "standard":
            deviation = x.std(axis=0, dtype=np.float64)
            return cls(False, x.mean(axis=0, dtype=np.float64), np.maximum(deviation, 1e-12))
        return cls(scale == "unit")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if self.unit:
            return unit(x)
        return x if np.isscalar(self.mean) else (x - self.mean) / self.deviation


@dataclass(frozen=True)
class Probe:
    """A fitted probe.

    Args:
        fit: weights, and how near they are to the optimum.
        cost: the C of the fit.
        classes: the labels that its columns stand for.
        shift: what is done to features first.
        samples: how many it was fitted on.
        search: the costs tried, as a table; empty without a search.
        notes: sentences for the reader.
    """

    fit: Fit
    cost: float
    classes: Int[np.ndarray, " K"]
    shift: Shift
    samples: int
    search: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def scores(self, x: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n K"]:
        """Class scores of new features, a column for each of `classes`."""
        return self.fit.scores(self.shift(x))


def sklearn_fit(x: np.ndarray, y: np.ndarray, cost: float) -> Fit:
    """scikit-learn's LogisticRegression with its own tolerance, on one thread."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `converged` says so
        made = LogisticRegression(C=cost, max_iter=1000, tol=1e-4).fit(x, y)
    weight, bias = made.coef_.astype(np.float64), made.intercept_.astype(np.float64)
    if len(weight) == 1:  # two classes: one row of differences
        weight, bias = np.stack([-weight[0], weight[0]]) / 2, np.stack([-bias[0], bias[0]]) / 2
    l2 = 1 / (cost * len(y))
    logits = x.astype(np.float64) @ weight.T + bias
    logits -= logits.max(1, keepdims=True)
    own = np.arange(len(y)), y
    loss = float((np.log(np.exp(logits).sum(1)) - logits[own]).mean())
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    p[own] -= 1
    of_w, of_b = p.T @ x / len(y) + l2 * weight, p.mean(0)
    norm = float(np.sqrt((of_w**2).sum() + (of_b**2).sum()))
    total = loss + l2 / 2 * float((weight**2).sum())
    steps = int(made.n_iter_[0])
    gap = norm**2 / (2 * min(l2, float(np.bincount(y).min()) / len(y)))
    return Fit(weight, bias, l2, total, loss, norm, steps, steps < 1000, gap)


def space_request(space: str) -> Requests:
    """Requests of labels and of features or embeddings of both sources."""
    images = space == "embedding"
    return Requests(images=images, features=not images, labels=True, train=True)


def choose(what: str, got: Any, known: tuple[str, ...]) -> None:
    """Refuse a value that is not one of the known ones."""
    if got not in known:
        raise UserError(
            f"{what} must be one of {', '.join(known)}, got {got!r}.{nearest(str(got), known)}"
        )
