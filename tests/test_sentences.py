"""Sentences: SentEval's toy goldens, its classification protocols, odd files, and the real sets."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from vislang.errors import UserError
from vislang.evaluate.scores import read_scores
from vislang.evaluate.sentence_classes import by_folds, by_inner_folds, by_split
from vislang.evaluate.sentence_files import BY_CLASS, RANKED, read_task
from vislang.evaluate.sentence_splits import PROBING
from vislang.evaluate.sentence_tree import Tree
from vislang.evaluate.sentences import Sentences
from vislang.evaluate.text_suites import TEXT_SUITES, evaluate_texts
from vislang.lookup import build_one
from vislang.metrics.correlation import mean_of_sets, pearson, spearman

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def toy() -> dict:
    """Embeddings of SentEval's toy pairs by set, gold, and the patched original's results."""
    with np.load(GOLDEN / "senteval_toy.npz") as file:
        return {key: file[key] for key in file.files}


def written(root: Path, toy: dict) -> dict[str, np.ndarray]:
    """The toy sets as SentEval's files with sentences of our own; sentence -> embedding."""
    rows = {}

    def sentence(key: str, i: int, side: str) -> str:
        text = f"{key.replace('.', ' ')} {side} number {i}"
        rows[text] = toy[f"{key}|{side}"][i]
        return text

    for key in [k.removesuffix("|gold") for k in toy if k.endswith("|gold")]:
        task, name = key.split("/")
        gold = toy[f"{key}|gold"]
        pairs = [(sentence(key, i, "left"), sentence(key, i, "right")) for i in range(len(gold))]
        if task == "STS12":
            folder = root / "STS/STS12-en-test"
            folder.mkdir(parents=True, exist_ok=True)
            blank = [*pairs, ("not", "scored")]
            (folder / f"STS.input.{name}.txt").write_text(
                "".join(f"{a}\t{b}\n" for a, b in blank), encoding="utf-8"
            )
            (folder / f"STS.gs.{name}.txt").write_text("".join(f"{g}\n" for g in gold) + "\n")
        elif task == "STSBenchmark":
            (root / "STSBenchmark").mkdir(parents=True, exist_ok=True)
            (root / f"STSBenchmark/sts-{name}.csv").write_text(
                "".join(f"g\tf\ty\t1\t{g}\t{a}\t{b}\n" for g, (a, b) in zip(gold, pairs))
            )
        else:
            (root / "SICK").mkdir(parents=True, exist_ok=True)
            end = {"train": "train", "dev": "trial", "test": "test_annotated"}[name]
            (root / f"SICK/SICK_{end}.txt").write_text("id\ta\tb\tr\te\n" + "".join(
                f"1\t{a}\t{b}\t{g}\tNEUTRAL\n" for g, (a, b) in zip(gold, pairs)
            ))  # fmt: skip
    return rows


def test_toy_sets_give_the_numbers_of_senteval(toy, tmp_path):
    rows = written(tmp_path, toy)
    sentences = Sentences(tasks=("STS12", "STSBenchmark", "SICKRelatedness", "MR"))
    read = sentences.read(tmp_path)
    scores = sentences.score(read, lambda texts: np.stack([rows[text] for text in texts]))
    golden = json.loads((GOLDEN / "senteval_toy_results.json").read_text())
    table = {(r[0], r[1]): (r[3], r[6]) for r in scores.tables["similarity"]["rows"]}
    for task in ("STS12", "STSBenchmark", "SICKRelatedness"):
        for part, result in golden[task].items():
            if part == "all":
                for ours, theirs in (("all",) * 2, ("mean",) * 2, ("weighted mean", "wmean")):
                    found = table[task, ours]
                    assert found[0] == pytest.approx(result["spearman"][theirs], abs=1e-6)
                    assert found[1] == pytest.approx(result["pearson"][theirs], abs=1e-6)
            else:
                assert table[task, part][0] == pytest.approx(result["spearman"][0], abs=1e-6)
                assert table[task, part][1] == pytest.approx(result["pearson"][0], abs=1e-6)
        value = scores.values[task]
        assert f"{100 * value.value:.2f}" == golden["reported"][task]
        assert value.low < value.value < value.high
    assert "1 pairs without a score" in " ".join(scores.notes)
    assert "left out: MR." in " ".join(scores.notes)


