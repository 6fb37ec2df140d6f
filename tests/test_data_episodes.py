"""Episodes: pure functions of (seed, epoch) that exhaust the source before anything comes again."""

import json
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mixed import Mixed, make, same
from vislang.data.episodes import counts, draw, visits
from vislang.data.order import order
from vislang.data.sources import open_source
from vislang.errors import UserError
from worlds import run_world

TEXT = {"needs": ("text", "label"), "image": None}


@settings(max_examples=200)
@given(n=st.integers(1, 24), m=st.integers(1, 60), seed=st.integers(0, 9), part=st.integers(0, 2))
def test_no_sample_is_visited_again_before_all_are(n, m, seed, part):
    """After any number of episodes the visits of two samples differ by one at most."""
    seen = np.zeros(n, int)
    for epoch in range(9):
        drawn = np.bincount(draw(seed, epoch, n, m, part=part), minlength=n)
        assert drawn.sum() == m
        assert drawn.max() - drawn.min() <= 1  # of m <= n: each at most once
        seen += drawn
        assert seen.max() - seen.min() <= 1, f"after episode {epoch}"


@given(n=st.integers(1, 40), m=st.integers(1, 40), seed=st.integers(0, 9))
def test_episodes_cover_the_source_in_as_few_as_can_be(n, m, seed):
    needed = -(-n // m)
    seen = np.concatenate([draw(seed, epoch, n, m) for epoch in range(needed)])
    assert set(seen.tolist()) == set(range(n))


def test_an_episode_as_long_as_the_source_is_an_ordinary_epoch():
    assert np.array_equal(visits(3, 5, ((40, 1.0),), 40), order(3, 5, 40))
    whole = list(make(**TEXT).start(2))
    for left, right in zip(make(episode=30, **TEXT).start(2), whole, strict=True):
        same(left, right)


@pytest.mark.parametrize("replace", [False, True])
def test_episodes_and_seeds_differ_and_repeat(replace):
    def drawn(seed: int, epoch: int) -> tuple[int, ...]:
        visits.cache_clear()
        return tuple(visits(seed, epoch, ((50, 1.0),), 20, replace).tolist())

    assert len({drawn(s, e) for s in range(4) for e in range(4)}) == 16
    assert drawn(1, 3) == drawn(1, 3)


def test_parts_are_drawn_independently():
    first, second = (draw(0, 2, 100, 20, part=part) for part in (0, 1))
    assert len(set(first.tolist()) & set(second.tolist())) < 12
    assert not np.array_equal(draw(0, 2, 50, 9, True, 0), draw(0, 2, 50, 9, True, 1))


GOLDEN = {False: [11, 5, 3, 1, 8, 19], True: [14, 13, 19, 4, 18, 16]}
GOLDEN_MIXTURE = [6, 3, 5, 8, 7, 14, 15, 4]


@pytest.mark.parametrize("replace", [False, True])
def test_an_episode_is_the_one_of_yesterday(replace):
    """Golden: a checkpoint of another version or machine must go on with the same samples."""
    assert (visits(0, 3, ((20, 1.0),), 6, replace) % 20).tolist() == GOLDEN[replace]
    assert visits(0, 3, ((5, 1.0), (4, 3.0)), 8).tolist() == GOLDEN_MIXTURE


def test_draws_with_replacement_are_uniform_and_independent():
    n, m = 20, 50
    drawn = np.stack([draw(7, epoch, n, m, replace=True) for epoch in range(400)])
    often = np.bincount(drawn.ravel(), minlength=n)
    expected = 400 * m / n
    assert ((often - expected) ** 2 / expected).sum() < 43.8  # 0.999 quantile, 19 degrees
    pairs = np.bincount(drawn[:-1, 0] * n + drawn[1:, 0], minlength=n * n)
    assert (pairs > 0).sum() > 200  # the first of an episode says nothing about the next one's


def test_draws_without_replacement_are_uniform():
    """Every sample is as often in each episode (here across the borders of rounds)."""
    often = np.zeros((3, 10))
    for seed in range(3000):
        for k, epoch in enumerate((0, 3, 4)):
            often[k] += np.bincount(draw(seed, epoch, 10, 3), minlength=10)
    assert ((often - 900) ** 2 / (900 * 0.7)).sum(1).max() < 27.9  # 0.999 quantile, 9 degrees


@settings(max_examples=20)
@given(
    world=st.integers(1, 4), per_rank=st.integers(1, 3), episode=st.integers(12, 40),
    replace=st.booleans(), epoch=st.integers(0, 4),
)  # fmt: skip
def test_ranks_share_an_episode(world, per_rank, episode, replace, epoch):
    options = {
        "batch_size": world * per_rank,
        "episode": episode,
        "episode_replace": replace,
        **TEXT,
    }
    one = make(**options)
    batches = list(one.start(epoch))
    assert len(batches) == len(one) == episode // (world * per_rank)
    ranks = [make(rank=r, world=world, **options) for r in range(world)]
    made = [list(r.start(epoch)) for r in ranks]
    for step, batch in enumerate(batches):
        for key in ("text", "label", "index", "caption"):
            assert torch.equal(torch.cat([rank[step][key] for rank in made]), batch[key])
    visited = [row for b in batches for row in (b["index"].tolist(), b["rejected"])]
    told = one.episode_indices(epoch)
    assert all(np.array_equal(r.episode_indices(epoch), told) for r in ranks)
    used = len(batches) * one.batch_size
    indices = [i for row in visited[::2] for i in row]
    bad = [int(row.id[1:]) for rows in visited[1::2] for row in rows]
    assert sorted(indices + bad) == sorted(told[:used].tolist())
    assert len(told) == episode and told.dtype == np.int64


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("replace", [False, True])
def test_an_episode_can_be_entered_anywhere(workers, replace):
    options = {"episode": 12, "episode_replace": replace, "batch_size": 3}
    whole = [batch for epoch in range(4) for batch in make(**options).start(epoch)]
    batches = make(workers=workers, **options)
    for epoch, step in [(0, 0), (2, 3), (1, 1)]:
        rest = batches.start(epoch, step, epochs=None)
        for left, right in zip(islice(rest, 5), whole[4 * epoch + step :]):
            same(left, right)
    batches.close()


def test_a_sample_drawn_twice_is_seen_in_two_ways():
    """In one epoch; and the first visit is as it would be without the second."""
    batches = make(needs=("image", "text"), episode=90, batch_size=90, episode_replace=True)
    batch = next(batches.start(1))
    first: dict[int, int] = {}
    repeats = 0
    ordinary = make(needs=("image", "text"))
    for row, index in enumerate(batch["index"].tolist()):
        if index not in first:
            first[index] = row
            alone = next(ordinary.over([index], epoch=1))
            assert torch.equal(alone["image"][0], batch["image"][row])
        else:
            repeats += 1
            assert not torch.equal(batch["image"][first[index]], batch["image"][row])
    assert repeats > 30
    ids = [int(name[1:]) for name in batch["id"]]
    assert ids == batch["index"].tolist()


def test_without_episodes_all_samples_are_told():
    assert sorted(make().episode_indices(3).tolist()) == list(range(30))
    assert make(shuffle=False).episode_indices(3).tolist() == list(range(30))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"episode": -1},
            "episode must be the samples of an epoch, or 0 for the whole source; got",
        ),
        ({"episode": 4}, "A batch of 6 is larger than the episode with its 4 samples: use a"),
        ({"episode": 9, "shuffle": False}, "An episode is drawn at random: it needs shuffle=True."),
    ],
)
def test_impossible_episodes_are_refused(options, message):
    with pytest.raises(UserError) as caught:
        make(**options)
    assert str(caught.value).startswith(message)


