"""A tokenizer of one's own: vocabulary, inert special names, round trip, where its file is read."""

import json
import os
import subprocess
import sys
import unicodedata

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from vislang.cli import main as cli
from vislang.curate.tokenizer import (
    END,
    PAD,
    START,
    BpeRules,
    Captions,
    learn_bpe,
    make_tokenizer,
)
from vislang.data.sample import BadSample, Sample
from vislang.data.sources import open_source
from vislang.errors import UserError
from vislang.models.file_tokenizer import FileTokenizer
from vislang.models.tokenizers import build_tokenizer

SAID = "a the dog cat boat runs sleeps on under red green water tree Größe ÉCOLE 犬"
WORDS = SAID.split()
WORDS += [
    a + b + c for a in ("stra", "klo", "vim") for b in ("ber", "tun") for c in ("ga", "led", "s")
]
CAPTIONS = [f"{a} {b} {c}" for a in WORDS for b in WORDS for c in (WORDS[0], WORDS[9])]
NAMES = [PAD, START, END, "[EOS]", "<end>", "[SEP]", "<|endoftext|>", "</s>", "[PAD]"]
KEEP = BpeRules(350, case="keep", unicode="keep", spaces="keep")
MADE = {rules: learn_bpe([CAPTIONS], rules) for rules in (BpeRules(350), KEEP)}


def table(folder, captions=CAPTIONS, name="pairs.csv"):
    (folder / name).write_text("\n".join(["caption", *captions]) + "\n", encoding="utf-8")
    return open_source(f"table:{folder / name}")


def stated(text: str) -> str:
    """What the default rules make of a text, by Python's own means."""
    return " ".join(unicodedata.normalize("NFC", text).lower().split())


@pytest.mark.parametrize("vocab", [259, 300, 340])
def test_the_vocabulary_is_of_the_size_asked_for(vocab):
    made = FileTokenizer(learn_bpe([CAPTIONS], BpeRules(vocab)), 16)
    assert made.vocab == vocab
    assert made.tokenizer.token_to_id(PAD) == made.pad == 0
    assert made.tokenizer.token_to_id(START) == vocab - 2
    assert made.tokenizer.token_to_id(END) == made.end == vocab - 1
    ids = set(made(CAPTIONS).flatten().tolist())
    assert max(ids) == vocab - 1


def test_a_pair_that_is_too_rare_becomes_no_token(tmp_path):
    few = ["boat boat boat", "dog"]
    vocab = json.loads(learn_bpe([few], BpeRules(600, min_count=2)))["model"]["vocab"]
    assert "Ġboat" in vocab and "Ġdog" not in vocab
    assert "Ġdog" in json.loads(learn_bpe([few], BpeRules(600, min_count=1)))["model"]["vocab"]


@given(st.text(max_size=60))
@example("İstanbul ǅ ﬁ")
@example(" \t ")
def test_decoding_brings_back_the_text_as_it_is(text):
    made = FileTokenizer(MADE[KEEP], 400)
    assert made.decode(made([text]).tolist()) == [text]


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Zl", "Zp"]), max_size=60)
)
def test_decoding_brings_back_the_text_up_to_the_stated_normalisation(text):
    made = FileTokenizer(MADE[BpeRules(350)], 400)
    assert made.decode(made([text]).tolist()) == [made.tokenizer.normalizer.normalize_str(text)[1:]]


@given(st.lists(st.sampled_from([*WORDS, "e\u0301", "Ä", "A\u0308", " ", "\n", "  "]), max_size=8))
def test_the_stated_normalisation_is_that_of_unicode(words):
    made = FileTokenizer(MADE[BpeRules(350)], 400)
    text = "".join(words)
    assert made.decode(made([text]).tolist()) == [stated(text)]


def test_case_and_unicode_options():
    def decoded(rules, text):
        made = FileTokenizer(learn_bpe([CAPTIONS], rules), 40)
        return made.decode(made([text]).tolist())[0]

    text = "A ﬁsh  e\u0301"
    assert decoded(BpeRules(300), text) == "a ﬁsh é"
    assert decoded(BpeRules(300, unicode="nfkc"), text) == "a fish é"
    assert decoded(BpeRules(300, case="keep", unicode="keep"), text) == "A ﬁsh e\u0301"
    assert decoded(BpeRules(300, spaces="keep"), text) == "a ﬁsh  é"