def test_classification_protocols_are_sentevals():
    """The accuracies of SentEval's scikit-learn path, by the house's solver."""
    with np.load(GOLDEN / "senteval_classifiers.npz") as file:
        g = {key: file[key] for key in file.files}
    x, y, xt, yt = g["X"], g["y"], g["Xt"], g["yt"]
    nested = by_inner_folds(x, y, folds=5, inner=5, threads=1)
    assert [round(100 * nested.validation, 2), round(100 * nested.mean, 2)] == pytest.approx(
        g["innerkfold"], abs=0.011
    )
    folds = by_folds(x, y, xt, yt, folds=5, threads=1)
    assert [round(100 * folds.validation, 2), round(100 * folds.mean, 2)] == pytest.approx(
        g["kfold"], abs=0.011
    )
    split = by_split(x[:80], y[:80], x[80:], y[80:], xt, yt, threads=1)
    assert [round(100 * split.validation, 2), round(100 * split.mean, 2)] == pytest.approx(
        g["split"], abs=0.011
    )


def test_correlations_agree_with_scipy_and_are_zero_for_constants():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 9, 50) * 1.0, rng.normal(size=50)
    assert spearman(x, y).value == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-12)
    found = pearson(x, y)
    ends = stats.pearsonr(x, y).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high), abs=1e-9)
    assert spearman(np.zeros(9), np.arange(9.0)).value == 0
    assert mean_of_sets([spearman(x, y)] * 4).value == pytest.approx(spearman(x, y).value)
    with pytest.raises(ValueError, match="finite"):
        pearson(np.array([np.nan, 1, 2]), np.arange(3.0))


def test_odd_files(tmp_path):
    year = tmp_path / "downstream/STS/STS12-en-test"
    year.mkdir(parents=True)
    (year / "STS.input.a.txt").write_text("x\ty\nx\tz\n\ty\n")
    (year / "STS.gs.a.txt").write_text("1\n2\n")
    (year / "STS.gs.b.txt").write_text("1\n2\n")
    task = read_task(Tree(tmp_path), "STS12")  # a last line that is blank may be missing
    assert task is not None and list(task.parts) == ["a"] and len(task.parts["a"].gold) == 2
    assert any("no sentences" in note for note in task.notes)
    (year / "STS.gs.a.txt").write_text("1\n\n 2.5 \n")  # the middle pair has no score
    task = read_task(Tree(tmp_path), "STS12")
    assert task is not None and task.parts["a"].gold.tolist() == [1.0, 2.5]
    assert task.parts["a"].right == ["y", "y"]
    assert "STS12 a: 1 pairs without a score." in task.notes
    (year / "STS.gs.a.txt").write_text("1\n")
    with pytest.raises(UserError, match="3 lines"):
        read_task(Tree(tmp_path), "STS12")
    (year / "STS.gs.a.txt").write_text("1\nfour\n2\n")
    with pytest.raises(UserError, match=r"line 2.*'four'"):
        read_task(Tree(tmp_path), "STS12")
    (tmp_path / "TREC").mkdir()
    (tmp_path / "TREC/train_5500.label").write_bytes("NUM:x caf\xe9 ?\n".encode("latin-1"))
    (tmp_path / "TREC/TREC_10.label").write_text("HUM:y who ?\n")
    task = read_task(Tree(tmp_path), "TREC")
    assert task is not None and task.parts["train"].left == ["café ?"]
    assert "latin-1" in task.notes[0]
    (tmp_path / "TREC/TREC_10.label").write_text("HUX:y who ?\n")
    with pytest.raises(UserError, match="'HUX' is none of"):
        read_task(Tree(tmp_path), "TREC")


def toy_probing(root: Path, n: int = 20) -> None:
    (root / "probing").mkdir()
    lines = [f"{part}\t{label}\t{word} {i}\n" for part in ("tr", "va", "te") for i in range(n)
             for label, word in (("PAST", "was"), ("PRES", "is"))]  # fmt: skip
    (root / "probing/past_present.txt").write_text("".join(lines))


