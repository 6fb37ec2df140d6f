"""Batches: the same for every number of workers, processes and restarts; bad samples are rows."""

import os
import pickle
import resource
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pictures import jpeg
from vislang.data.batches import Batches
from vislang.data.decode import Limits
from vislang.data.order import batch_indices
from vislang.data.sample import BadSample, Rejected, Sample
from vislang.data.sources import open_source
from vislang.errors import UserError
from vislang.preprocess import Preprocess

SMALL = Preprocess(size=(16, 16))
ALL = ("image", "image_2", "text", "text_2", "label")


def tokenize(texts: list[str]) -> torch.Tensor:
    return torch.tensor([[ord(c) for c in text.ljust(24)[:24]] for text in texts])


@lru_cache
def picture(index: int) -> bytes:
    return jpeg(index, 20, 24)


class Mixed:
    """Thirty samples of which some cannot be used, each in its own way."""

    name, classes, fingerprint = "mixed", ("a", "b"), "mixed"
    gives = frozenset({"image", "text", "label"})
    bad = {
        3: "damaged row: it is torn",
        5: "no caption: the sample has none",
        8: "not an image: the format is not known",
        13: "no label: the sample has none",
        21: "missing file: /nowhere/21.jpg",
        22: "no caption: the sample has none",
    }

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> Sample:
        if index == 3:
            raise BadSample("s3", self.bad[3], "mixed:3")
        texts = {5: (), 22: ("", "  ")}.get(index, (f"first {index}", "", f"other {index}"))
        image = {8: b"junk", 21: Path("/nowhere/21.jpg")}.get(index, picture(index))
        labels = () if index == 13 else (index % 2,)
        return Sample(f"s{index}", image, texts, labels, f"mixed:{index}")

    def shards(self) -> list[range]:
        return [range(30)]


def make(source=None, batch_size=6, **options) -> Batches:
    options = {"needs": ALL, "image": SMALL, "tokenizer": tokenize, "augment": "simclr"} | options
    return Batches(source or Mixed(), batch_size, **options)


def same(left, right) -> None:
    assert left.keys() == right.keys()
    for key, value in left.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == right[key].dtype and torch.equal(value, right[key]), key
        else:
            assert value == right[key], key


def test_a_batch_keeps_its_contract():
    batch = next(make(augment="clip").start())
    rows = len(batch["id"])
    assert {key: (v.dtype, tuple(v.shape)) for key, v in batch.items() if hasattr(v, "dtype")} == {
        "image": (torch.uint8, (rows, 3, 16, 16)),
        "image_2": (torch.uint8, (rows, 3, 16, 16)),
        "text": (torch.int64, (rows, 24)),
        "text_2": (torch.int64, (rows, 24)),
        "caption": (torch.int64, (rows,)),
        "caption_2": (torch.int64, (rows,)),
        "label": (torch.int64, (rows,)),
        "index": (torch.int64, (rows,)),
    }
    assert rows + len(batch["rejected"]) == 6
    assert batch["id"] == [f"s{index}" for index in batch["index"].tolist()]
    assert batch["label"].tolist() == [index % 2 for index in batch["index"].tolist()]


def test_bad_samples_are_rows_with_reasons_and_nothing_is_repeated():
    batches = list(make().start())
    seen = [index for batch in batches for index in batch["index"].tolist()]
    rejected = [row for batch in batches for row in batch["rejected"]]
    assert sorted(seen + [int(row.id[1:]) for row in rejected]) == list(range(30))
    assert {int(row.id[1:]): row.reason for row in rejected} == Mixed.bad
    assert all(row.origin == f"mixed:{row.id[1:]}" for row in rejected)


def test_what_is_not_needed_does_not_reject():
    texts = list(make(needs=("text",), image=None).start())
    assert sum(len(b["id"]) for b in texts) == 27  # only 3, 5 and 22
    assert "image" not in texts[0] and texts[0]["label"].dtype == torch.int64
    images = list(make(needs=("image",), tokenizer=None).start())
    assert sum(len(b["id"]) for b in images) == 27  # only 3, 8 and 21
    assert "text" not in images[0] and -1 in torch.cat([b["label"] for b in images])