@given(st.text(st.sampled_from(" aA.é\t\n\x1c\x85~"), max_size=12) | st.text(max_size=20))
def test_what_is_learned_from_is_what_the_file_makes_of_a_text(text):
    from vislang.curate.tokenizer import _normalised, _normalizer

    for rules in (BpeRules(), KEEP):
        file = _normalizer(rules)
        assert list(_normalised([[text]], rules, file)) == [[file.normalize_str(text)]]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_special_tokens_in_captions_are_ordinary_text(name):
    """Also where the captions learned from are full of them."""
    made = FileTokenizer(learn_bpe([[f"dog {name} cat", name] * 50], BpeRules(380)), 64)
    text = f"a {name} dog{name}"
    row = made([text])[0].tolist()
    assert (row.count(made.end), row.count(made.end - 1)) == (1, 1)
    assert made.pad not in row[: row.index(made.end)]
    assert made.decode([row]) == [text.lower()]


@pytest.mark.parametrize("name", NAMES)
def test_they_are_inert_for_the_library_and_for_transformers(name, tmp_path):
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    make_tokenizer(table(tmp_path), tmp_path / "bpe", BpeRules(350))
    ours = build_tokenizer(f"file:{tmp_path / 'bpe/tokenizer.json'}", 64)
    texts = [f"A {name} dog", "the cat"]
    theirs = AutoTokenizer.from_pretrained(tmp_path / "bpe")
    rows = theirs(texts, padding="max_length", max_length=64, truncation=True).input_ids
    assert rows == ours(texts).tolist()
    assert theirs.batch_decode(rows, skip_special_tokens=True)[1] == "the cat"
    assert Tokenizer.from_str(ours.source).encode(texts[0]).ids.count(ours.end) == 1


def test_cutting_keeps_the_end_token_and_equal_rows_are_equal():
    made = FileTokenizer(MADE[BpeRules(350)], 6)
    rows = made(["the dog " * 20, "A DOG", "a  dog"])
    assert rows.shape == (3, 6)
    assert rows[0, -1] == made.end
    assert torch.equal(rows[1], rows[2])


def test_bad_captions_are_read_all_the_same():
    """Control characters, right to left, a megabyte, half a surrogate pair, an empty one."""
    hostile = ["a\x00\x07b \u202eabc", "שלום עולם", "x" * 1_000_000, "lone \ud83d here", ""]
    captions = Captions(Many(5, lambda index: hostile[index]))
    made = FileTokenizer(learn_bpe(captions, BpeRules(300)), 14)
    assert captions.count == 5
    assert made(hostile).shape == (5, 14)
    assert made.decode(made(["lone \ud83d here"]).tolist()) == ["lone ? here"]


class Many:
    """A source of any number of captions that are made when they are asked for."""

    gives, name, fingerprint = frozenset({"text"}), "many", "x"

    def __init__(self, n, caption):
        self.n, self.caption = n, caption

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if index % 1000 == 999:
            raise BadSample(str(index), "torn")
        return Sample(str(index), None, (self.caption(index),))


