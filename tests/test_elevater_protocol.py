"""ELEVATER's protocol: few shots, held-out samples, the search and its trainings, to the number."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vislang.errors import UserError
from vislang.evaluate.elevater.anchored import PENALTIES, fit_anchored, fit_path, probabilities
from vislang.evaluate.elevater.linear import Probed, batches_of, lenient_metric, train_heads
from vislang.evaluate.elevater.search import DECAYS, FIRST, RATES, search
from vislang.evaluate.elevater.subsets import divide, few_shot
from vislang.metrics.elevater import elevater_metric
from vislang.metrics.features import unit

HERE = Path(__file__).parent / "golden"
PROTOCOL = json.loads((HERE / "elevater_protocol.json").read_text())
LABELS = {
    "mc": [(label,) for label in PROTOCOL["multiclass_labels"]],
    "ml": [tuple(row) for row in PROTOCOL["multilabel_labels"]],
}
METRICS = {"toy": "mean-per-class", "voc": "11point_mAP", "hateful": "roc_auc"}


@pytest.fixture(scope="module")
def toy():
    with np.load(HERE / "elevater_toy.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.mark.parametrize("case", PROTOCOL["fewshot"])
def test_few_shots_are_the_samples_of_the_original(case):
    kind, shots, seed = case.split("_")
    labels = LABELS[kind]
    classes = 1 + max(label for row in labels for label in row)
    found = few_shot(labels, classes, int(shots.removeprefix("shot")), int(seed[4:]))
    assert found == PROTOCOL["fewshot"][case]


@pytest.mark.parametrize("case", PROTOCOL["split"])
def test_the_held_out_samples_are_those_of_the_original(case):
    labels = LABELS["ml" if case.startswith("ml") else "mc"]
    if "5shot" in case:
        labels = [labels[i] for i in PROTOCOL["fewshot"]["mc_shot5_seed0"]]
    train, held = divide(labels, several=case.startswith("ml"))
    assert (train, held if "full" not in case else sorted(held)) == (
        PROTOCOL["split"][case]["train"],
        PROTOCOL["split"][case]["val"] if "full" not in case
        else sorted(PROTOCOL["split"][case]["val"]),
    )  # fmt: skip


def test_shots_must_be_some():
    with pytest.raises(UserError, match="at least 1"):
        few_shot([(0,)], 1, 0, 0)


@given(st.lists(st.integers(0, 3), min_size=4, max_size=60), st.integers(1, 6), st.integers(0, 9))
def test_no_class_gets_more_than_its_shots(labels, shots, seed):
    found = few_shot([(label,) for label in labels], 4, shots, seed)
    counts = np.bincount(np.array(labels)[found], minlength=4)
    assert (counts == np.minimum(np.bincount(labels, minlength=4), shots)).all()
    train, held = divide([(labels[i],) for i in found], several=False)
    assert sorted(train + held) == list(range(len(found)))


# --- the search ---------------------------------------------------------------------------------

SCORES = {
    "quadratic": lambda r, d: 50 - 3 * (math.log10(r) + 2.3) ** 2 - 2 * (math.log10(d) + 3.1) ** 2,
    "wavy": lambda r, d: 10 + math.sin(3 * math.log10(d)) + math.cos(2 * math.log10(r)),
    "all_zero": lambda r, d: 0.0,
}


@pytest.mark.parametrize("case", PROTOCOL["sweep"])
def test_the_search_visits_what_the_original_visits(case):
    golden, calls = PROTOCOL["sweep"][case], []
    score = SCORES[case.removesuffix("_search_left")]

    def scores(pairs):
        calls.append(len(pairs))
        return [score(*pair) for pair in pairs]

    found = search(scores, left_twice=case.endswith("left"))
    assert np.array(found.visited) == pytest.approx(np.array(golden["visited"]), rel=1e-12)
    assert found.rate == pytest.approx(golden["best_lr"], rel=1e-12)
    assert found.decay == pytest.approx(golden["best_wd"], rel=1e-12)
    assert len(calls) == 5 and calls[0] == 42  # the trainings of a round stand side by side


def test_the_grid_is_the_originals():
    assert list(FIRST) == PROTOCOL["wd_init_idx"] and len(DECAYS) == PROTOCOL["wd_grid_len"]
    assert list(RATES) == pytest.approx(PROTOCOL["lr_grid"], rel=1e-12)


# --- the trainings ------------------------------------------------------------------------------


def ordered(labels: np.ndarray, shots: int, seed: int) -> list[int]:
    """Rows of a toy set in the order in which the toolkit's last training has them."""
    several = labels.ndim == 2
    rows = [tuple(np.flatnonzero(y).tolist()) if several else (int(y),) for y in labels]
    classes = labels.shape[1] if several else int(labels.max()) + 1
    chosen = few_shot(rows, classes, shots, seed) if shots else list(range(len(rows)))
    train, held = divide([rows[i] for i in chosen], several)
    return [chosen[i] for i in [*train, *held]]


