"""Tokenizers: ids, cutting, padding, pickling."""

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vislang.errors import UserError
from vislang.models.clip_bpe import ClipTokenizer, clean
from vislang.models.tokenizers import ByteTokenizer, build_tokenizer, trim

WORDS = {  # a small vocabulary in the format of the tokenizers library
    "version": "1.0",
    "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
    "padding": None,
    "added_tokens": [
        {"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for i, t in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]"])
    ],
    "normalizer": {"type": "Lowercase"},
    "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                   {"Sequence": {"id": "A", "type_id": 0}},
                   {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {t: {"id": t, "ids": [i], "tokens": [t]}
                           for i, t in [(1, "[CLS]"), (2, "[SEP]")]},
    },
    "decoder": None,
    "model": {"type": "WordLevel", "unk_token": "[UNK]",
              "vocab": {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3,
                        "a": 4, "cat": 5, "and": 6, "dog": 7}},
}  # fmt: skip


@pytest.fixture
def word_file(tmp_path):
    import json

    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(WORDS))
    return path


@given(st.lists(st.text(max_size=40), min_size=1, max_size=4), st.integers(3, 60))
def test_bytes_keep_start_end_and_whole_characters(texts, context):
    tokenizer = ByteTokenizer(context)
    rows = tokenizer(texts)
    assert rows.shape == (len(texts), context)
    assert rows.dtype == torch.int64
    for row, text in zip(rows.tolist(), texts):
        end = row.index(tokenizer.end)
        assert row[0] == tokenizer.start
        assert set(row[end + 1 :]) <= {tokenizer.pad}
        read = bytes(i - 1 for i in row[1:end]).decode("utf-8")  # never half a character
        whole = text.encode("utf-8", errors="replace").decode()
        assert whole.startswith(read)
        if len(whole.encode()) <= context - 2:
            assert read == whole
        else:
            assert len(read.encode()) > context - 2 - 4


def test_bytes_are_all_different():
    rows = ByteTokenizer(6)(["\x00", "\x01", "\x7f"])
    assert len({tuple(row) for row in rows.tolist()}) == 3


def test_clip_ids():
    """Ids of CLIP's vocabulary, as every CLIP uses them."""
    rows = ClipTokenizer(10)(["a photo of a cat", "Hello &amp; hello", "", "wow " * 20])
    assert rows.tolist() == [
        [49406, 320, 1125, 539, 320, 2368, 49407, 0, 0, 0],
        [49406, 3306, 261, 3306, 49407, 0, 0, 0, 0, 0],
        [49406, 49407, 0, 0, 0, 0, 0, 0, 0, 0],
        [49406, *[2781] * 8, 49407],  # cut, but the end token stays
    ]


def test_clean_mends_what_is_not_plain():
    assert clean("  a\t b\n") == "a b"
    assert clean("caf&eacute; âœ” “x”") == 'café ✔ "x"'


def test_file_tokenizer_cuts_to_its_own_context(word_file):
    tokenizer = build_tokenizer(f"file:{word_file}", 6)
    rows = tokenizer(["A cat and", "dog a cat and a dog", "zebra"])
    assert rows.tolist() == [[1, 4, 5, 6, 2, 0], [1, 7, 4, 5, 6, 2], [1, 3, 2, 0, 0, 0]]
    assert (tokenizer.pad, tokenizer.vocab, tokenizer.context) == (0, 8, 6)


def test_file_tokenizer_travels_with_its_notes(word_file, tmp_path):
    first = build_tokenizer(f"file:{word_file}?pad=3&cleaning=canonicalize&hide=2", 6)
    place = tmp_path / "elsewhere"
    place.mkdir()
    for name, content in first.files().items():
        (place / name).write_bytes(content)
    second = build_tokenizer(first.portable.replace("{here}", str(place)), 6)
    texts = ["A cat, and: a_dog!"]
    assert second(texts).tolist() == first(texts).tolist() == [[1, 4, 5, 6, 4, 0]]
    assert second(["a"]).tolist() == [[1, 4, 0, 3, 3, 3]]


@pytest.mark.parametrize("spec", ["bytes", "clip", "file"])
def test_promises_of_every_tokenizer(spec, word_file):
    tokenizer = build_tokenizer(f"file:{word_file}" if spec == "file" else spec, 12)
    texts = ["a cat", "a dog and a cat, a dog and a cat, a dog and a cat", "", "naïve 漢字 🙂"]
    rows = tokenizer(texts)
    assert rows.shape == (4, 12)
    assert rows.dtype == torch.int64
    assert rows.min() >= 0
    assert rows.max() < tokenizer.vocab
    assert torch.equal(tokenizer("a cat"), rows[:1])  # one text alone
    for text, row in zip(texts, rows):  # a row does not depend on its neighbours
        assert torch.equal(tokenizer([text])[0], row)
    assert tokenizer([]).shape == (0, 12)
    data = pickle.dumps(tokenizer)
    assert torch.equal(pickle.loads(data)(texts), rows)
    assert len(data) < 5000 or spec == "file"


@given(st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=4))
def test_trim_leaves_out_only_padding(rows):
    tokens = torch.tensor(rows)
    short = trim(tokens, 0)
    assert short.shape[1] >= 1
    assert torch.equal(tokens[:, : short.shape[1]], short)
    assert tokens[:, short.shape[1] :].count_nonzero() == 0
    assert short.shape[1] == 1 or short[:, -1].count_nonzero() > 0


@pytest.mark.parametrize(
    ("spec", "context", "message"),
    [
        ("clipp", 77, "No tokenizer is called 'clipp'. Did you mean 'clip'"),
        ("os:system", 77, "No tokenizer is called 'os'"),
        ("bytes:x", 77, "takes no argument"),
        ("clip", 2, "at least 3 tokens"),
        ("file:/nowhere/tokenizer.json", 77, "Cannot read the tokenizer"),
        ("file:", 77, "Cannot read the tokenizer"),
    ],
)
def test_wrong_tokenizers_are_named(spec, context, message):
    with pytest.raises(UserError, match=message):
        build_tokenizer(spec, context)


def test_a_file_that_is_no_tokenizer_is_named(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text('{"model": 3}')
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        build_tokenizer(f"file:{path}", 8)
