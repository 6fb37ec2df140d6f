"""Exact and approximate neighbours: the original's numbers, brute force, rules, kills."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vislang.curate import exact
from vislang.curate.columns import codes, joint_codes, read_column
from vislang.curate.exact import BLOCK, Nearest, make_bound, nearest_among, scan
from vislang.curate.lists import Lists
from vislang.curate.search import search_groups
from vislang.errors import UserError

GOLDEN = np.load(Path(__file__).parent / "golden" / "language_neighbours.npz")


def unit(rows):
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def brute(x, k, allowed=None, threshold=-1.0):
    """The k nearest by sorting everything; the lower row wins ties."""
    wide = x.astype(np.float64)
    value = wide @ wide.T
    rows = np.arange(len(x))
    value[rows, rows] = -np.inf
    if allowed is not None:
        a, b = np.meshgrid(rows, rows, indexing="ij")
        value[~allowed(a.ravel(), b.ravel()).reshape(value.shape)] = -np.inf
    value[value < threshold] = -np.inf
    order = np.argsort(-value, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(value, order, 1)
    short = ((0, 0), (0, k - order.shape[1]))
    order, best = np.pad(order, short), np.pad(best, short, constant_values=-np.inf)
    return np.where(np.isfinite(best), order, -1), best


def captions(n, width=96, seed=0):
    """Rows as captions lie: around topics, along few axes, some repeated."""
    rng = np.random.default_rng(seed)
    topics = rng.standard_normal((max(1, n // 6), width))
    rows = topics[rng.integers(0, len(topics), n)] + 0.7 * rng.standard_normal((n, width))
    rows = unit(rows * np.arange(1, width + 1) ** -0.7)
    rows[rng.integers(0, n, n // 20)] = rows[0]
    return rows


# -- the original's numbers ----------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["", "subreddit", "year", "subreddityear"])
def test_neighbours_are_the_originals(scope, tmp_path):
    x = unit(GOLDEN["embeddings"])
    columns = [GOLDEN[name] for name in ("subreddit", "year") if name in scope]
    group = joint_codes([c.astype(np.int64) for c in columns], len(x))
    everything = lambda a, b: np.ones(len(a), bool)  # noqa: E731
    found, _ = search_groups(x, group, 1, -1.0, everything, tmp_path, {})
    prefix = f"{scope}_" if scope else ""
    index, expected = found.index[:, 0], GOLDEN[f"{prefix}nn_index"]
    # Ties of identical captions too: the lowest index, as the original's CPU index takes it.
    same = GOLDEN["caption"][index] == GOLDEN["caption"][expected]
    assert (index == expected).mean() > 0.98 and same.all()
    value = GOLDEN[f"{prefix}similarity"] if scope else GOLDEN["nn_similarity"]
    np.testing.assert_allclose(found.similarity[:, 0], value, atol=1e-5)


def test_thresholds_keep_the_originals_counts():
    found = nearest_among(unit(GOLDEN["embeddings"]))
    kept = [int((found.similarity >= t).sum()) for t in (0, 0.5, 0.7, 0.9)]
    assert kept == [200, 95, 18, 8]


# -- exact ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_exact_is_brute_force(k, precision, monkeypatch):
    """Many blocks, a bound on few axes, copies; the bound's precision does not show."""
    monkeypatch.setattr(exact, "BLOCK", 64)
    monkeypatch.setattr(exact, "SAMPLE", 40)
    x = captions(700)
    assert make_bound(x, precision).axes < 96  # the bound is in use
    found = nearest_among(x, k, precision=precision)
    index, value = brute(x, k)
    np.testing.assert_allclose(found.similarity, value, atol=1e-12)
    assert (found.index == index).all()


def test_the_bound_is_never_below_the_cosine():
    for precision in ("fp32", "bf16"):
        x = captions(300)
        bound = make_bound(np.concatenate([x] * 20), precision)
        rows = bound.rows[:300].float().numpy()
        assert (rows @ rows.T + bound.margin >= x @ x.T).all()


