"""The store of images x domains: every pair is found again, whatever the parts."""

from itertools import pairwise

import numpy as np
import pytest

from vislang.errors import UserError
from vislang.store import DomainStore, DomainWriter, open_store

T, N, D = 3, 7, 5
DOMAINS = [
    {"name": "noop", "templates": ["a photo of a {}"]},
    {"name": "blur", "templates": ["a blurry photo of a {}", "a foggy photo of a {}"]},
    {"name": "tilt", "templates": ["a tilted photo of a {}"]},
]
WORDS = [["cat"], ["dog", "hound"]]


@pytest.fixture
def rows():
    return np.random.default_rng(0).standard_normal((T, N, D)).astype(np.float32)


def write(folder, rows, cuts=(0, 4, 4, 7), missing=(), **options):
    """A store in parts that end at `cuts`, one of them empty."""
    writer = DomainWriter(folder, DOMAINS)
    notes = []
    for number, (begin, end) in enumerate(pairwise(cuts)):
        gaps = [(i - begin, d, why) for i, d, why in missing if begin <= i < end]
        notes.append(writer.write_images(
            f"{number:04d}", rows[:, begin:end], [f"i{k}" for k in range(begin, end)],
            [k % 2 for k in range(begin, end)], range(begin, end), gaps,
        ))  # fmt: skip
    texts = sorted({t.replace("{}", w) for d in DOMAINS for t in d["templates"]
                    for some in WORDS for w in some})  # fmt: skip
    vectors = np.random.default_rng(1).standard_normal((len(texts), D)).astype(np.float32)
    half = len(texts) // 2
    prompts = [writer.write_prompts("0000", texts[:half], vectors[:half]),
               writer.write_prompts("0001", texts[half:], vectors[half:])]  # fmt: skip
    writer.finish(notes, prompts, classes=["cat", "dog"], words=WORDS, **options)
    return dict(zip(texts, vectors))


def test_every_pair_is_where_it_should_be(tmp_path, rows):
    write(tmp_path / "s", rows)
    store = DomainStore(tmp_path / "s")
    assert (len(store), store.width, store.domains) == (N, D, ("noop", "blur", "tilt"))
    assert store.ids == [f"i{k}" for k in range(N)]
    assert store.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
    for d, name in enumerate(store.domains):
        found = store.rows(name)
        np.testing.assert_array_equal(np.asarray(found), rows[d])
        np.testing.assert_array_equal(found[2:6], rows[d, 2:6])
        np.testing.assert_array_equal(found[[6, 0, -1]], rows[d, [6, 0, 6]])
        np.testing.assert_array_equal(found[1], rows[d, 1])
        for first, block in found.blocks(3):
            np.testing.assert_array_equal(block, rows[d, first : first + len(block)])
    seen = np.zeros((T, N, D), np.float32)
    for domain, first, block in store.stream(3):
        assert len(block) <= 3 and not seen[domain, first : first + len(block)].any()
        seen[domain, first : first + len(block)] = block
    np.testing.assert_array_equal(seen, rows)
    draw = np.random.default_rng(2)
    image, domain = draw.integers(0, N, 50), draw.integers(0, T, 50)
    np.testing.assert_array_equal(store.take(image, domain), rows[domain, image])
    with pytest.raises(IndexError, match=r"0\.\.6"):
        store.take([7], [0])


def test_prompts_are_means_of_unit_vectors_over_words_and_templates(tmp_path, rows):
    official = {"templates": ["a {}", "a photo of a {}"], "names": ["cat", "dog"]}
    text = write(tmp_path / "s", rows, official=official)
    store = DomainStore(tmp_path / "s")
    unit = lambda v: v / np.linalg.norm(v, axis=-1, keepdims=True)  # noqa: E731
    texts = [f"a {kind} photo of a {word}" for word in ("dog", "hound")
             for kind in ("blurry", "foggy")]  # fmt: skip
    given = np.array([text[t] for t in texts], np.float64)
    np.testing.assert_allclose(store.prompts("own", "blur")[1], unit(unit(given).mean(0)))
    np.testing.assert_allclose(store.prompts("own", "blur", raw=True)[1], given.mean(0))
    np.testing.assert_array_equal(store.prompts("standard", "blur"), store.prompts("own", "noop"))
    with pytest.raises(UserError, match="no embedding of the prompt 'a cat'"):
        store.prompts("official")
    with pytest.raises(UserError, match="Did you mean 'blur'"):
        store.prompts("own", "blurr")
    with pytest.raises(UserError, match="standard, own, official"):
        store.prompts("best")


def test_missing_pairs_are_counted_and_zero(tmp_path, rows):
    gaps = [(5, 1, "too small"), (0, 2, "crash"), (0, 1, "crash")]
    write(tmp_path / "s", rows, missing=gaps)
    store = DomainStore(tmp_path / "s")
    assert store.missing == [(0, "blur", "crash"), (0, "tilt", "crash"), (5, "blur", "too small")]
    assert np.flatnonzero(~store.complete).tolist() == [0, 5]
    assert np.flatnonzero(~store.present("tilt")).tolist() == [0]
    assert not store.take([5], [1]).any()
    assert store.take([5], [0]).any()


def test_it_is_a_store_of_the_usual_layout(tmp_path, rows):
    write(tmp_path / "s", rows)
    store = open_store(tmp_path / "s")
    assert len(store) == T * N
    store.verify()
    assert store.metadata["domain"].to_pylist()[:8] == ["noop"] * 4 + ["blur"] * 4
    with pytest.raises(UserError, match="not one of images under domains"):
        DomainStore(tmp_path / "s" / "prompts")


def test_without_classes_there_are_no_prompts(tmp_path, rows):
    writer = DomainWriter(tmp_path / "s", DOMAINS)
    note = writer.write_images("0000", rows, [str(k) for k in range(N)], [-1] * N, range(N))
    store = writer.finish([note])
    assert store.classes == ()
    with pytest.raises(UserError, match="no classes"):
        store.prompts()