def probed(toy, name: str, rows: list[int]) -> Probed:
    target = torch.tensor(toy[f"{name}/train_labels"].astype(np.int64)[rows])
    return Probed(
        torch.tensor(toy[f"{name}/train_features"][rows]),
        target.float() if target.ndim == 2 else target,
        torch.tensor(toy[f"{name}/test_features"]),
        toy[f"{name}/test_labels"].astype(np.int64), METRICS[name],
        torch.tensor(toy[f"{name}/text"]),
    )  # fmt: skip


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(("shots", "seed"), [(5, 0), (5, 1), (5, 2), (0, 0)])
def test_probabilities_of_a_probe_are_the_originals(toy, name, shots, seed):
    rows = ordered(toy[f"{name}/train_labels"], shots, seed)
    found = train_heads(probed(toy, name, rows), [0.01], [1e-6], 50, keep=True)
    golden = toy[f"{name}/linear_probe_{shots or 'full'}_{seed}"]
    assert found.best_rows is not None
    assert np.abs(found.best_rows[0] - golden).max() < 1e-6
    label = toy[f"{name}/test_labels"].astype(np.int64)
    assert found.best[0] == elevater_metric(METRICS[name], found.best_rows[0], label)


def test_trainings_side_by_side_are_those_alone(toy):
    task = probed(toy, "voc", ordered(toy["voc/train_labels"], 0, 0))
    rates, decays = [0.01, 0.1, 1e-4, 0.1], [1e-6, 1.0, 0.1, 1e6]
    both = train_heads(task, rates, decays, 4, keep=True)
    for k in range(4):
        alone = train_heads(task, rates[k : k + 1], decays[k : k + 1], 4, keep=True)
        assert alone.best[0] == both.best[k] and alone.last[0] == both.last[k]
        assert alone.last_rows is not None and both.last_rows is not None
        np.testing.assert_allclose(alone.last_rows[0], both.last_rows[k], atol=1e-6)


def test_a_training_is_torchs(toy):
    """Several batches an epoch, a scale, rows of unit length: beside torch's own modules."""
    task = probed(toy, "toy", list(range(60)) * 3)
    task = Probed(task.train, task.target, task.judged, task.label, task.metric, task.start,
                  unit=True, scale=3.0)  # fmt: skip
    found = train_heads(task, [0.03], [0.01], 3, keep=True)
    norm = torch.nn.BatchNorm1d(16, affine=False)
    head = torch.nn.Linear(16, 4)
    head.weight.data, head.bias.data = task.start.clone(), torch.zeros(4)
    optimizer = torch.optim.SGD(head.parameters(), 0.03, momentum=0.9, weight_decay=0.01)

    def logits(x):
        return head(torch.nn.functional.normalize(norm(x), dim=-1)) * 3.0

    data = torch.utils.data.TensorDataset(task.train, task.target)
    loader = torch.utils.data.DataLoader(
        data, 64, shuffle=True, generator=torch.Generator().manual_seed(0)
    )
    for _ in range(3):
        for x, y in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits(x), y).backward()
            optimizer.step()
    norm.eval()
    assert found.last_rows is not None
    expected = logits(task.judged).softmax(-1).detach().numpy()
    np.testing.assert_allclose(found.last_rows[0], expected, atol=2e-6)


def test_a_batch_of_one_is_left_out():
    sizes = [[len(part) for part in parts] for parts in batches_of(129, 2)]
    assert sizes == [[64, 64], [64, 64]]