def test_the_same_captions_give_the_same_bytes_in_another_process(tmp_path):
    make_tokenizer(table(tmp_path), tmp_path / "first", BpeRules(350))
    program = (
        "import sys; from vislang.cli.main import main;"
        f"sys.exit(main(['curate', 'tokenizer', 'table:{tmp_path}/pairs.csv',"
        f" '--vocab', '350', '--out', '{tmp_path}/second']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True,
        env=os.environ | {"PYTHONHASHSEED": "7", "TOKENIZERS_PARALLELISM": "true"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = (tmp_path / name / "tokenizer.json" for name in ("first", "second"))
    assert one.read_bytes() == two.read_bytes()


def test_memory_is_that_of_the_words_and_not_of_the_captions():
    """Ten times the captions of the same words: the traced peak of Python stays, and one batch."""
    import tracemalloc

    def peak(n):
        captions = Captions(Many(n, lambda i: f"{CAPTIONS[i % 2000]} {i}"), most=1000)
        tracemalloc.start()
        count = sum(len(batch) for batch in captions)
        high = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == captions.count == n - n // 1000
        assert captions.rejected == n // 1000
        assert 500 <= len(captions.drawn) <= 1000
        return high

    assert peak(40_000) < 1.3 * peak(8_000)


def test_the_command_makes_it_once_and_refuses_another(tmp_path, capsys):
    table(tmp_path)
    call = ["curate", "tokenizer", f"table:{tmp_path}/pairs.csv", "--out", str(tmp_path / "bpe")]
    assert cli.main([*call, "--vocab", "320"]) == 0
    said = capsys.readouterr().out
    assert "320 ids from 2,312 captions" in said and "tokens" in said
    before = (tmp_path / "bpe/tokenizer.json").stat().st_mtime_ns
    assert cli.main([*call, "--vocab", "320"]) == 0
    assert (tmp_path / "bpe/tokenizer.json").stat().st_mtime_ns == before
    assert cli.main([*call, "--vocab", "321"]) == 2
    assert "other settings" in capsys.readouterr().err
    assert cli.main([*call[:-1], str(tmp_path / "more"), "--vocab", "9000"]) == 0
    assert "no more pairs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [({"vocab": 258}, "at least 259"), ({"case": "upper"}, "one of lower, keep"),
     ({"unicode": "nfd"}, "one of nfc"), ({"min_count": 0}, "at least 1")],
)  # fmt: skip
def test_rules_that_make_no_sense_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        BpeRules(**options)


def test_a_source_without_captions_is_refused(tmp_path):
    source = table(tmp_path)
    source.gives = frozenset({"image", "label"})
    with pytest.raises(UserError, match="learned from captions"):
        make_tokenizer(source, tmp_path / "bpe")
    assert not (tmp_path / "bpe").exists()


def test_a_tower_with_it_goes_to_open_clip_and_back(tmp_path):
    import open_clip

    from vislang.config import ModelConfig, TowerConfig
    from vislang.models.build import build_model
    from vislang.models.pretrained import export_open_clip, load_model, save_model

    make_tokenizer(table(tmp_path), tmp_path / "bpe", BpeRules(350))
    small = {"width": 32, "depth": 2, "heads": 2}
    config = ModelConfig(
        TowerConfig("scratch_vit", small | {"image_size": 16, "patch": 8}),
        TowerConfig(
            "scratch_text",
            small | {"context": 12, "tokenizer": f"file:{tmp_path / 'bpe/tokenizer.json'}"},
        ),
        width=16,
    )
    torch.manual_seed(0)
    model = build_model(config).eval()
    texts = ["a Dog runs", f"the cat {END}{PAD} on water", "犬 " * 30]
    mine = model.side("text")(model.text.tower.prepare(texts))
    export_open_clip(model, tmp_path / "out")
    save_model(model, config, tmp_path / "own")
    (tmp_path / "bpe/tokenizer.json").unlink()  # what is exported needs nothing else
    name = f"local-dir:{tmp_path / 'out'}"
    theirs, _ = open_clip.create_model_from_pretrained(name)
    rows = open_clip.get_tokenizer(name)(texts)
    assert torch.equal(rows, model.text.tower.prepare(texts))
    torch.testing.assert_close(theirs.eval().encode_text(rows), mine, rtol=1e-4, atol=1e-5)
    for spec in (f"open_clip:{name}", str(tmp_path / "own")):
        again = load_model(spec).eval().side("text")
        torch.testing.assert_close(again(again.tower.prepare(texts)), mine, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_flickrs_real_captions(test_data):
    source = open_source(
        f"flickr:{test_data}/flickr8k/captions.csv",
        images=f"{test_data}/flickr8k/images_112.zip",
        split="dev",
    )
    batches = list(Captions(source))
    made = FileTokenizer(learn_bpe(batches, BpeRules(2000)), 60)
    texts = [text for batch in batches for text in batch]
    assert made.vocab == 2000
    assert made.decode(made(texts).tolist()) == [stated(text) for text in texts]
