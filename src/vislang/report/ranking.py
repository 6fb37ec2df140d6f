"""Runs ranked over all their results: who stands where, and which differences are no chance.

A result is one headline metric of one evaluation that every run has, taken in the same way.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import NormalDist

import numpy as np

from vislang.report.collect import Run, Score
from vislang.report.drift import Outcomes, drift, outcomes_of, paired_p
from vislang.report.evaluation import headline_names, in_order, title_of
from vislang.report.values import Value

LEVEL = 0.05
LEAST = 6  # results from which on the signed-rank test can reach 0.05 two-sided
# Evaluations of many sets, whose every set is a result; elsewhere the headlines are.
MANY = ("sentences", "words", "datasets", "elevater")
NO_SET = ("mean", "average", "_f1")


@dataclass(frozen=True)
class Result:
    """One metric of one evaluation: what every run reached, and the outcomes of samples if known.

    Args:
        title: of the evaluation.
        metric: its name.
        values: run -> Value.
        outcomes: run -> outcome of each sample, for files that give them.
    """

    title: str
    metric: str
    values: Mapping[str, Value]
    outcomes: Mapping[str, Outcomes] = field(default_factory=dict)

    @property
    def sign(self) -> float:
        """1 where higher is better, -1 where lower is."""
        return -1.0 if next(iter(self.values.values())).better == "lower" else 1.0

    def places(self) -> dict[str, float]:
        """Rank of each run, 1 the best; equal values share the mean of their ranks."""
        from scipy.stats import rankdata

        found = rankdata([-self.sign * (v.value or 0.0) for v in self.values.values()])
        return dict(zip(self.values, found.tolist()))


@dataclass(frozen=True)
class Pair:
    """Two runs over all results.

    Args:
        one, other: the runs; `one` has the better mean rank.
        better, worse: results in which `one` is so beyond chance, after Holm.
        level: results that do not tell them apart.
        p: two-sided Wilcoxon signed-rank test over results, after Holm over pairs; None where
            there are too few results.
    """

    one: str
    other: str
    better: int
    worse: int
    level: int
    p: float | None


@dataclass(frozen=True)
class Ranking:
    """All runs over all results: mean rank of each, best first; and every pair."""

    ranks: dict[str, float]
    pairs: list[Pair]


def results_of(runs: Sequence[Run]) -> tuple[list[Result], list[str]]:
    """The results that all runs have in the same way, and why others are left out."""
    named = {run.name: run for run in runs}
    scores: dict[str, dict[str, Score]] = {}
    for run in runs:
        for name, score in run.latest.items():
            scores.setdefault(name, {})[run.name] = score
    found: list[Result] = []
    left: list[str] = []
    for first in in_order({name: next(iter(each.values())) for name, each in scores.items()}):
        each = scores[first.name]
        if len(each) < len(runs):
            lacking = ", ".join(run.name for run in runs if run.name not in each)
            left.append(f"{title_of(first)}: not scored for {lacking}")
        elif refused := drift(named, each).refused:
            left.append(f"{title_of(first)}: not comparable, {refused[0]}")
        else:
            found += _results(first, each)
    return found, left


def _results(first: Score, scores: Mapping[str, Score]) -> list[Result]:
    shared = [name for name in first.values if all(name in s.values for s in scores.values())]
    if first.evaluation in MANY:
        metrics = [name for name in shared if not any(part in name for part in NO_SET)]
    else:
        metrics = headline_names(shared) or shared[:1]
    found = []
    for metric in metrics:
        values = {name: score.values[metric] for name, score in scores.items()}
        aims = {value.better for value in values.values()}
        known = all(value.value is not None for value in values.values())
        if known and aims in ({"higher"}, {"lower"}):
            pairs = {n: o for n, s in scores.items() if (o := outcomes_of(s, metric))}
            found.append(Result(title_of(first), metric, values, pairs))
    return found


def rank(results: Sequence[Result]) -> Ranking:
    """Mean ranks and pairwise tests; `results` must have at least one.

    Single results: a test of each pair (`p_of`), Holm over all pairs and results. All results:
    the signed-rank test of their differences, Holm over pairs. Demšar 2006, JMLR 7, 1-30.
    """
    from vislang.metrics.paired import holm

    places = [result.places() for result in results]
    mean = {name: float(np.mean([p[name] for p in places])) for name in places[0]}
    ranks = dict(sorted(mean.items(), key=lambda item: item[1]))
    couples = list(combinations(ranks, 2))
    single = holm([p_of(result, *couple) for couple in couples for result in results])
    overall = [_signed_rank(results, *couple) for couple in couples]
    raised = iter(holm([p for p in overall if p is not None]))
    pairs = []
    for number, (one, other) in enumerate(couples):
        tests = single[number * len(results) : (number + 1) * len(results)]
        signs = [np.sign(_gain(r, one, other)) if p < LEVEL else 0 for r, p in zip(results, tests)]
        better, worse = (sum(bool(s * sign > 0) for s in signs) for sign in (1, -1))
        p = None if overall[number] is None else next(raised)
        pairs.append(Pair(one, other, better, worse, len(results) - better - worse, p))
    return Ranking(ranks, pairs)


def p_of(result: Result, one: str, other: str) -> float:
    """Two-sided p of "both runs are as good" in one result.

    Outcomes of the same samples: McNemar's exact test of right and wrong answers, the paired
    permutation test of anything else. Otherwise the normal test of two independent estimates, with
    errors read from the intervals; on shared samples it errs on the side of "not told apart".
    """
    from scipy.stats import binom

    a, b = result.outcomes.get(one), result.outcomes.get(other)
    if a is not None and b is not None and set(a.ids) == set(b.ids) and a.groups == b.groups:
        if a.groups is None and {*a.values, *b.values} <= {0.0, 1.0}:
            of = dict(zip(b.ids, b.values))
            changed = [x - of[id_] for id_, x in zip(a.ids, a.values) if x != of[id_]]
            fewer = min(changed.count(1.0), changed.count(-1.0))
            return min(1.0, 2 * float(binom.cdf(fewer, len(changed), 0.5)))
        if (p := paired_p(a, b)) is not None:
            return p
    x, y = result.values[one], result.values[other]
    if not (x.has_interval and y.has_interval):
        return float("nan")
    a_error, b_error = (((v.high or 0) - (v.low or 0)) / (2 * 1.96) for v in (x, y))
    error = math.hypot(a_error, b_error)
    gap = abs((x.value or 0) - (y.value or 0))
    return 2 * (1 - NormalDist().cdf(gap / error)) if error > 0 else float(gap == 0)


def _gain(result: Result, one: str, other: str) -> float:
    return result.sign * ((result.values[one].value or 0) - (result.values[other].value or 0))


def _signed_rank(results: Sequence[Result], one: str, other: str) -> float | None:
    """Wilcoxon's test over results; None where so few differ that it could not reach 0.05."""
    from scipy.stats import wilcoxon

    gains = np.array([_gain(result, one, other) for result in results])
    if int((gains != 0).sum()) < LEAST:
        return None
    return float(wilcoxon(gains[gains != 0]).pvalue)  # type: ignore[attr-defined]
