"""Words and passages: modes, analogies, measures, exact search, odd files, and the real sets."""

import gzip
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import ndcg_score

from vislang.errors import UserError
from vislang.evaluate import passage_search
from vislang.evaluate.passages import Passages, search
from vislang.evaluate.triplets import Triplets, nearer
from vislang.evaluate.words import Words, analogy_scores, read_words
from vislang.metrics.features import unit
from vislang.metrics.retrieved import ndcg, search_measures


def rows_of(texts):
    """An embedding for any text, the same each time."""
    found = []
    for text in texts:
        found.append(
            np.random.default_rng(zlib.crc32(text.encode())).normal(size=8).astype(np.float32)
        )
    return np.stack(found)


@pytest.fixture
def pairs(tmp_path):
    lines = ["cat;dog;3.5", "sun;moon;2", "car;bus;4", "tea;nail;0.1", "ink;pen;3"]
    (tmp_path / "rg65.csv").write_text("\n".join([*lines, "", "no;gold"]) + "\n")
    return tmp_path


def test_the_modes_are_what_they_say(pairs):
    frames = ["a {}.", "the {} here", "one {}"]
    words = Words(modes=("bare", "template", "templates", "rows"), prompts=frames)
    read = words.read(pairs)
    assert len(read.sets[0].gold) == 5 and "2 blank lines" in read.notes[0]
    values = words.score(read, rows_of).values
    left, right, gold = read.sets[0].left, read.sets[0].right, read.sets[0].gold

    def cosine(frame):
        a, b = (unit(rows_of([frame.format(w) for w in side])) for side in (left, right))
        return (a * b).sum(1)

    assert values["rg65_bare"].value == pytest.approx(stats.spearmanr(cosine("{}"), gold)[0])
    every = np.stack([cosine(frame) for frame in frames], 1)  # rows: each template of each pair
    expected = stats.spearmanr(every.ravel(), np.repeat(gold, 3))[0]
    assert values["rg65_rows"].value == pytest.approx(expected)
    assert values["rg65_rows"].n == 5  # pairs, not rows, are independent
    mean = [
        unit(np.mean([unit(rows_of([f.format(w) for w in side])) for f in frames], axis=0))
        for side in (left, right)
    ]
    expected = stats.spearmanr((mean[0] * mean[1]).sum(1), gold)[0]
    assert values["rg65_templates"].value == pytest.approx(expected)


def test_analogies_leave_the_asked_words_out():
    place = {"king": [2, 1], "man": [1.9, 0.2], "woman": [0.2, 1.9], "queen": [0.4, 2.6]}
    questions = [("s", "man", "king", "woman", "queen"), ("s", "king", "man", "queen", "king")]
    total, table = analogy_scores(questions, lambda t: np.array([place[w] for w in t], float))
    assert total.value == 0.5 and table["rows"][0][:3] == ["s", 2, 0.5]


def test_odd_word_files(pairs):
    with pytest.raises(UserError, match="no set 'SimLex'"):
        read_words(pairs, ["SimLex"])
    (pairs / "bad.txt").write_text("a b c d\n")
    with pytest.raises(UserError, match=r"bad.txt, line 1"):
        read_words(pairs)
    with pytest.raises(UserError, match="no mode is called 'bear'"):
        Words(modes=("bear",))


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 12), st.integers(0, 5), st.integers(1, 30), st.integers(1, 9)
)
def test_search_is_exact_whatever_the_block_and_tile(n, k, seed, block, tile):
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-1, 2, (n, 3)).astype(np.float32)  # many ties
    asked = rng.normal(size=(4, 3)).astype(np.float32)
    texts = [(f"p{i}", str(i)) for i in range(n)]
    vectors = unit(vectors)
    rows = lambda t: vectors[[int(x) for x in t]]  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passage_search, "TILE", tile)
        patch.setattr(passage_search, "QUERIES", 3)
        where, names, count = search(asked, iter(texts), rows, block, k)
    score = asked @ vectors.T
    expected = np.argsort(-score, axis=1, kind="stable")[:, :k]
    taken = np.take_along_axis(score, where, axis=1)
    np.testing.assert_allclose(taken, np.take_along_axis(score, expected, axis=1), atol=1e-6)
    assert len(count) == n and all(names[i] == f"p{i}" for i in where.ravel().tolist())
    assert all(len(set(row)) == len(row) for row in where.tolist())