def test_a_batch_of_only_bad_samples_has_its_keys_and_no_rows():
    batch = next(make().over([3, 5, 8]))
    assert batch["image"].shape == (0, 3, 16, 16) and batch["text"].shape == (0, 24)
    assert batch["label"].shape == (0,) and batch["id"] == [] and len(batch["rejected"]) == 3


@pytest.fixture(scope="module")
def whole() -> list:
    return [list(make(batch_size=10).start(epoch)) for epoch in range(3)]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_any_start_and_any_number_of_workers_give_the_same_batches(whole, workers):
    batches = make(batch_size=10, workers=workers)
    for epoch, step in [(0, 0), (2, 1), (1, 2), (0, 1)]:
        got = list(batches.start(epoch, step))
        assert len(got) == 3 - step
        for left, right in zip(got, whole[epoch][step:]):
            same(left, right)
    through = list(batches.start(1, 1, epochs=2))
    for left, right in zip(through, whole[1][1:] + whole[2], strict=True):
        same(left, right)
    batches.close()


def test_pieces_of_a_batch_join_in_order(monkeypatch):
    """With more samples than a worker takes at once."""
    monkeypatch.setattr("vislang.data.crew.PIECE", 4)
    for options in ({}, {"caption": "all", "augment": "none"}):
        alone = list(make(batch_size=10, **options).start())
        batches = make(batch_size=10, workers=2, **options)
        for left, right in zip(batches.start(), alone, strict=True):
            same(left, right)
        batches.close()


@settings(max_examples=25)
@given(
    world=st.integers(1, 5), per_rank=st.integers(1, 4), epoch=st.integers(0, 2),
    shuffle=st.booleans(), drop_last=st.booleans(), seed=st.integers(0, 5),
)  # fmt: skip
def test_slices_of_all_ranks_are_the_global_batch(world, per_rank, epoch, shuffle, drop_last, seed):
    options = {
        "batch_size": world * per_rank, "shuffle": shuffle, "drop_last": drop_last, "seed": seed,
        "needs": ("text", "label"), "image": None,
    }  # fmt: skip
    one = list(make(**options).start(epoch))
    ranks = [list(make(rank=r, world=world, **options).start(epoch)) for r in range(world)]
    assert {len(batches) for batches in ranks} == {len(one)}
    for step, batch in enumerate(one):
        parts = [batches[step] for batches in ranks]
        for key in ("text", "label", "index", "caption"):
            assert torch.equal(torch.cat([part[key] for part in parts]), batch[key])
        for key in ("id", "rejected"):
            assert [item for part in parts for item in part[key]] == batch[key]


def test_more_ranks_than_rows_leave_some_empty():
    got = [
        list(make(batch_size=8, rank=r, world=8, drop_last=False).start())[-1] for r in range(8)
    ]  # 30 samples: the last batch has 6
    assert [len(b["id"]) + len(b["rejected"]) for b in got] == [1] * 6 + [0] * 2


def test_shuffling_is_the_order_and_without_it_the_source():
    indices = [b["index"].tolist() for b in make(needs=("image",), tokenizer=None).start(4)]
    expected = [batch_indices(0, 4, 30, 6, k).tolist() for k in range(5)]
    bad = {3, 8, 21}
    assert indices == [[i for i in batch if i not in bad] for batch in expected]
    plain = make(needs=("text",), image=None, shuffle=False)
    assert [i for b in plain for i in b["index"].tolist()] == [
        i for i in range(30) if i not in {3, 5, 22}
    ]