@given(st.integers(2, 40), st.integers(1, 5), st.integers(0, 10_000), st.floats(-1, 1))
@settings(max_examples=60, deadline=None)
def test_rules_and_threshold_are_brute_force_with_them(n, k, seed, threshold):
    rng = np.random.default_rng(seed)
    x = unit(rng.integers(-2, 3, (n, 3)) + 1e-3)
    code = rng.integers(0, 3, n)
    allowed = lambda a, b: code[a] != code[b]  # noqa: E731
    found = nearest_among(x, k, threshold=threshold, allowed=allowed)
    index, value = brute(x, k, allowed, threshold)
    np.testing.assert_allclose(found.similarity, value, atol=1e-9)
    assert ((found.index >= 0) == (index >= 0)).all()


def test_offering_a_pair_twice_keeps_it_once():
    found = Nearest(3, 2)
    for _ in range(3):
        found.add(np.array([0, 0]), np.array([1, 2]), np.array([0.5, 0.5]))
    assert found.index.tolist() == [[1, 2], [-1, -1], [-1, -1]]


def test_stripes_in_any_order_find_the_same(monkeypatch):
    monkeypatch.setattr(exact, "BLOCK", 32)
    x = captions(300)
    whole, parts = nearest_among(x, 3), Nearest(300, 3)
    everything = lambda a, b: np.ones(len(a), bool)  # noqa: E731
    for stripe in (range(200, 300), range(100), range(100, 200)):
        for _ in scan(parts, x, make_bound(x), everything, stripe):
            pass
    assert (parts.index == whole.index).all()
    assert BLOCK == 1024  # the name bound at import is not the one that is changed here


# -- units of work -------------------------------------------------------------------------------


