"""The linear probe: golden sweeps, a certified optimum, the same bits for any number of threads."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vislang.errors import UserError
from vislang.evaluate.probe import LinearProbe
from vislang.evaluate.requests import Embeddings
from vislang.evaluate.search import fine_costs, search_cost, stratified_split
from vislang.evaluate.softmax import BLOCK, SoftmaxRegression, unsquared_fit
from vislang.metrics import classify

HERE = Path(__file__).parent / "golden"
ROWS = np.load(HERE / "probe_digits.npz")
GOLDEN = json.loads((HERE / "probe_digits.json").read_text())


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    parts = {name: ROWS[f"{name}_idx"].astype(int) for name in ("train", "valid", "test")}
    return {name: (x[rows], y[rows]) for name, rows in parts.items()}


# -- golden -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("penalty", "refit", "metric"),
    [
        ("squared", True, "accuracy"),
        ("squared", True, "mean_class_recall"),
        ("squared", False, "accuracy"),
        ("squared", False, "mean_class_recall"),
        ("norm", True, "accuracy"),
        ("norm", False, "mean_class_recall"),
    ],
)
def test_the_whole_sweep_chooses_what_the_original_chose(digits, penalty, refit, metric):
    kind = "torch" if penalty == "norm" else "sklearn"
    short = "acc" if metric == "accuracy" else "meanper"
    want = GOLDEN["runs"][f"{kind}_{short}_{'trainval' if refit else 'trainonly'}"]
    x = np.concatenate([digits["train"][0], digits["valid"][0]])
    y = np.concatenate([digits["train"][1], digits["valid"][1]])
    held = np.arange(len(digits["train"][1]), len(y))
    probe = LinearProbe(metric=metric, refit=refit, penalty=penalty).fit(x, y, held)
    assert probe.cost == want["best_C"]
    # In the order in which the original tried them; its last fit is the refit.
    tried = {row[0] for row in probe.search["rows"]}
    assert sorted(tried) == pytest.approx(sorted(set(want["Cs"])), rel=1e-6)
    test_x, test_y = digits["test"]
    place = classify.ranks(probe.scores(test_x), test_y)
    got = classify.accuracy(place) if metric == "accuracy" else classify.mean_recall(
        place, test_y, 10
    )  # fmt: skip
    assert 100 * got.value == pytest.approx(want["test_metric"], abs=0.201)  # one image


def test_the_unsquared_norm_is_the_squared_one_relabelled(digits):
    x, y = digits["train"]
    problem, fit = SoftmaxRegression(x, y, 10), None
    for want in GOLDEN["equivalence"]["converged_float64"]:
        cost = want["C_torch"]
        fit = unsquared_fit(problem, cost, fit)
        objective = fit.loss + fit.weight_norm / (2 * cost)
        assert objective == pytest.approx(want["objective"], abs=1e-10)
        assert fit.weight_norm == pytest.approx(want["w_norm"], rel=1e-5)
        assert 1 / (fit.l2 * len(y)) == pytest.approx(want["C_sklearn_equivalent"], rel=1e-5)
        hits = fit.scores(digits["test"][0]).argmax(1) == digits["test"][1]
        assert 100 * hits.mean() == pytest.approx(want["test_acc"])


def test_below_the_critical_cost_the_weights_are_zero_and_the_majority_wins(digits):
    x, y = digits["train"]
    problem, critical = SoftmaxRegression(x, y, 10), GOLDEN["equivalence"]["critical_C"]
    below, above = (unsquared_fit(problem, critical * by) for by in (0.9999, 1.0001))
    assert below.weight_norm == 0
    assert 0 < above.weight_norm < 0.1
    # The original returns no bias either and says class 0; the optimum is the most frequent class.
    assert below.bias.argmax() == np.bincount(y).argmax()


def test_final_weights_predict_as_the_originals(digits):
    x = np.concatenate([digits["train"][0], digits["valid"][0]])
    y = np.concatenate([digits["train"][1], digits["valid"][1]])
    for kind, penalty, cost in (("sklearn", "squared", 10.0), ("torch", "norm", 100.0)):
        probe = LinearProbe(C=cost, penalty=penalty).fit(x, y)
        theirs = digits["test"][0] @ ROWS[f"{kind}_W"].T + ROWS[f"{kind}_b"]
        ours = probe.scores(digits["test"][0])
        assert (ours.argmax(1) == theirs.argmax(1)).mean() >= 0.998
        # Theirs stopped at a tolerance of 1e-4 or in float32.
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.999


# -- the solver -------------------------------------------------------------------------------


def problem_of(n=300, d=8, k=4, seed=0, shift=3.0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % k)
    x = rng.standard_normal((k, d))[y] + 1.5 * rng.standard_normal((n, d)) + shift
    return x, y


def objective(x, y, weight, bias, l2):
    """F and its gradient, written anew and without blocks."""
    logits = x @ weight.T + bias
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    loss = -np.log(p[np.arange(len(y)), y]).mean()
    p[np.arange(len(y)), y] -= 1
    of_w, of_b = p.T @ x / len(y) + l2 * weight, p.mean(0)
    return loss + l2 / 2 * (weight**2).sum(), np.sqrt((of_w**2).sum() + (of_b**2).sum())


@pytest.mark.parametrize("l2", [1e-4, 1e-2, 1.0, 100.0])
def test_the_certificate_is_true(l2):
    x, y = problem_of()
    fit = SoftmaxRegression(x, y, 4).fit(l2, tolerance=1e-5)
    value, norm = objective(x, y, fit.weight, fit.bias, l2)
    assert fit.objective == pytest.approx(value, abs=1e-12)
    assert fit.gradient_norm == pytest.approx(norm, rel=1e-6)
    assert fit.converged
    better = SoftmaxRegression(x, y, 4).fit(l2, tolerance=1e-12)
    assert better.gradient_norm <= 1e-12  # far beyond what values of F can show
    assert -1e-15 <= fit.objective - better.objective <= fit.gap + 1e-15


def test_the_optimum_is_scikit_learns_or_better():
    from sklearn.linear_model import LogisticRegression

    x, y = problem_of()
    for cost in (0.01, 1.0, 100.0):
        theirs = LogisticRegression(C=cost, tol=1e-10, max_iter=10_000).fit(x, y)
        ours = SoftmaxRegression(x, y, 4).fit(1 / (cost * len(y)), tolerance=1e-9)
        assert np.abs(ours.weight - theirs.coef_).max() < 1e-4
        value, _ = objective(x, y, theirs.coef_, theirs.intercept_, ours.l2)
        assert ours.objective <= value + 1e-12


def test_the_gradient_equals_finite_differences():
    x, y = problem_of(60, 3, 3)
    problem = SoftmaxRegression(x, y, 3)
    rng = np.random.default_rng(1)
    u, b = rng.standard_normal((3, 3)), rng.standard_normal(3)
    _, of_u, of_b = problem.loss_and_gradient(u, b)
    for place in np.ndindex(3, 3):
        step = np.zeros((3, 3))
        step[place] = 1e-5
        up, down = (problem.loss_and_gradient(u + s, b)[0] for s in (step, -step))
        assert of_u[place] == pytest.approx((up - down) / 2e-5, abs=1e-9)
    up, down = (problem.loss_and_gradient(u, b + s)[0] for s in ([1e-5, 0, 0], [-1e-5, 0, 0]))
    assert of_b[0] == pytest.approx((up - down) / 2e-5, abs=1e-9)


BITS = """
import hashlib, sys
import numpy as np
sys.path.insert(0, {tests!r})
from test_probe import BLOCK, problem_of
from vislang.evaluate.softmax import SoftmaxRegression
x, y = problem_of(2 * BLOCK + 77, 90, 30)
for threads in (1, 2, 3):
    fit = SoftmaxRegression(x, y, 30, threads=threads).fit(1e-4)
    print(hashlib.sha256(fit.weight.tobytes() + fit.bias.tobytes()).hexdigest())
