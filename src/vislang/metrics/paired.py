"""What one change did to the same samples: mean differences, gained and lost answers, many tests.

N: samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from vislang.metrics.intervals import Interval, normal_mean, wilson

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


@dataclass(frozen=True)
class Change:
    """A change with its interval and the p-value of "it is not above zero".

    Args:
        interval: the mean change; for answers, the change of their share.
        deviation: standard deviation of the single changes (N - 1); NaN for one sample.
        p: one-sided.
    """

    interval: Interval
    deviation: float
    p: float


def mean_change(difference: Float[np.ndarray, " N"]) -> Change:
    """Mean of paired differences, Student's interval, one-sided paired t-test for a mean above 0.

        t = mean √N / s,   p = P(T_{N-1} > t)

    >>> round(mean_change(np.array([0.1, 0.3, 0.2])).p, 4)
    0.0371
    """
    from scipy.stats import t

    difference = np.asarray(difference, np.float64)
    interval, n = normal_mean(difference), len(difference)
    if n < 2:
        return Change(interval, math.nan, math.nan)
    deviation = float(difference.std(ddof=1))
    if deviation == 0:  # all alike: the limit of the test
        return Change(interval, 0.0, float(interval.value <= 0))
    p = float(t.sf(interval.value * math.sqrt(n) / deviation, n - 1))
    return Change(interval, deviation, p)


def share_change(
    before: Bool[np.ndarray, " N"], after: Bool[np.ndarray, " N"], level: float = 0.95
) -> Change:
    """Change of the share of right answers, `after` less `before`, on the same samples.

    The interval is Bonett and Price's adjusted one: with g answers gained, l lost,
    p_g = (g+1)/(N+2), p_l = (l+1)/(N+2),   p_g - p_l ± z √((p_g + p_l - (p_g - p_l)²) / (N+2)).
    The p-value is the exact sign test on the answers that changed: P(at least g of g + l).

    Bonett & Price 2012, J. Educ. Behav. Stat. 37, 479-488; McNemar 1947, Psychometrika 12.

    >>> share_change(np.zeros(8, bool), np.ones(8, bool)).p == 0.5**8
    True
    """
    from scipy.stats import binom

    before, after = np.asarray(before, bool), np.asarray(after, bool)
    n, gained = len(before), int((after & ~before).sum())
    if not n:
        raise ValueError("share_change needs at least one sample")
    lost = int((before & ~after).sum())
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    z = NormalDist().inv_cdf((1 + level) / 2)
    half = z * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    value, middle = (gained - lost) / n, up - down
    low, high = max(middle - half, -1.0), min(middle + half, 1.0)
    interval = Interval(
        value, min(low, value), max(high, value), n, f"bonett-price {100 * level:g}%"
    )
    p = float(binom.sf(gained - 1, gained + lost, 0.5)) if gained + lost else 1.0
    difference = after.astype(np.int8) - before
    return Change(interval, float(difference.std(ddof=1)) if n > 1 else math.nan, p)


def mean_share(shares: Float[np.ndarray, " N"]) -> Interval:
    """Mean of shares of one sample each (of domains, say), with an interval inside [0, 1].

    Student's; where all are 0 or all are 1, which shows no spread, Wilson's.

    >>> round(mean_share(np.ones(10)).low, 4)
    0.7225
    """
    shares = np.asarray(shares, np.float64)
    found = normal_mean(shares)
    if found.value in (0.0, 1.0):
        return wilson(float(shares.sum()), len(shares), why="all agree")
    return Interval(found.value, max(found.low, 0.0), min(found.high, 1.0), found.n, found.method)


def holm(p: Sequence[float]) -> list[float]:
    """p-values of several tests, raised so that any false alarm among them has its stated rate.

    Holm 1979, Scand. J. Statist. 6, 65-70. A p-value that is no number stays one.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    known = sorted((value, place) for place, value in enumerate(p) if not math.isnan(value))
    raised, least = [math.nan] * len(p), 0.0
    for done, (value, place) in enumerate(known):
        least = max(least, min(1.0, value * (len(known) - done)))
        raised[place] = least
    return raised