@given(weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=6), size=st.integers(0, 10_000))
def test_counts_are_within_one_of_the_exact_shares(weights, size):
    taken = counts(weights, size)
    assert sum(taken) == size
    for count, weight in zip(taken, weights):
        assert abs(count - size * weight / sum(weights)) < 1 + 1e-6


def test_counts_go_by_the_largest_remainder():
    assert counts([20, 30, 50], 7) == [1, 2, 4]  # 1.4, 2.1, 3.5
    assert counts([1, 1], 3) == [2, 1]  # equal: the earlier


def test_two_processes_see_one_episode(tmp_path):
    """Real processes, each with loader workers, against one without."""
    program = tmp_path / "rank.py"
    program.write_text(
        "import os, json\n"
        "from mixed import make\n"
        "rank, world = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])\n"
        "b = make(episode=20, batch_size=4, episode_replace=True, rank=rank, world=world,\n"
        "         workers=1)\n"
        "rows = [[x['index'].tolist(), x['image'].float().mean((1, 2, 3)).tolist()]\n"
        "        for x in b.start(3, 1)]\n"
        "b.close()\n"
        "print('ROWS', json.dumps([rows, b.episode_indices(3).tolist()]))\n"
    )
    outputs = run_world([str(program)], 2)
    (left, told), (right, also) = (
        json.loads(text.partition("ROWS ")[2].splitlines()[0]) for text in outputs
    )
    whole = make(episode=20, batch_size=4, episode_replace=True)
    assert told == also == whole.episode_indices(3).tolist()
    batches = list(whole.start(3, 1))
    assert len(batches) == len(left) == 4
    for batch, one, two in zip(batches, left, right):
        assert batch["index"].tolist() == one[0] + two[0]
        assert batch["image"].float().mean((1, 2, 3)).tolist() == one[1] + two[1]


def test_digits_in_episodes():
    source = open_source("digits")
    batches = make(source, 100, episode=400, **TEXT)
    assert len(batches) == 4 and batches.samples == 400
    seen = [i for epoch in range(3) for b in batches.start(epoch) for i in b["index"].tolist()]
    assert len(set(seen)) == 1200  # 1,297 samples: none twice in three episodes


class Huge(Mixed):
    """As many samples as the largest public sets would need a moment to permute."""

    def __len__(self) -> int:
        return 1_000_000


def test_a_late_episode_costs_no_more_than_an_early_one():
    import time

    for episode in (100_000, 700_000):
        batches = make(Huge(), episode=episode, **TEXT)
        began = time.perf_counter()
        batches.episode_indices(0)
        early = time.perf_counter() - began
        began = time.perf_counter()
        batches.episode_indices(4321)
        assert time.perf_counter() - began < 20 * early + 0.5