def test_measures_by_hand_and_by_scikit_learn():
    gains = np.array([[0, 2.0, 0, 1], [0, 0, 0, 0]])
    found = search_measures(gains, [[2.0, 1.0, 1.0], [1.0]])
    assert found["mrr@10"].tolist() == [0.5, 0]
    assert found["map@100"].tolist() == [(1 / 2 + 2 / 4) / 3, 0]
    assert found["recall@10"].tolist() == [2 / 3, 0]
    true = np.array([[0, 2.0, 0, 1, 1]])
    expected = ndcg_score(true, np.array([[5.0, 4, 3, 2, 1]]), k=4)
    assert ndcg(gains[0], [2.0, 1.0, 1.0], 4) == pytest.approx(expected)


def beir(root, code="score"):
    (root / "qrels").mkdir(parents=True)
    with gzip.open(root / "corpus.jsonl.gz", "wt") as file:
        for i in range(30):
            file.write(json.dumps({"_id": f"d{i}", "title": "", "text": f"text {i}"}) + "\n")
    (root / "queries.jsonl").write_text("".join(
        json.dumps({"_id": f"q{i}", "text": f"text {i}"}) + "\n" for i in range(4)
    ))  # fmt: skip
    lines = [f"q{i}\td{i}\t1" for i in range(3)] + ["q3\td9\t1", "q9\td1\t1", "q2\td7\t-1"]
    (root / "qrels/test.tsv").write_text(f"query-id\tcorpus-id\t{code}\n" + "\n".join(lines))
    return root


def test_both_layouts_give_the_same_answers(tmp_path):
    first = Passages(block=7)
    read = first.read(beir(tmp_path / "a"))
    scores = first.score(read, rows_of)
    assert scores.values["accuracy@1"].value == 0.75 and scores.n == 4
    assert "1 judged queries have no text" in scores.notes[0]
    marco = tmp_path / "b"
    marco.mkdir()
    (marco / "collection.tsv").write_text("".join(f"{i}\ttext {i}\n" for i in range(30)))
    (marco / "queries.dev.small.tsv").write_text("".join(f"{i}\ttext {i}\n" for i in range(4)))
    (marco / "qrels.dev.small.tsv").write_text("0 0 0 1\n1 0 1 1\n2 0 2 1\n3 0 9 1\n")
    other = Passages().score(Passages().read(marco), rows_of)
    assert {k: v.value for k, v in other.values.items()} == pytest.approx(
        {k: v.value for k, v in scores.values.items()}
    )


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parent / "golden/sbert_evaluators.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.mark.parametrize(("similarity", "theirs"), [("cosine", "cos_sim"), ("dot", "dot_score")])
def test_search_gives_the_numbers_of_sentence_transformers(golden, similarity, theirs, tmp_path):
    sides = {"q": golden["ir_query_emb"], "d": golden["ir_corpus_emb"]}
    for name, rows in (("queries.jsonl", sides["q"]), ("corpus.jsonl", sides["d"])):
        key = name[0] if name[0] == "q" else "d"
        (tmp_path / name).write_text("".join(
            json.dumps({"_id": f"{key}{i}", "text": f"{key} {i}"}) + "\n" for i in range(len(rows))
        ))  # fmt: skip
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(
        f"q{a}\td{b}\t1\n" for a, b in golden["ir_relevant"].tolist()
    ))  # fmt: skip
    passages = Passages(block=13, similarity=similarity)
    read = passages.read(tmp_path)
    values = passages.score(read, lambda t: np.stack([
        sides[text[0]][int(text[2:])] for text in t
    ])).values  # fmt: skip
    assert "ir_" + theirs + "_map@k100" in golden
    for key in [k for k in golden if k.startswith(f"ir_{theirs}_")]:
        ours = key.removeprefix(f"ir_{theirs}_").replace("@k", "@")
        assert values[ours].value == pytest.approx(float(golden[key]), abs=1e-7), key