def cut_at_the_third_unit(monkeypatch) -> list[str]:
    """Interrupt the search there; the names of all units that were begun, also later."""
    from vislang.curate import search

    real, calls = search._search_unit, []

    def broken(job, units, name, folder):
        calls.append(name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(job, units, name, folder)

    monkeypatch.setattr(search, "_search_unit", broken)
    return calls


def test_a_search_goes_on_where_it_stopped(tmp_path, monkeypatch):
    """Stripes of a large scope; the second run finds what the first would have found."""
    from vislang.curate import search

    monkeypatch.setattr(search, "STRIPE", 100)
    monkeypatch.setattr(exact, "BLOCK", 32)
    x, group = captions(350), np.repeat([0, 1], [300, 50])
    everything = lambda a, b: np.ones(len(a), bool)  # noqa: E731
    whole, _ = search_groups(x, group, 2, -1.0, everything, tmp_path / "whole", {"a": 1})
    calls = cut_at_the_third_unit(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        search_groups(x, group, 2, -1.0, everything, tmp_path / "cut", {"a": 1})
    done = sorted(p.stem for p in (tmp_path / "cut" / "units").glob("*.json"))
    assert len(done) == 2
    again, _ = search_groups(x, group, 2, -1.0, everything, tmp_path / "cut", {"a": 1})
    assert len(calls) == 3 + 2 and (again.index == whole.index).all()
    expected = np.concatenate([brute(x[:300], 2)[0], brute(x[300:], 2)[0] + 300])
    assert (whole.index == expected).all()
    with pytest.raises(UserError, match=r"other settings: a \(1 -> 2\)"):
        search_groups(x, group, 2, -1.0, everything, tmp_path / "cut", {"a": 2})


# -- approximate ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_an_approximate_index_measures_and_reaches_its_recall(kind, tmp_path, monkeypatch):
    from vislang.curate import search

    monkeypatch.setattr(search, "STRIPE", 500)
    x = captions(2000)
    code = np.random.default_rng(1).integers(0, 2, len(x))
    allowed = lambda a, b: code[a] != code[b]  # noqa: E731
    group, rest = np.zeros(2000, np.int64), (allowed, tmp_path, {}, kind)
    found, notes = search_groups(x, group, 2, -1.0, *rest, 0.97)
    assert notes[0]["recall"] >= 0.97
    _, value = brute(x, 2, allowed)
    assert (found.similarity >= value - 1e-6).mean() > 0.95
    assert (code[found.index] != code[:, None]).all()
    with pytest.raises(UserError, match="must be exact, ivf or hnsw; got 'ivff'"):
        search_groups(x, group, 2, -1.0, allowed, tmp_path / "b", {}, "ivff")
    with pytest.raises(UserError, match="recall must be"):
        search_groups(x, group, 2, -1.0, allowed, tmp_path / "c", {}, kind, 1.5)


@pytest.mark.parametrize("k", [1, 3])
def test_lists_find_what_their_note_says(k):
    """The recall and the share of the sample are those of the search itself."""
    x = captions(3000)
    lists = Lists(x, make_bound(x), 0.9, k)
    found = Nearest(len(x), k)
    lists.begin(found)
    compared = []
    real = lists.allowed
    lists.allowed = lambda a, b: compared.append(len(a)) or real(a, b)
    for stripe in (range(1000, 3000), range(700), range(700, 1000)):
        lists.search(found, stripe)
    _, value = brute(x, k)
    recall = (found.similarity >= value[:, -1:] - 1e-9).mean()
    assert 0.9 <= lists.note["recall"] < 0.98 and 0.02 < lists.note["share"] < 0.5
    assert lists.note["recall_low"] - 0.01 <= recall <= lists.note["recall_high"] + 0.01
    assert 0 < sum(compared) < len(x) ** 2 / 4  # most pairs are not even looked at
    np.testing.assert_allclose(
        found.similarity, np.take_along_axis(x @ x.T, found.index, 1), atol=1e-5
    )


def test_a_margin_as_long_as_the_nearest_is_far_misses_nothing():
    """The plane between two lists is no further from a row than any row of the other list."""
    x, found = captions(2000), Nearest(2000, 1)
    lists = Lists(x, make_bound(x), 0.5)
    index, value = brute(x, 1)
    lists.note["margin"] = float(np.sqrt(2 - 2 * value.min())) + 1e-6
    lists.begin(found)
    lists.search(found, range(2000))
    assert (found.index == index).all()


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_an_approximate_search_goes_on_where_it_stopped(kind, tmp_path, monkeypatch):
    from vislang.curate import search

    monkeypatch.setattr(search, "STRIPE", 300)
    x, group = captions(1000), np.zeros(1000, np.int64)
    everything = lambda a, b: np.ones(len(a), bool)  # noqa: E731
    rest = (2, -1.0, everything)
    whole, notes = search_groups(x, group, *rest, tmp_path / "whole", {}, kind, 0.9)
    cut_at_the_third_unit(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        search_groups(x, group, *rest, tmp_path / "cut", {}, kind, 0.9)
    kept = next((tmp_path / "cut").glob("*.faiss" if kind == "hnsw" else "*.npz"))
    written = kept.stat().st_mtime_ns
    again, noted = search_groups(x, group, *rest, tmp_path / "cut", {}, kind, 0.9)
    assert (again.index == whole.index).all() and noted == notes
    assert kept.stat().st_mtime_ns == written


def test_lists_without_anything_to_find():
    """Nothing is allowed: no recall is claimed."""
    x = captions(500)
    nothing = lambda a, b: np.zeros(len(a), bool)  # noqa: E731
    lists = Lists(x, make_bound(x), allowed=nothing)
    assert "recall" not in lists.note and lists.note["queries"] == 0
    found = Nearest(500, 1)
    lists.begin(found)
    lists.search(found, range(500))
    assert (found.index == -1).all()


# -- columns -------------------------------------------------------------------------------------


def test_columns_come_from_ids_labels_and_tables(tmp_path):
    ids = ["train/birds_2019_000001/a", "train/cats_2020_000002/b", "odd/c"]
    assert read_column("subreddit", ids, [0, 1, -1]) == ["birds", "cats", None]
    assert read_column("year", ids, [0, 1, -1]) == ["2019", "2020", None]
    assert read_column("label", ids, [0, 1, -1]) == ["0", "1", None]
    assert read_column("folder", ids, [0, 1, -1])[2] == "odd"
    table = tmp_path / "t.csv"
    table.write_text(f"author,id\nann,{ids[0]}\n,{ids[1]}\nbob,elsewhere\n")
    assert read_column("author", ids, [0, 1, -1], table) == ["ann", None, None]
    with pytest.raises(UserError, match=r"no column 'autor'. Did you mean 'author'"):
        read_column("autor", ids, [0, 1, -1], table)
    with pytest.raises(UserError, match=r"No column is called 'author'.*give `columns`"):
        read_column("author", ids, [0, 1, -1])
    with pytest.raises(UserError, match="none of its 3 values of 'id' is the id of a sample"):
        read_column("author", ["x"], [0], table)
    assert joint_codes([codes(["a", "a", None]), codes(["x", "y", "x"])], 3).tolist()[2] == -1
