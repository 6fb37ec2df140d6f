"""`vislang evaluate --suite all`: what a model, its source and a folder of texts allow."""

import json
import shutil

import pytest

from vislang.cli.evaluate import evaluate
from vislang.errors import UserError
from vislang.evaluate.scores import read_scores
from vislang.evaluate.text_places import text_places
from vislang.recipes import find_config
from vislang.recipes.tiny import tiny

HOW = {"workers": 0, "device": "cpu", "precision": "fp32"}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Words, two collections of passages and one transfer task, in folders of their own."""
    root = tmp_path_factory.mktemp("texts")
    (root / "words").mkdir()
    (root / "words/EN-RG-65.txt").write_text("cat dog 3\nsun moon 2\ncar bus 4\nink pen 1\n")
    (root / "sentences/MR").mkdir(parents=True)
    for end, words in (("neg", "a dull film"), ("pos", "two bright plays")):
        text = "".join(f"{words} {i}\n" for i in range(12))
        (root / f"sentences/MR/rt-polarity.{end}").write_text(text)
    for name in ("first", "second"):
        folder = root / "retrieval" / name
        folder.mkdir(parents=True)
        lines = [json.dumps({"_id": str(i), "text": f"{name} text {i}"}) for i in range(12)]
        (folder / "corpus.jsonl").write_text("\n".join(lines))
        (folder / "queries.jsonl").write_text("\n".join(lines[:3]))
        (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n0\t0\t1\n1\t1\t1\n")
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from vislang.train import train

    out = tmp_path_factory.mktemp("runs") / "clip"
    train(tiny(find_config("clip")), out)
    return out


def written(run):
    return {path.stem for path in run.glob("scores/*/*.json")}


def test_a_dual_encoder_is_asked_everything(run, texts, tmp_path, capsys):
    evaluate(str(run), source="digits:test", suite=("all",), texts=texts, out=tmp_path, **HOW)
    said = capsys.readouterr().out
    for name in ("zeroshot", "retrieval", "probe", "knn", "cluster", "fewshot", "overview"):
        assert name in written(tmp_path) or f"left out: {name}" in said, name
    assert {"words", "sentences", "passages-first", "passages-second"} <= written(tmp_path)
    overview = read_scores(next(tmp_path.glob("scores/*/overview.json")))
    assert {"alignment", "image_uniformity", "text_uniformity", "modality_gap"} <= set(
        overview.values
    )
    (scored,) = tmp_path.glob("scores/*/passages-first.json")
    assert read_scores(scored).better == "higher"
    assert str(texts / "retrieval/first") in scored.read_text()
    # One pass: the images of the source lie in one store, all texts of the folder in another.
    stores = [store for store in (tmp_path / "stores").iterdir() if store.name != "texts"]
    assert len(stores) == 1


def test_one_that_fails_does_not_stop_the_others(run, texts, tmp_path, capsys):
    options = {"retrieval": {"ks": [100_000]}}
    evaluate(
        str(run), source="digits:test", suite=("all",), suite_options=options, out=tmp_path, **HOW
    )
    assert "left out: retrieval: " in capsys.readouterr().out
    assert "knn" in written(tmp_path) and "retrieval" not in written(tmp_path)


def test_texts_that_cannot_be_read_stop_nothing(run, texts, tmp_path, capsys):
    root = tmp_path / "texts"
    shutil.copytree(texts, root)
    (root / "retrieval/first/corpus.jsonl").write_text('{"_id": "0"}\n')
    (root / "sentences/MR/rt-polarity.pos").unlink()
    evaluate(str(run), source="digits:test", suite=("all",), texts=root, out=tmp_path, **HOW)
    said = capsys.readouterr().out
    assert "left out: passages-first: " in said  # its passages are read while they are scored
    assert f"left out: sentences of {root / 'sentences'}: " in said
    assert "left out: triplets: no files of it below" in said
    assert "left out: elevater: none of its 20 sets lies below data" in said
    assert "left out: finetune: trains the tower" in said
    assert {"words", "passages-second", "knn"} <= written(tmp_path)
    with pytest.raises(UserError, match="sentences of"):
        text_places(root)


def test_elevaters_sets_belong_to_everything(run, tmp_path, capsys):
    from test_elevater_suite import lay_out

    registry = lay_out(tmp_path)
    shutil.rmtree(tmp_path / "classification/coco")
    own = {"registry": str(registry), "words": "labels", "tasks": ["zeroshot"]}
    evaluate(
        str(run), source="digits:test", suite=("all",), suite_options={"elevater": own},
        data_root=tmp_path, out=tmp_path / "out", **HOW,
    )  # fmt: skip
    assert f"left out: elevater: not below {tmp_path}: coco" in capsys.readouterr().out
    found = read_scores(next((tmp_path / "out").glob("scores/*/elevater.json")))
    assert [row[0] for row in found.tables["sets"]["rows"]] == ["lines", "several", "average"]
    assert found.provenance["data_root"] == str(tmp_path)
    page = " ".join(repeated(tmp_path / "out"))
    assert f"--data_root {tmp_path}" in page and "--suite elevater" in page
    assert f"vislang evaluate {run} --out {tmp_path / 'out'}-again" in page


def repeated(folder):
    """The commands that a report says repeat the scores."""
    import html
    import re

    from vislang.cli.report import report

    report([folder])
    text = (folder / "report.html").read_text()
    return re.findall(r"vislang evaluate [^\n<]*", html.unescape(text))


def test_what_cannot_be_is_said(run, texts, tmp_path):
    with pytest.raises(UserError, match="options for 'knnn', which is no evaluation"):
        evaluate(str(run), suite=("all",), suite_options={"knnn": {}}, out=tmp_path, **HOW)
    with pytest.raises(UserError, match="--dataset does not go with --suite all"):
        evaluate(str(run), suite=("all",), dataset=("dtd",), out=tmp_path, **HOW)
    with pytest.raises(UserError, match="--texts goes with --suite all"):
        evaluate(str(run), suite=("knn",), texts=texts, out=tmp_path, **HOW)
    with pytest.raises(UserError, match=r"has the side text\. Give --source"):
        evaluate("huggingface:none", suite=("all",), out=tmp_path, **HOW)
    with pytest.raises(UserError, match="files of none of words"):
        text_places(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        text_places(tmp_path / "no")


def test_folders_nearest_to_the_root_are_taken(texts):
    found = [(p.suite, p.path.relative_to(texts).as_posix()) for p in text_places(texts)]
    assert found == [
        ("words", "words"), ("sentences", "sentences"),
        ("passages", "retrieval/first"), ("passages", "retrieval/second"),
    ]  # fmt: skip