def test_triplets_are_those_of_sentence_transformers(golden, tmp_path):
    rows = [golden[f"triplet_{name}"] for name in ("anchor", "pos", "neg")]
    body = "".join(f"a {i},b {i},c {i}\n" for i in range(len(rows[0])))
    (tmp_path / "test.csv").write_text("Sentence1,Sentence2,Sentence3\n" + body + "d,,e\n")
    made = Triplets()
    read = made.read(tmp_path)
    found = made.score(read, lambda t: np.stack([rows["abc".index(x[0])][int(x[2:])] for x in t]))
    best = max(v.value for v in found.values.values())  # what they report
    assert best == pytest.approx(float(golden["triplet_main"])) and found.n == 30
    assert "1 triplets with a blank sentence" in read.notes[0]
    assert not nearer(rows[0], rows[1], rows[1])["cosine"].any()  # a tie is no answer
    (tmp_path / "test.csv").write_text("Sentence1,Sentence2,Sentence3\na,b\n")
    with pytest.raises(UserError, match="line 2: expected the cells"):
        made.read(tmp_path)
    (tmp_path / "test.csv").write_text("Sentence1,Sentence2\na,b\n")
    with pytest.raises(UserError, match="no column Sentence3"):
        made.read(tmp_path)


def test_ids_that_stand_twice_are_refused(tmp_path):
    root = beir(tmp_path / "a")
    with (root / "queries.jsonl").open("a") as file:
        file.write(json.dumps({"_id": "q1", "text": "again"}) + "\n")
    with pytest.raises(UserError, match="'q1' stands at two queries"):
        Passages().read(root)
    root = beir(tmp_path / "b")
    with gzip.open(root / "corpus.jsonl.gz", "at") as file:
        file.write(json.dumps({"_id": "d3", "text": "again"}) + "\n")
    passages = Passages(block=7)
    with pytest.raises(UserError, match="'d3' stands at passages 4 and 31"):
        passages.score(passages.read(root), rows_of)


def test_right_passages_that_are_not_there_are_counted(tmp_path):
    root = beir(tmp_path / "a")
    with (root / "qrels/test.tsv").open("a") as file:
        file.write("\nq0\td99\t1\n")
    scores = Passages().score(Passages().read(root), rows_of)
    assert any("1 of 5 right passages are not in the collection" in note for note in scores.notes)


def test_codes_that_are_no_scores_need_grades(tmp_path):
    root = beir(tmp_path / "a", code="cranfield-code")
    with pytest.raises(UserError, match=r"passages\.gains"):
        Passages().read(root)
    assert len(Passages(gains={1: 4, -1: 0}).read(root).ids) == 4
    with pytest.raises(UserError, match="judgement '-1'"):
        Passages(gains={1: 4}).read(root)
    (root / "queries.jsonl").write_text('{"_id": "q1"}\n')
    with pytest.raises(UserError, match="line 1: no id and text"):
        Passages().read(root)


def test_the_real_sets_are_read_whole(test_data):
    root = test_data / "word-similarity"
    if not root.is_dir():
        pytest.skip("needs the folder word-similarity in VISLANG_TEST_DATA")
    read = read_words(root)
    counts = {words.name: len(words.gold) for words in read.sets}
    assert len(counts) == 13 and len(read.questions) == 19_544
    assert (counts["RG-65"], counts["SIMLEX-999"], counts["WS-353-ALL"]) == (65, 999, 353)
    scifact = Passages().read(test_data / "retrieval/scifact")
    assert len(scifact.ids) == 300 and sum(map(len, scifact.grades)) == 339
    assert sum(1 for _ in scifact.passages()) == 5183
    gains = {1: 4, 2: 3, 3: 2, 4: 1, -1: 0}
    cranfield = Passages(gains=gains).read(test_data / "retrieval/cranfield/beir")
    assert len(cranfield.ids) == 225 and sum(map(len, cranfield.grades)) == 1837
