"""Few-shot episodes: golden episodes, draws that are distinct and even, short classes, one shot."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vislang.errors import UserError
from vislang.evaluate.fewshot import Episodes, FewShot, _draw, draw_episodes, score_episodes
from vislang.evaluate.requests import Embeddings

HERE = Path(__file__).parent / "golden"
ROWS = np.load(HERE / "probe_digits.npz")
GOLDEN = json.loads((HERE / "probe_digits.json").read_text())["fewshot"]


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    return {n: (x[ROWS[f"{n}_idx"].astype(int)], y[ROWS[f"{n}_idx"].astype(int)])
            for n in ("train", "test")}  # fmt: skip


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("average", [True, False])
def test_recorded_episodes_equal_the_golden_ones(digits, centre, normalise, average):
    support = ROWS["ep_support"].astype(int).reshape(200, 5, 5)
    query = ROWS["ep_query"].astype(int).reshape(200, 5, 6)
    episodes = Episodes(support, query, np.ones(query.shape, bool))
    got = 100 * score_episodes(
        digits["train"][0], digits["test"][0], episodes, centre, normalise, average
    )
    key = f"200ep_seed8_center{centre:d}_norm{normalise:d}_avg{average:d}"
    mean, deviation = GOLDEN[key]
    if not (centre or normalise or average):
        # One query of 6,000 is exactly as far from two classes; ours counts that against.
        assert got.mean() == pytest.approx(mean - 100 / 6000, abs=1e-4)
        return
    assert got.mean() == pytest.approx(mean, abs=1e-4)
    assert got.std(ddof=1) == pytest.approx(deviation, abs=1e-4)
    if centre and normalise and average:
        assert got == pytest.approx(ROWS["ep_acc"], abs=1e-4)


def embeddings(digits, train=True):
    of = {
        name: Embeddings([str(i) for i in range(len(y))], y, features=x)
        for name, (x, y) in digits.items()
    }
    test = of["test"]
    return Embeddings(
        test.ids, test.label, features=test.features, train=of["train"] if train else None
    )


def test_free_episodes_lie_within_the_golden_interval(digits):
    scores = FewShot(shots=(1, 5), seed=8).score(embeddings(digits))
    want = GOLDEN["5000ep_seed8_default"]
    got = scores.values["accuracy_5_way_5_shot"]
    # Both means are drawn: their difference has twice the variance.
    assert 100 * got.value == pytest.approx(want["mean"], abs=want["ci95"] * 2**0.5 * 1.5)
    assert 100 * (got.high - got.low) / 2 == pytest.approx(want["ci95"], rel=0.1)
    assert got.n == 5000
    one = scores.values["accuracy_5_way_1_shot"]
    assert 0.5 < one.value < got.value
    again = FewShot(shots=(1, 5), seed=8).score(embeddings(digits))
    assert again.values == scores.values
    assert FewShot(shots=5, seed=9).score(embeddings(digits)).values != scores.values


def test_one_source_gives_support_and_queries_that_differ(digits):
    y = digits["test"][1]
    episodes = draw_episodes(y, None, way=5, shot=5, queries=6, episodes=300, seed=0)
    both = np.concatenate([episodes.support, episodes.query], axis=2)
    assert (np.diff(np.sort(both, axis=2), axis=2) > 0).all()
    assert (y[both] == y[both[:, :, :1]]).all()
    own = y[episodes.support[:, :, 0]]
    assert (np.diff(np.sort(own, axis=1), axis=1) > 0).all()
    scores = FewShot(episodes=300).score(embeddings(digits, train=False))
    assert scores.values["accuracy_5_way_5_shot"].value > 0.8
    assert any("of the source itself" in note for note in scores.notes)


@given(st.integers(1, 12), st.integers(1, 10), st.integers(0, 99))
def test_draws_are_distinct_and_in_range(size, k, seed):
    drawn, there = _draw(np.full((4, 2), size), k, np.random.default_rng(seed))
    assert (there.sum(-1) == min(k, size)).all()
    for row, mask in zip(drawn.reshape(-1, k), there.reshape(-1, k)):
        chosen = row[mask]
        assert len(set(chosen.tolist())) == len(chosen)
        assert ((chosen >= 0) & (chosen < size)).all()


def test_draws_are_even_over_all_ordered_choices():
    drawn, _ = _draw(np.full(60_000, 4), 2, np.random.default_rng(0))
    counts = np.bincount(drawn[:, 0] * 4 + drawn[:, 1], minlength=16).reshape(4, 4)
    assert (np.diag(counts) == 0).all()
    off = counts[~np.eye(4, dtype=bool)]
    assert np.abs(off / 5000 - 1).max() < 0.06


def test_a_short_class_weighs_as_much_as_the_others():
    # Two classes; one has a single query, which is right, the other four, of which one is right.
    train = np.array([[0.0, 1.0], [1.0, 0.0]])
    test = np.array([[0.0, 1.0], [1.0, 0.0], [0.1, 1.0], [0.2, 1.0], [0.3, 1.0]])
    label = np.array([0, 1, 1, 1, 1])
    episodes = draw_episodes(np.array([0, 1]), label, 2, 1, 4, episodes=3, seed=0)
    assert sorted(episodes.there.sum(axis=2)[0]) == [1, 4]
    got = score_episodes(train, test, episodes, centre=False)
    assert got == pytest.approx(np.full(3, (1 + 0.25) / 2))


def test_equal_distances_count_against():
    episodes = draw_episodes(np.array([0, 1]), np.array([0, 1]), 2, 1, 1, 5, seed=0)
    assert (score_episodes(np.ones((2, 3)), np.ones((2, 3)), episodes) == 0).all()


def test_small_blocks_change_nothing(digits, monkeypatch):
    y = digits["train"][1], digits["test"][1]
    episodes = draw_episodes(*y, 5, 5, 6, 50, seed=1)
    whole = score_episodes(digits["train"][0], digits["test"][0], episodes)
    monkeypatch.setattr("vislang.evaluate.fewshot._BYTES", 1)
    assert (score_episodes(digits["train"][0], digits["test"][0], episodes) == whole).all()


def test_too_few_classes_say_so(digits):
    with pytest.raises(UserError, match=r"11-way.*only 10 of 10"):
        FewShot(way=11, episodes=2).score(embeddings(digits))
    y = np.repeat(np.arange(6), [9, 9, 9, 9, 9, 3])
    few = Embeddings([str(i) for i in range(len(y))], y, features=np.eye(len(y)))
    assert any("1 classes" in note for note in FewShot(shots=5, episodes=5).score(few).notes)


@pytest.mark.parametrize(
    "options", [{"way": 1}, {"shots": 0}, {"shots": ()}, {"queries": 0}, {"episodes": 0}]
)
def test_wrong_options_are_named(options):
    with pytest.raises(UserError, match=f"fewshot: {next(iter(options))}"):
        FewShot(**options)
