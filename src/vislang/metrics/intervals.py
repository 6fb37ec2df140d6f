"""Confidence intervals, and tests of one model against another on the same samples.

n: observations, G: groups of observations that hang together (the captions of one image),
R: resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

RESAMPLES = 1000
_BLOCK = 1 << 22  # random draws held at a time


@dataclass(frozen=True)
class Interval:
    """A number that says how far it may be trusted.

    Args:
        value: the estimate.
        low, high: the ends of the interval; low <= value <= high.
        n: independent observations behind it (samples, or groups of them).
        method: how the interval was made, for example "wilson 95%".
    """

    value: float
    low: float
    high: float
    n: int
    method: str

    def as_row(self) -> dict[str, float | int | str]:
        """The form it takes in a scores file.

        >>> wilson(9, 10).as_row()["interval"]
        'wilson 95%'
        """
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "interval": self.method,
        }


def _made(value: float, low: float, high: float, n: float, method: str) -> Interval:
    # Rounding must not put the estimate outside its own interval.
    return Interval(float(value), float(min(low, value)), float(max(high, value)), int(n), method)


def _percent(level: float) -> str:
    return f"{100 * level:g}%"


def wilson(
    right: float, n: float, level: float = 0.95, observed: int | None = None, why: str = ""
) -> Interval:
    """Wilson's score interval of a proportion; also honest at 0 and 1 and for few samples.

        centre = (p + z²/2n) / (1 + z²/n),   half = z √(p(1-p)/n + z²/4n²) / (1 + z²/n)

    Args:
        right: how many succeeded (may be fractional with an effective `n`).
        n: independent trials, or their effective number.
        level: coverage.
        observed: the n to report where it differs from the effective one.
        why: words appended to the method.

    Wilson 1927, J. Am. Stat. Assoc. 22, 209-212.

    >>> i = wilson(10, 10); round(i.low, 4), i.high
    (0.7225, 1.0)
    """
    if n <= 0:
        raise ValueError(f"wilson needs at least one trial, got n={n}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    p = right / n
    scale = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / scale
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale
    method = f"wilson {_percent(level)}" + (f" ({why})" if why else "")
    shown = observed if observed is not None else round(n)
    return _made(p, max(centre - half, 0.0), min(centre + half, 1.0), shown, method)


def wilson_mean_of_classes(
    recalls: Float[np.ndarray, " C"], counts: Int[np.ndarray, " C"], level: float = 0.95
) -> Interval:
    """Interval of the mean over classes of per-class recalls, each from `counts[c]` samples.

    Wilson's interval with the effective number of samples at which a plain proportion would have
    the variance of this mean:

        n_eff = q(1-q) / V,   V = Σ q_c(1-q_c)/counts_c / C²,   q_c = (right_c + 1)/(counts_c + 2)

    q is the mean of the q_c; the pseudo-counts keep V above 0 where a class was all right, so
    that the interval, unlike a bootstrap's, does not shrink to nothing.
    """
    counts = np.asarray(counts, np.float64)
    smooth = (np.asarray(recalls) * counts + 1) / (counts + 2)
    variance = float(np.sum(smooth * (1 - smooth) / counts)) / len(counts) ** 2
    mean = float(smooth.mean())
    effective = min(mean * (1 - mean) / variance, float(counts.sum()))
    value = float(np.mean(recalls))
    total = int(counts.sum())
    return wilson(value * effective, effective, level, total, f"effective n {effective:.0f}")


def normal_mean(
    values: Float[np.ndarray, " n"] | Bool[np.ndarray, " n"], level: float = 0.95
) -> Interval:
    """Mean with a Student interval: mean ± t · s/√n. For many alike draws, such as episodes."""
    from scipy.stats import t

    values = np.asarray(values, np.float64)
    n = len(values)
    if n == 0:
        raise ValueError("normal_mean needs at least one value")
    mean = float(values.mean())
    if n == 1:
        return _made(mean, -math.inf, math.inf, 1, f"t {_percent(level)}")
    half = float(t.ppf((1 + level) / 2, n - 1)) * float(values.std(ddof=1)) / math.sqrt(n)
    return _made(mean, mean - half, mean + half, n, f"t {_percent(level)}")


def resampled_counts(n: int, resamples: int, seed: int):
    """Blocks [r, n] of how often each of n things is drawn in r resamples of size n."""
    rng = np.random.default_rng(seed)
    at_once = max(1, _BLOCK // max(n, 1))
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = rng.integers(0, n, size=(rows, n)) + np.arange(rows)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)


def from_draws(
    value: float,
    draws: Float[np.ndarray, " R"],
    n: int,
    method: str = "bootstrap",
    *,
    centred: bool = False,
    level: float = 0.95,
) -> Interval:
    """The percentile interval of an estimate's resampled values.

    Args:
        value: the estimate.
        draws: its values on R resamples.
        n: independent observations.
        method: how the resamples were made.
        centred: move the draws so that their mean is the estimate, for estimates that resampling
            biases (information, distances of means: repeated samples look like agreement).
        level: coverage.
    """
    draws = np.asarray(draws, np.float64)
    if centred:
        draws = draws - draws.mean() + value
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return _made(value, float(low), float(high), n, f"{method} {_percent(level)}")


def _grouped(values: np.ndarray, groups: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the values and number of them in each group: [G, ...], [G]."""
    values = np.asarray(values, np.float64)
    if groups is None:
        return values, np.ones(len(values))
    _, group = np.unique(groups, return_inverse=True)
    sizes = np.bincount(group).astype(np.float64)
    columns = values.reshape(len(values), -1)
    sums = np.stack([np.bincount(group, column) for column in columns.T], axis=1)
    return sums.reshape(len(sizes), *values.shape[1:]), sizes