def test_trainings_that_run_away_count_as_the_original_counts_them():
    rows = np.full((3, 2), np.nan)
    label = np.array([0, 1, 1])
    assert lenient_metric("accuracy", rows, label) == pytest.approx(1 / 3)  # the first class
    assert lenient_metric("roc_auc", rows, label) == 0.0
    assert lenient_metric("roc_auc", np.eye(3)[:, :2], np.zeros(3, int)) == 0.0


# --- ours ---------------------------------------------------------------------------------------


def test_the_anchored_head_begins_at_zero_shot(toy):
    x, text = toy["toy/train_features"], 100 * toy["toy/text"].astype(np.float64)
    label = toy["toy/train_labels"].astype(np.int64)
    path = fit_path(x, label, text)
    rows = probabilities(path[0].logits(toy["toy/test_features"]), several=False)
    assert np.abs(rows - toy["toy/zeroshot"]).max() < 2e-5
    losses = [
        -np.log(probabilities(head.logits(x), False)[np.arange(60), label]).mean() for head in path
    ]
    assert all(b <= a + 1e-6 for a, b in itertools.pairwise(losses))  # less penalty, better fit
    assert losses[-1] < 0.05 < losses[0]


@pytest.mark.parametrize("name", ["toy", "voc"])
def test_the_penalty_is_chosen_on_held_out_samples(toy, name):
    label = toy[f"{name}/train_labels"].astype(np.int64)
    rows = ordered(label, 0, 0)
    x, y = toy[f"{name}/train_features"][rows], label[rows]
    several = label.ndim == 2
    labels = [tuple(np.flatnonzero(r).tolist()) if several else (int(r),) for r in y]
    text = 100 * toy[f"{name}/text"].astype(np.float64)

    def score(p, t):
        return elevater_metric(METRICS[name], p, t, "standard")

    found = fit_anchored(x, y, text, divide(labels, several), score)
    best = max(value for _, value in found.tried)
    assert found.penalty == next(p for p, value in found.tried if value == best)
    assert len(found.tried) == len(PENALTIES)
    p = probabilities(found.logits(toy[f"{name}/test_features"]), several)
    ours = score(p, toy[f"{name}/test_labels"].astype(np.int64))
    assert ours > score(toy[f"{name}/zeroshot"], toy[f"{name}/test_labels"].astype(np.int64)) + 0.1


def test_of_several_labels_the_anchored_head_begins_at_zero_shots_ranking():
    # As those of CLIP, all cosines are far above 0 and near to each other.
    rng = np.random.default_rng(0)
    common = 4 * unit(rng.normal(size=(1, 16)))
    x, asked = (unit(common + 0.1 * rng.normal(size=(n, 16))) for n in (60, 40))
    text = 100 * unit(common + rng.normal(size=(5, 16)))
    y, label = (
        (z @ text.T + rng.normal(size=(len(z), 5)) > (z @ text.T).mean(0) + 1).astype(np.int64)
        for z in (x, asked)
    )
    (head,) = fit_path(x, y, text, [np.inf])
    share = probabilities(head.logits(x), several=True).mean(0)
    np.testing.assert_allclose(share, y.mean(0), atol=1e-6)  # each class as often as it is right

    def score(rows):
        return elevater_metric("11point_mAP", rows, label, "standard")

    logits = head.logits(asked)
    wanted = score(asked @ text.T)
    assert score(probabilities(logits, several=True).astype(np.float32)) == wanted
    without = logits - head.bias
    assert score(probabilities(without, several=True).astype(np.float32)) < wanted - 0.1


@pytest.mark.parametrize("several", [False, True])
def test_the_gradient_of_the_anchored_head_is_its_losses(several):
    from scipy.optimize import check_grad

    from vislang.evaluate.elevater.anchored import _loss

    rng = np.random.default_rng(0)
    z, fixed = rng.normal(size=(7, 3)), rng.normal(size=(7, 4))
    wanted = rng.integers(0, 2, (7, 4)) if several else np.eye(4)[rng.integers(0, 4, 7)]
    loss = _loss(z, fixed, wanted, several, 0.1)
    point = rng.normal(size=16)
    assert check_grad(lambda p: loss(p)[0], lambda p: loss(p)[1], point) < 1e-5
