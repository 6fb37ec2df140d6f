"""Mixtures: exact shares of every epoch, labels that do not collide, errors that name the part."""

import copy
import pickle
import re
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layouts import CAPTIONS, add_csv, add_files, classes, message, picture
from mixed import SMALL, same, tokenize
from vislang.data.batches import Batches
from vislang.data.sources import SOURCES, open_source


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return str(add_files(tmp_path_factory.mktemp("folder") / "animals", classes()))


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    """Six captioned pictures, no classes."""
    root = tmp_path_factory.mktemp("table")
    add_files(root / "images", {f"{i}.jpg": picture(i) for i in range(6)})
    rows = [[f"images/{i}.jpg", CAPTIONS[i]] for i in range(6)]
    return str(add_csv(root / "captioned.csv", [["image", "caption"], *rows]))


def mix(*parts, **options):
    return open_source("mix", parts=list(parts), **options)


def labelled(folder: str, weight: float | None = None) -> dict:
    weights = {} if weight is None else {"weight": weight}
    return {"source": f"folder:{folder}", "options": {"template": "a {}"}, **weights}


def test_labels_of_parts_do_not_collide(folder, table):
    """A captioned part has no classes: it takes none of the numbers (the original's defect)."""
    source = mix(table, labelled(folder), "digits:test")
    assert source.classes[:2] == ("cat", "great auk") and source.classes[2:] == (
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    )  # fmt: skip
    assert len(source) == 6 + 6 + 500
    digits = open_source("digits:test")
    for index in range(6):
        assert source[index].labels == () and source[index].texts == (CAPTIONS[index],)
        assert source[6 + index].labels == (index // 3,)
        assert source[12 + index].labels == (2 + digits[index].labels[0],)
        assert source[12 + index].texts == digits[index].texts
    assert source.gives == {"image", "text", "label"} and source.partly_labelled
    assert source[0].id.startswith("captioned/") and source[12].id.startswith("digits-test/")


def test_classes_of_one_name_may_be_one_class():
    apart = mix("digits:test", "digits:train")
    assert len(apart.classes) == len(set(apart.classes)) == 20
    assert (apart.classes[0], apart.classes[10]) == ("zero (digits-test)", "zero (digits-train)")
    joined = mix("digits:test", "digits:train", same_classes=True)
    assert len(joined.classes) == 10 and joined.fingerprint != apart.fingerprint
    train = open_source("digits:train")
    for index in range(40):
        label = train[index].labels[0]
        assert apart[500 + index].labels == (10 + label,)
        assert joined[500 + index].labels == (label,)


def test_rows_without_a_class_have_label_minus_one_and_stay(folder, table):
    """As UniCL wants them: pairs beside classes."""
    batches = Batches(
        mix(table, labelled(folder)), 12, needs=("image", "text", "label"), image=SMALL,
        tokenizer=tokenize,
    )  # fmt: skip
    batch = next(batches.start())
    assert not batch["rejected"] and len(batch["id"]) == 12
    for index, label in zip(batch["index"].tolist(), batch["label"].tolist()):
        assert label == (-1 if index < 6 else (index - 6) // 3)


def test_a_source_with_classes_still_rejects_a_sample_without(folder):
    """The exception is for mixtures with parts that have no classes, and for them alone."""
    assert not mix(labelled(folder), "digits:test").partly_labelled


@lru_cache
def both_digits():
    return open_source("mix", parts={"digits:test": 2, "digits:train": 3})


def test_weights_become_shares():
    assert both_digits().shares == ((500, 2.0), (1297, 3.0))


@given(
    weights=st.tuples(st.integers(1, 9), st.integers(1, 9)), episode=st.integers(0, 300),
    epoch=st.integers(0, 4), replace=st.booleans(),
)  # fmt: skip
def test_shares_of_an_epoch_are_exact(weights, episode, epoch, replace):
    if episode and episode * min(weights) < sum(weights):
        return
    source = copy.copy(both_digits())
    source.shares = ((500, weights[0]), (1297, weights[1]))
    batches = Batches(
        source, 1, needs=("text",), tokenizer=tokenize, episode=episode, episode_replace=replace
    )
    told = batches.episode_indices(epoch)
    size = episode or 1797
    assert len(told) == size == batches.samples
    exact = size * weights[0] / sum(weights)
    assert abs((told < 500).sum() - exact) <= 0.5 + 1e-9  # of two parts the nearest
    for begin, end in ((0, 500), (500, 1797)):
        often = np.bincount(told[(told >= begin) & (told < end)] - begin, minlength=end - begin)
        if not replace:  # as even as can be, however often a small part comes round
            assert often.max() - often.min() <= 1


def test_every_sample_of_a_part_has_its_turn():
    """Over epochs that take a tenth of the part each."""
    source = open_source("mix", parts={"digits:test": 1, "digits:train": 9})
    batches = Batches(source, 10, needs=("text",), tokenizer=tokenize, episode=500)
    seen = np.concatenate([batches.episode_indices(epoch) for epoch in range(10)])
    assert np.bincount(seen[seen < 500], minlength=500).tolist() == [1] * 500
    assert len({tuple(sorted(batches.episode_indices(e))) for e in range(4)}) == 4


def test_parts_are_shuffled_together():
    source = open_source("mix", parts={"digits:test": 1, "digits:train": 1})
    told = Batches(source, 8, needs=("text",), tokenizer=tokenize).episode_indices(0)
    first = (told < 500).reshape(-1, 599).mean(1)  # three thirds of the epoch
    assert abs(first - 0.5).max() < 0.1


def test_without_weights_every_sample_is_visited_once(folder, table):
    told = Batches(mix(table, labelled(folder)), 4, needs=("image",), image=SMALL)
    assert sorted(told.episode_indices(0).tolist()) == list(range(12))
    assert told.episode_indices(0).tolist() != told.episode_indices(1).tolist()


def test_an_evaluation_reads_everything_once(folder, table):
    source = mix({"source": table, "weight": 9}, labelled(folder, 1))
    batches = Batches(source, 5, needs=("image",), image=SMALL, shuffle=False, drop_last=False)
    assert [i for batch in batches for i in batch["index"].tolist()] == list(range(12))


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_and_workers_see_one_mixture(folder, table, workers):
    """A small part comes round several times an epoch, each time with its own view."""
    source = mix({"source": table, "weight": 5}, labelled(folder, 1))
    options = {"needs": ("image", "text", "label"), "image": SMALL, "tokenizer": tokenize,
               "augment": "simclr", "episode": 36}  # fmt: skip
    one = list(Batches(source, 12, **options).start(2))
    ranks = [Batches(source, 12, rank=r, world=2, workers=workers, **options) for r in range(2)]
    for batch, *parts in zip(one, *(rank.start(2) for rank in ranks), strict=True):
        for key in ("image", "text", "label", "index"):
            assert torch.equal(torch.cat([part[key] for part in parts]), batch[key])
    for rank in ranks:
        rank.close()
    seen = [i for batch in one for i in batch["index"].tolist()]
    assert np.bincount(seen, minlength=12).tolist() == [5] * 6 + [1] * 6
    views = [v for b in one for i, v in zip(b["index"].tolist(), b["image"]) if i == 0]
    assert len({view.numpy().tobytes() for view in views}) == 5
    alone = Batches(source, 12, **options)
    for left, right in zip(alone.start(2, 1), one[1:], strict=True):
        same(left, right)


def test_the_fingerprint_is_of_the_parts(folder, table, tmp_path):
    before = mix(table, labelled(folder)).fingerprint
    assert before == mix({"source": table, "weight": 2}, labelled(folder, 1)).fingerprint
    assert before != mix(labelled(folder), table).fingerprint
    assert before != mix(table, f"folder:{folder}").fingerprint  # other captions


def test_a_mapping_of_specs_to_weights(folder, table):
    source = open_source("mix:pets", parts={table: 2.0, f"folder:{folder}": 1})
    assert source.shares == ((6, 2.0), (6, 1.0)) and source.name == "pets"
    assert source.gives == {"image", "label"}  # the folder has no captions without a template
    assert open_source("mix", parts=[table, table]).name == "mix-captioned-1-captioned-2"


def test_a_damaged_sample_says_of_which_part_it_is(table, tmp_path):
    rows = [["0.jpg", 0, "a"], ["0.jpg", 1, "b"], ["1.jpg", 0]]
    add_files(tmp_path / "images", {"0.jpg": picture(0)})
    damaged = str(add_csv(tmp_path / "c.csv", [["image", "caption_id", "caption"], *rows]))
    batch = next(Batches(mix(table, damaged), 1, needs=("text",), tokenizer=tokenize).over([7]))
    assert [row.id for row in batch["rejected"]] == ["c/c.csv:4"]


def test_mistakes_are_explained(folder, table):
    for parts, said in [
        ({}, r"The source 'mix' needs parts: {'flickr:captions.csv': 2,"),
        ("flickr:x", r"got 'flickr:x'"),
        ({table: -1}, r"must be a number above 0, got -1\. Leave a part out"),
        ({table: "two"}, r"must be a number above 0, got 'two'"),
        ([{"source": table, "weight": 1}, f"folder:{folder}"], r"above 0, got None"),
        ([{"source": table, "wieght": 1}], r"no 'wieght'\. Did you mean 'weight'\?"),
        ([{"weight": 1}], r"A part of a mixture is a spec or {source: spec"),
        ([{"source": table, "options": 3}], r"The options of the part .* must be a mapping"),
        ([{"source": table, "options": {"captoin": "x"}}], r"Did you mean 'caption'\?"),
        ({"foldr:x": 1}, r"No source is called 'foldr'\. Did you mean 'folder'\?"),
        ({folder + "s": 1}, r"does not exist.*Did you mean 'animals'\?"),
    ]:
        assert re.search(said, message("mix", parts=parts)), said


def test_a_part_that_would_never_be_seen_is_refused(table):
    source = open_source("mix", parts={"digits:test": 1000, table: 1})
    with pytest.raises(
        Exception, match=r"The part 'captioned' of the mixture has 0\.001 of the we"
    ):
        Batches(source, 4, needs=("text",), tokenizer=tokenize, episode=100)


def test_what_a_part_lacks_is_said_with_its_name(folder, table):
    with pytest.raises(Exception, match=r"text is needed too\. Of its parts, animals lacks it\."):
        Batches(mix(table, f"folder:{folder}"), 4, needs=("image", "text"), image=SMALL)


class Neighbours:
    """Pairs: the partner of digit i is digit i + 1."""

    name, gives, fingerprint = "neighbours", frozenset({"image", "text", "label"}), "n"

    def __init__(self, path: str = ""):
        self.digits = open_source("digits:test")
        self.classes = self.digits.classes

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int):
        return self.digits[index]

    def partner(self, index: int, rng):
        return self.digits[index + 1]


def test_pairs_are_mixed_with_pairs_alone(monkeypatch, table):
    monkeypatch.setitem(SOURCES, "neighbours", f"{__name__}:Neighbours")
    source = pickle.loads(pickle.dumps(mix("neighbours", "neighbours")))
    batches = Batches(source, 4, needs=("image", "image_2", "label"), image=SMALL, augment="none")
    batch = next(batches.over([3, 4, 23, 24]))
    assert torch.equal(batch["image_2"][[0, 2]], batch["image"][[1, 3]])
    assert batch["label"][2] == 10 + batch["label"][0]
    assert source.partner(25, np.random.default_rng(0)).id == source[26].id
    said = message("mix", parts=[table, "neighbours"])
    assert "'neighbours' is a source of pairs and 'captioned' is not" in said
    assert not hasattr(mix(table, table), "partner")


class Numbered:
    """Labels without names: nobody knows how many classes there are."""

    name, gives, classes, fingerprint = "numbered", frozenset({"image", "label"}), (), "n"

    def __init__(self, path: str = ""):
        self.path = path

    def __len__(self) -> int:
        return 3


def test_labels_without_names_cannot_be_joined(monkeypatch):
    monkeypatch.setitem(SOURCES, "numbered", f"{__name__}:Numbered")
    said = message("mix", parts=["numbered", "digits:test"])
    assert re.search(r"The part 'numbered' of the mixture has labels but no class names", said)
