"""Many fits at once: the same optima as scikit-learn's, one by one."""

import numpy as np
import pytest

from vislang.evaluate.many_fits import ManyFits


@pytest.mark.parametrize("classes", [2, 3])
def test_all_problems_reach_scikit_learns_optimum(classes):
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(classes)
    y = rng.integers(0, classes, 150)
    x = (rng.normal(size=(classes, 12))[y] + 2 * rng.normal(size=(150, 12))) * np.arange(1, 13) + 5
    fits = ManyFits(x, y, classes, threads=1)
    learn = rng.random((150, 3)) < 0.7
    costs = np.array([0.25, 1.0, 8.0, 0.25, 1.0, 8.0])
    of = np.array([0, 0, 0, 1, 2, 2])
    w, b = fits.fit(learn, of, costs, 1e-6)
    for at, (cost, rows) in enumerate(zip(costs, learn[:, of].T)):
        exact = LogisticRegression(C=cost, tol=1e-9, max_iter=5000).fit(x[rows], y[rows])
        ours = fits.z @ w[:, at] + b[at]
        theirs = exact.decision_function(x).reshape(150, -1)
        if classes > 2:  # softmax is the same when all scores move together
            ours, theirs = (s - s.mean(axis=1, keepdims=True) for s in (ours, theirs))
        assert np.abs(ours - theirs).max() < 2e-3 * np.abs(theirs).max()
    # From elsewhere to the same place, and at once from the place itself.
    again, _ = fits.fit(learn, of, costs, 1e-6, (w + 0.1, b - 1))
    assert np.abs(again - w).max() < 1e-2 * np.abs(w).max()
    rough = fits.fit(learn, of, costs, 1e-5, (w, b))
    assert (rough[0] == w).all() and (rough[1] == b).all()


@pytest.mark.parametrize("classes", [2, 3])
def test_other_rows_are_answered_as_if_they_were_among_those_learnt_from(classes):
    rng = np.random.default_rng(0)
    y = np.arange(60) % classes
    x = rng.normal(size=(60, 5)) + y[:, None]
    fits = ManyFits(x, y, classes, 1)
    learn, one = np.ones((60, 1), bool), np.zeros(1, int)
    weights = fits.fit(learn, one, np.ones(1))
    assert (fits.said(weights, x) == fits.said(weights)).all()
    assert 0.5 < (fits.said(weights)[:, 0] == y).mean() <= 1


def test_features_that_do_not_vary_are_answered_by_the_larger_class():
    y = np.array([0] * 10 + [1] * 20)
    fits = ManyFits(np.ones((30, 4)), y, 2, 1)
    weights = fits.fit(np.ones((30, 1), bool), np.zeros(1, int), np.ones(1))
    assert (fits.said(weights) == 1).all() and (fits.said(weights, np.ones((2, 4))) == 1).all()
