"""Intervals: known values, coverage by simulation, and no spread where none is honest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vislang.metrics import intervals


def test_wilson_equals_scipy():
    from scipy.stats import binomtest

    for right, n in [(0, 5), (3, 7), (50, 50), (480, 500)]:
        want = binomtest(right, n).proportion_ci(method="wilson")
        got = intervals.wilson(right, n)
        assert (got.low, got.high) == (pytest.approx(want.low), pytest.approx(want.high))


@given(st.integers(0, 50), st.integers(1, 50))
def test_every_interval_holds_its_value(right, n):
    right = min(right, n)
    values = np.r_[np.ones(right), np.zeros(n - right)]
    for got in (
        intervals.wilson(right, n),
        intervals.bootstrap_mean(values, proportion=True, resamples=20),
        intervals.normal_mean(values),
        intervals.jackknife(lambda rows: float(values[rows].mean()), n),
    ):
        assert got.low <= got.value <= got.high
        assert got.n == n
        assert got.value == pytest.approx(right / n)
        assert "95%" in got.method


def test_a_perfect_score_still_has_doubt():
    for got in (
        intervals.wilson(20, 20),
        intervals.bootstrap_mean(np.ones(20), proportion=True),
        intervals.wilson_mean_of_classes(np.ones(4), np.full(4, 5)),
    ):
        assert got.high == 1.0
        assert 0.7 < got.low < 0.9


def covered(make, truth, draws):
    return np.mean([(i := make(draw)).low <= truth <= i.high for draw in draws])


def test_coverage_by_simulation():
    rng = np.random.default_rng(0)
    draws = [(rng.random(60) < 0.9).astype(float) for _ in range(400)]
    assert 0.92 < covered(lambda x: intervals.wilson(x.sum(), len(x)), 0.9, draws) < 0.985
    assert 0.90 < covered(lambda x: intervals.normal_mean(x), 0.9, draws) < 0.985
    draws = [rng.exponential(size=80) for _ in range(200)]
    assert 0.88 < covered(lambda x: intervals.bootstrap_mean(x, resamples=200), 1.0, draws) < 0.985
    jack = lambda x: intervals.jackknife(lambda rows: float(x[rows].mean()), len(x))  # noqa: E731
    assert 0.88 < covered(jack, 1.0, draws) < 0.99


def test_mean_of_classes_covers_though_classes_differ_in_size():
    rng = np.random.default_rng(1)
    count, p = np.array([200, 10, 30, 5]), np.array([0.9, 0.5, 0.7, 0.6])
    draws = [rng.binomial(count, p) / count for _ in range(400)]
    got = covered(lambda x: intervals.wilson_mean_of_classes(x, count), p.mean(), draws)
    assert 0.91 < got < 0.99


def test_groups_widen_the_interval_as_they_should():
    rng = np.random.default_rng(2)
    image = rng.random(200) < 0.5
    values, groups = np.repeat(image, 5).astype(float), np.repeat(np.arange(200), 5)
    alone = intervals.bootstrap_mean(values)
    together = intervals.bootstrap_mean(values, groups)
    ratio = (together.high - together.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(5**0.5, rel=0.15)
    assert (alone.n, together.n) == (1000, 200)
    assert alone.value == together.value
    assert together == intervals.bootstrap_mean(values, groups)  # seeded
    assert together != intervals.bootstrap_mean(values, groups, seed=1)


def test_groups_of_unequal_size_keep_the_plain_mean():
    got = intervals.bootstrap_mean(np.array([1.0, 1, 1, 0]), np.array([7, 7, 7, 3]))
    assert got.value == 0.75
    assert got.n == 2


def test_paired_difference_sees_what_two_intervals_cannot():
    rng = np.random.default_rng(3)
    hard = rng.random(400)
    a, b = (hard < 0.60).astype(float), (hard < 0.57).astype(float)  # a is right wherever b is
    got = intervals.paired_difference(a, b, resamples=2000)
    assert got.p < 0.01
    assert got.interval.low > 0
    same = intervals.paired_difference(a, a, resamples=100)
    assert same.p == 1.0
    assert same.interval.value == 0


def test_paired_test_is_calibrated_under_the_null():
    rng = np.random.default_rng(4)
    p = [
        intervals.paired_difference(rng.random(30), rng.random(30), resamples=200, seed=i).p
        for i in range(200)
    ]
    assert 0.01 < np.mean(np.array(p) < 0.05) < 0.10


def test_empty_input_is_refused():
    for make in (
        lambda: intervals.wilson(0, 0),
        lambda: intervals.bootstrap_mean(np.array([])),
        lambda: intervals.normal_mean(np.array([])),
    ):
        with pytest.raises(ValueError, match="at least one"):
            make()