def test_snli_and_probing_tasks_are_read_and_judged(tmp_path):
    toy_probing(tmp_path)
    (tmp_path / "SNLI").mkdir()
    labels = ("entailment", "neutral", "contradiction")
    for split in ("train", "dev", "test"):
        for kind, line in (("s1", "a man"), ("s2", "{} man"), ("labels", "{}")):
            text = "".join(line.format(x) + "\n" for _ in range(12) for x in labels)
            (tmp_path / f"SNLI/{kind}.{split}").write_text(text)

    def rows(texts):  # a sentence shows its first word
        return np.stack([np.eye(8)[len(text.split()[0]) % 8] for text in texts])

    sentences = Sentences(tasks=("SNLI", "Tense", "Length"))
    scores = sentences.score(sentences.read(tmp_path), rows)
    assert scores.values["SNLI"].value == scores.values["Tense"].value == 1
    assert len(scores.per_sample["SNLI"]["values"]) == 36  # for paired tests of two models
    assert scores.values["SNLI"].n == 36 and "left out: Length." in scores.notes[0]
    (tmp_path / "SNLI/labels.dev").write_text("neutral\n")
    with pytest.raises(UserError, match="36, 36 and 1 lines"):
        sentences.read(tmp_path)
    (tmp_path / "SNLI/labels.dev").unlink()
    assert "SNLI: SNLI/labels.dev missing" in sentences.read(tmp_path).notes[0]


@pytest.mark.parametrize(
    ("line", "says"),
    [("tx\tPAST\tword", "expected tr, va or te"), ("te\tFUT\tword", "'FUT' is none of PAST, PRES"),
     ("tr\tPAST", "line 121: expected tr")],
)  # fmt: skip
def test_ragged_probing_lines_are_named(tmp_path, line, says):
    toy_probing(tmp_path)
    with (tmp_path / "probing/past_present.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=says):
        read_task(Tree(tmp_path), "Tense")


def test_the_ten_probing_tasks_have_files():
    assert len(PROBING) == len(set(PROBING.values())) == 10


@pytest.mark.parametrize("name", TEXT_SUITES)
def test_every_text_suite_refuses_what_it_cannot_use(name, tmp_path):
    made = build_one("evaluation", TEXT_SUITES, name)
    assert made.name == name and json.dumps(made.settings())
    with pytest.raises(UserError, match="has no option 'modess'"):
        build_one("evaluation", TEXT_SUITES, name, {"modess": 1})
    with pytest.raises(UserError):
        made.read(tmp_path)  # an empty folder


def test_a_dual_encoder_is_scored_from_files(tmp_path):
    from vislang.models.build import build_model
    from vislang.recipes import find_config
    from vislang.recipes.tiny import tiny

    model = build_model(tiny(find_config("clip")).model)
    for folder, a, b in BY_CLASS.values():
        (tmp_path / "d" / folder).mkdir(parents=True)
        for label, file in enumerate((a, b)):
            words = ("a red dog", "two blue cats")[label]
            text = "".join(f"{words} {i}\n" for i in range(20))
            (tmp_path / "d" / folder / file).write_text(text)
    scores = evaluate_texts(model, tmp_path / "d", ["sentences"], tmp_path / "out", device="cpu")
    again = evaluate_texts(model, tmp_path / "d", ["sentences"], tmp_path / "out", device="cpu")
    assert scores[0].values == again[0].values and scores[0].values["MR"].value > 0.9
    assert len(list((tmp_path / "out/stores/texts").glob("*.npy"))) == 1  # same texts, one file
    read = read_scores(tmp_path / "out/scores/000000000/sentences.json")
    assert read.provenance["source_fingerprint"] and read.values["MR"].n == 40


def test_the_real_files_are_read_whole(test_data):
    root = test_data / "sentences"
    if not root.is_dir():
        pytest.skip("needs the folder sentences in VISLANG_TEST_DATA")
    tree = Tree(root)
    counts = {
        "STS12": 3108, "STS13": 1500, "STS14": 3750, "STS15": 3000, "STS16": 1186,
        "STSBenchmark": 8628, "SICKRelatedness": 9927, "MR": 10662, "CR": 3775, "SUBJ": 10000,
        "MPQA": 10606, "SST5": 11855, "TREC": 5952, "MRPC": 5801,
    }  # fmt: skip
    for name, count in counts.items():
        task = read_task(tree, name)
        assert task is not None
        found = sum(len(part.gold) for part in task.parts.values())
        assert count - 4 <= found <= count  # lines of CR and MPQA that are blank
        assert name not in RANKED or found == count