def bootstrap_mean(
    values: Float[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"] | None = None,
    *,
    proportion: bool = False,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean of values whose groups, not the values, are independent (percentile bootstrap).

    Whole groups are drawn with replacement: the captions of an image come and go together.

    Args:
        values: one number an observation.
        groups: the group of each observation; None makes each its own.
        proportion: the values are 0 or 1. Where all are alike, resampling shows no spread, and
            the interval becomes Wilson's with one trial a group.
        level, resamples, seed: coverage, R, and the seed of the draws.
    """
    if len(values) == 0:
        raise ValueError("bootstrap_mean needs at least one value")
    sums, sizes = _grouped(values, groups)
    value = float(sums.sum() / sizes.sum())
    if proportion and value in (0.0, 1.0):
        return wilson(value * len(sizes), len(sizes), level, why="all groups agree")
    draws = np.concatenate(
        [(w @ sums) / (w @ sizes) for w in resampled_counts(len(sizes), resamples, seed)]
    )
    kind = "bootstrap" if groups is None else "bootstrap over groups"
    return from_draws(value, draws, len(sizes), kind, level=level)


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    n: int,
    *,
    level: float = 0.95,
    resamples: int = 200,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of any `statistic(indices)` of n independent observations.

    >>> x = np.arange(100.0)
    >>> i = bootstrap(lambda rows: np.median(x[rows]), 100); i.low < i.value < i.high
    True
    """
    value = float(statistic(np.arange(n)))
    rng = np.random.default_rng(seed)
    draws = np.array([statistic(rng.integers(0, n, n)) for _ in range(resamples)])
    return from_draws(value, draws, n, level=level)


def jackknife(
    statistic: Callable[[np.ndarray], float],
    n: int,
    *,
    level: float = 0.95,
    parts: int = 20,
    seed: int = 0,
) -> Interval:
    """Delete-a-part jackknife with Student's t, for statistics too dear for a bootstrap.

    variance = (g-1)/g Σ (θ_without_part - mean)²,   g parts of shuffled observations
    """
    from scipy.stats import t

    value = float(statistic(np.arange(n)))
    parts = min(parts, n)
    if parts < 2:
        return _made(value, -math.inf, math.inf, n, f"jackknife {_percent(level)}")
    pieces = np.array_split(np.random.default_rng(seed).permutation(n), parts)
    left_out = np.array(
        [statistic(np.sort(np.concatenate(pieces[:i] + pieces[i + 1 :]))) for i in range(parts)]
    )
    error = math.sqrt((parts - 1) / parts * float(np.sum((left_out - left_out.mean()) ** 2)))
    half = float(t.ppf((1 + level) / 2, parts - 1)) * error
    return _made(value, value - half, value + half, n, f"jackknife {_percent(level)}")


@dataclass(frozen=True)
class Difference:
    """How much better `a` is than `b` on the same samples.

    Args:
        interval: mean of a - b with its paired bootstrap interval.
        p: two-sided p-value of the sign-flip permutation test; (hits + 1) / (R + 1).
    """

    interval: Interval
    p: float


def paired_difference(
    a: Float[np.ndarray, " n"],
    b: Float[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"] | None = None,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Compare two models by their scores (right or wrong, 0 or 1) on the same observations.

    The test flips the sign of each group's difference at random: under the null hypothesis
    either model could have produced either score.

    >>> paired_difference(np.ones(20), np.zeros(20)).p < 0.001
    True
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"paired scores must have one shape, got {a.shape} and {b.shape}")
    sums, _ = _grouped(a - b, groups)
    interval = bootstrap_mean(
        a - b, groups, level=level, resamples=min(resamples, RESAMPLES), seed=seed
    )
    rng = np.random.default_rng(seed)
    at_once = max(1, _BLOCK // len(sums))
    observed, hits = abs(float(sums.sum())), 0
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        signs = rng.integers(0, 2, size=(rows, len(sums))) * 2.0 - 1.0
        hits += int(np.sum(np.abs(signs @ sums) >= observed - 1e-12 * (1 + observed)))
    return Difference(interval, (hits + 1) / (resamples + 1))