"""


def test_threads_and_repetition_do_not_change_a_bit(child_environment):
    bits = set()
    for blas in ("1", "2", "2"):
        threads = {"OMP_NUM_THREADS": blas, "OPENBLAS_NUM_THREADS": blas}
        done = subprocess.run(
            [sys.executable, "-c", BITS.format(tests=str(HERE.parent))],
            env={**child_environment, **threads}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        bits |= set(done.stdout.split())
    assert len(bits) == 1


def test_blocks_add_up_to_the_whole():
    x, y = problem_of(BLOCK + 500, 6, 3)
    fit = SoftmaxRegression(x, y, 3).fit(1e-3, tolerance=1e-9)
    value, norm = objective(x, y, fit.weight, fit.bias, 1e-3)
    assert (value, norm < 1e-8) == (pytest.approx(fit.objective), True)


def test_warm_starts_change_the_work_and_not_the_answer():
    x, y = problem_of()
    problem = SoftmaxRegression(x, y, 4)
    cold = problem.fit(1e-3, tolerance=1e-9)
    warm = problem.fit(1e-3, problem.fit(2e-3, tolerance=1e-9), tolerance=1e-9)
    assert np.abs(warm.weight - cold.weight).max() < 1e-6
    assert problem.fit(1e-3, cold, tolerance=1e-8).evaluations <= 2


def test_constant_and_repeated_features_are_no_trouble():
    x, y = problem_of(100, 4, 3)
    wide = np.concatenate([x, x, np.ones((100, 3)), np.zeros((100, 2))], axis=1)
    fit = SoftmaxRegression(wide, y, 3).fit(1e-3)
    assert fit.converged
    assert np.abs(fit.weight[:, 8:]).max() < 1e-12
    assert fit.weight[:, :4] == pytest.approx(fit.weight[:, 4:8])
    flat = SoftmaxRegression(np.ones((9, 4)), np.arange(9) % 3, 3).fit(1.0)
    assert flat.weight_norm == 0
    assert flat.objective == pytest.approx(np.log(3))


def test_more_dimensions_than_samples():
    x, y = problem_of(40, 90, 3)
    fit = SoftmaxRegression(x, y, 3).fit(1e-2, tolerance=1e-9)
    value, norm = objective(x, y, fit.weight, fit.bias, 1e-2)
    assert fit.objective == pytest.approx(value, abs=1e-12)
    assert norm < 1e-8
    assert fit.gradient_norm == pytest.approx(norm, abs=1e-10)


def test_the_solver_refuses_what_has_no_optimum():
    x, y = problem_of()
    with pytest.raises(ValueError, match="must occur"):
        SoftmaxRegression(x, y, 5)
    with pytest.raises(ValueError, match="above 0"):
        SoftmaxRegression(x, y, 4).fit(0.0)


# -- search and split -------------------------------------------------------------------------


def test_fine_costs_are_the_golden_ones():
    for best, costs in GOLDEN["fine_grids"].items():
        assert fine_costs(float(best)) == pytest.approx(costs, rel=1e-6)


@given(st.floats(-6, 6))
def test_the_search_finds_the_top_of_a_single_hill(top):
    calls = []

    def hill(cost):
        calls.append(cost)
        return -abs(np.log10(cost) - top)

    best, tried = search_cost(hill)
    assert abs(np.log10(best) - top) < 0.5
    assert len(calls) == len(set(calls)) == len(tried) <= 17


def test_equal_scores_keep_the_first_cost():
    best, tried = search_cost(lambda cost: 1.0)
    assert best == min(tried) == 1e-6


@given(st.lists(st.integers(0, 5), min_size=1, max_size=80), st.floats(0.05, 0.9))
def test_the_split_is_stratified_disjoint_and_seeded(labels, share):
    y = np.array(labels)
    train, held = stratified_split(y, share, seed=1)
    assert sorted([*train, *held]) == list(range(len(y)))
    for label, count in zip(*np.unique(y, return_counts=True)):
        here = int((y[held] == label).sum())
        assert here == (0 if count == 1 else max(int(share * count + 1e-9), 1))
    again = stratified_split(y, share, seed=1)
    assert (again[1] == held).all()


# -- the evaluation ---------------------------------------------------------------------------


def embeddings(x, y, test_x, test_y, classes=()):
    ids = [f"s{i}" for i in range(len(test_y))]
    train = Embeddings([f"t{i}" for i in range(len(y))], y, classes, features=x)
    return Embeddings(ids, test_y, classes, features=test_x, train=train)


def test_scores_hold_the_search_and_the_certificate(digits):
    given = embeddings(*digits["train"], *digits["test"], classes=tuple("0123456789"))
    scores = LinearProbe().score(given)
    assert scores.values["accuracy"].value > 0.95
    assert scores.n == 500
    columns = scores.tables["solution"]["columns"]
    solution = dict(zip(columns, scores.tables["solution"]["rows"][0]))
    assert solution["gradient_norm"] <= 1e-6
    assert solution["converged"] is True
    assert len(scores.tables["search"]["rows"]) == len(
        {row[0] for row in scores.tables["search"]["rows"]}
    )
    assert scores.per_sample["accuracy"]["ids"][3] == "s3"


def test_the_test_set_has_no_say(digits):
    x, y = digits["train"]
    test_x, test_y = digits["test"]
    costs = set()
    for test_labels in (test_y, np.roll(test_y, 1)):
        scores = LinearProbe().score(embeddings(x, y, test_x, test_labels))
        costs.add(scores.tables["solution"]["rows"][0][0])
    assert len(costs) == 1


def test_classes_that_training_lacks_count_as_wrong(digits):
    x, y = digits["train"]
    kept = y != 3
    scores = LinearProbe(C=1.0).score(embeddings(x[kept], y[kept], *digits["test"]))
    per_class = scores.tables["per_class"]["rows"]
    assert per_class[3][2] == 0.0
    assert per_class[4][2] > 0.9
    assert any("1 classes" in note for note in scores.notes)


@pytest.mark.parametrize("options", [{"scale": "unit"}, {"scale": "standard"}, {"refit": False},
                                     {"solver": "sklearn", "C": 1.0}])  # fmt: skip
def test_options_give_sensible_probes(digits, options):
    x, y = digits["train"]
    scores = LinearProbe(**options).score(embeddings(x[:400], y[:400], *digits["test"]))
    assert scores.values["accuracy"].value > 0.9


def test_two_classes_with_scikit_learn_equal_ours():
    x, y = problem_of(200, 5, 2)
    ours = LinearProbe(C=1.0, tolerance=1e-9).fit(x, y)
    theirs = LinearProbe(C=1.0, solver="sklearn").fit(x, y)
    difference = (ours.scores(x) - theirs.scores(x)) @ [1, -1]
    # A binary logistic regression penalises the difference of two rows, not both of them.
    assert np.corrcoef(ours.scores(x) @ [1, -1], theirs.scores(x) @ [1, -1])[0, 1] > 0.999
    assert np.isfinite(difference).all()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"C": 0}, "above 0"),
        ({"space": "feature"}, "Did you mean 'features'"),
        ({"solver": "sklearn", "penalty": "norm"}, "no penalty norm"),
        ({"share": 1.0}, "between 0 and 1"),
    ],
)
def test_wrong_options_are_named(options, match):
    with pytest.raises(UserError, match=match):
        LinearProbe(**options)


def test_too_little_to_learn_from():
    x = np.eye(3)
    with pytest.raises(UserError, match="two classes, got 1"):
        LinearProbe().fit(x, np.zeros(3, int))
    with pytest.raises(UserError, match="none can be held out"):
        LinearProbe().fit(x, np.arange(3))
    assert LinearProbe(C=1.0).fit(x, np.arange(3)).fit.converged