def test_captions_are_drawn_anew_each_epoch_and_blank_ones_never():
    batches = make(needs=("text", "text_2"), image=None)
    drawn: dict[int, set[int]] = {}
    for epoch in range(8):
        for batch in batches.start(epoch):
            for index, one, two in zip(batch["index"], batch["caption"], batch["caption_2"]):
                drawn.setdefault(int(index), set()).add(int(one))
                assert {int(one), int(two)} == {0, 2}  # two views, two captions; 1 is blank
    assert sum(chosen == {0, 2} for chosen in drawn.values()) > 20
    first = make(needs=("text",), image=None, caption="first")
    assert {int(c) for b in first.start(3) for c in b["caption"]} == {0}


def test_views_differ_and_may_have_different_augments():
    batch = next(make().over([0, 1, 2]))
    assert not torch.equal(batch["image"], batch["image_2"])
    mixed = next(make(augment="none,simclr").over([0, 1, 2]))
    plain = next(make(augment="none").over([0, 1, 2]))
    assert torch.equal(mixed["image"], plain["image"])
    assert not torch.equal(mixed["image_2"], plain["image_2"])


def test_all_captions_of_an_image_for_evaluation():
    batches = make(needs=("image", "text"), caption="all", augment="none", shuffle=False,
                   drop_last=False, batch_size=4)  # fmt: skip
    seen = {}
    for batch in batches:
        assert len(batch["captions"]) == len(batch["text"]) == len(batch["image_row"])
        assert torch.equal(batch["text"], tokenize(batch["captions"]) if batch["captions"]
                           else batch["text"])  # fmt: skip
        for text, row in zip(batch["captions"], batch["image_row"].tolist()):
            seen.setdefault(batch["index"][row].item(), []).append(text)
    assert seen == {
        i: [f"first {i}", f"other {i}"] for i in range(30) if i not in {3, 5, 8, 21, 22}
    }


def test_over_takes_just_these_samples():
    got = list(make(batch_size=4).over(range(10, 20), epoch=2))
    assert [len(b["id"]) + len(b["rejected"]) for b in got] == [4, 4, 2]
    assert got[0]["index"].tolist() == [10, 11, 12]  # 13 has no label
    parts = [next(make(batch_size=4, rank=r, world=2).over(range(10, 14))) for r in range(2)]
    assert [part["index"].tolist() for part in parts] == [[10, 11], [12]]


def test_stored_features_need_neither_tokens_nor_pixels(monkeypatch):
    batches = make()
    full = next(batches.start())
    light = next(batches.without_tokens().start())
    assert "text" not in light and torch.equal(light["caption"], full["caption"])
    assert torch.equal(light["image"], full["image"])
    monkeypatch.setattr("vislang.data.pieces.decode_sample", lambda *_: pytest.fail("it decoded"))
    unusable = {index: Mixed.bad[index] for index in (8, 21)}
    lighter = list(batches.without_tokens().without_pixels(unusable).start())
    assert "image" not in lighter[0]
    rejected = {int(r.id[1:]): r.reason for batch in lighter for r in batch["rejected"]}
    assert rejected == Mixed.bad


def test_limits_reach_the_decoder():
    batch = next(make(limits=Limits(max_pixels=100)).over([0]))
    assert batch["rejected"] == [
        Rejected("s0", "too many pixels: 24 x 20, max_pixels is 100", "mixed:0")
    ]


def test_workers_have_one_thread_and_leave_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    batches = make(Probe(), batch_size=2, needs=("text",), image=None, workers=1)
    texts = [text for batch in batches.start() for text in untokenize(batch["text"])]
    batches.close()
    assert {text.split()[0] for text in texts} == {"threads=1"}
    assert os.getpid() not in {int(text.split("=")[-1]) for text in texts}
    assert torch.equal(before, torch.get_rng_state())
    assert os.environ.get("TOKENIZERS_PARALLELISM") == "false"  # as conftest sets it


def untokenize(tokens: torch.Tensor) -> list[str]:
    return ["".join(map(chr, row)).strip() for row in tokens.tolist()]


class Probe(Mixed):
    """Tells about the process in which it is read."""

    def __getitem__(self, index: int) -> Sample:
        return Sample(str(index), None, (f"threads={torch.get_num_threads()} pid={os.getpid()}",))


