"""Batches: the same for every restart and number of processes; bad samples are rows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mixed import SMALL, Mixed, make, tokenize
from vislang.data.batches import Batches
from vislang.data.decode import Limits
from vislang.data.order import batch_indices
from vislang.data.sample import Rejected
from vislang.data.sources import open_source
from vislang.errors import UserError


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
    plain = next(make(augment="none", needs=("image",)).over([0, 1, 2]))
    assert torch.equal(mixed["image"], plain["image"])
    assert not torch.equal(mixed["image_2"], plain["image"])


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