class Broken(Mixed):
    """A source with an error that the user can mend."""

    def __getitem__(self, index: int) -> Sample:
        raise UserError("The shard went away: mount it again.")


class Deadly(Mixed):
    """A source that kills its process, as running out of memory does."""

    def __getitem__(self, index: int) -> Sample:
        os.kill(os.getpid(), 9)
        raise AssertionError


@pytest.mark.parametrize("workers", [0, 1])
def test_a_users_error_arrives_as_it_was_written(workers):
    batches = make(Broken(), workers=workers)
    with pytest.raises(UserError) as caught:
        next(batches.start())
    assert str(caught.value) == "The shard went away: mount it again."
    batches.close()


def test_many_pieces_need_few_file_handles(monkeypatch):
    """A batch of 300 pieces under a limit of 200 open files."""
    monkeypatch.setattr("vislang.data.crew.PIECE", 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    batches = make(Many(), batch_size=300, workers=1, augment="none", needs=("image", "text"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        batch = next(batches.start())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        batches.close()
    assert len(batch["id"]) + len(batch["rejected"]) == 300


class Many(Mixed):
    """As Mixed, over and over."""

    def __len__(self) -> int:
        return 300

    def __getitem__(self, index: int) -> Sample:
        return super().__getitem__(index % 30)


def test_a_killed_worker_is_explained():
    batches = make(Deadly(), workers=1)
    with pytest.raises(UserError, match=r"A loader process died: .*fewer data\.workers"):
        next(batches.start())
    batches.close()


def test_a_newer_start_ends_the_older_one():
    batches = make(workers=1)
    old, new = batches.start(), batches.start(1)
    with pytest.raises(RuntimeError, match="started again or closed"):
        next(old)
    same(next(new), next(make().start(1)))
    batches.close()
    with pytest.raises(RuntimeError, match="started again or closed"):
        next(new)


def test_batches_of_every_kind_can_be_pickled():
    """For machines whose workers are spawned, not forked."""
    batches = pickle.loads(pickle.dumps(make()))
    same(next(batches.start()), next(make().start()))


class Images(Mixed):
    name, gives = "photos", frozenset({"image"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"source": Images()},
            "The source 'photos' gives image, but label, text is needed too. Layouts that can give"
            " image, label, text: digits, ",
        ),
        (
            {"batch_size": 31},
            "A batch of 31 is larger than the source 'mixed' with its 30 samples: use a batch_size"
            " of at most 30.",
        ),
        (
            {"batch_size": 8, "world": 3},
            "The global batch of 8 does not divide by 3 processes: use 6 or another multiple of 3.",
        ),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0."),
        ({"workers": -1}, "workers must be 0 or more, got -1."),
        (
            {"caption": "frist"},
            "caption must be one of random, first, all, got 'frist'. Did you mean 'first'?",
        ),
        ({"needs": ("image", "sound")}, "A batch cannot hold sound. Known: image, image_2 ..."),
        ({"tokenizer": None}, "Batches with text need a tokenizer: give that of the text tower."),
        ({"image": None}, "Batches with images need the image tower's Preprocess (image=...)."),
    ],
)
def test_impossible_batches_are_refused_before_the_first_one(options, message):
    with pytest.raises(UserError) as caught:
        make(**options)
    assert str(caught.value).startswith(message)


def test_a_source_smaller_than_a_batch_can_be_evaluated():
    batches = make(batch_size=64, drop_last=False, shuffle=False)
    assert len(batches) == len(list(batches)) == 1


def test_digits_make_batches():
    batches = Batches(
        open_source("digits:test"), 100, needs=("image", "text", "label"), image=SMALL,
        tokenizer=tokenize, augment="clip",
    )  # fmt: skip
    assert len(batches) == 5
    counts = np.zeros(10, int)
    for batch in batches.start():
        assert not batch["rejected"]
        counts += np.bincount(batch["label"], minlength=10)
    assert counts.sum() == 500 and counts.min() >= 48
