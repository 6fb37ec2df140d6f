"""The runner on real digits with a real (tiny) model: one pass, stores, provenance, bad input."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from test_embed import Part, make_model
from vislang.config import RunConfig, TrainConfig
from vislang.data.sources import open_source
from vislang.errors import UserError
from vislang.evaluate import EVALUATIONS, evaluate, judge_from_config, make_judge, read_scores
from vislang.evaluate.runner import build_evaluation
from vislang.lookup import lookup, one_line

QUICK = {"fewshot": {"episodes": 50}, "overview": {"map_points": 40, "most": 100}}


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def digits():
    return open_source("digits:test")


def options_for(names):
    return {name: QUICK[name] for name in names if name in QUICK}


def passes(model):
    """Counts the rows that go through the image tower."""
    seen = []
    hook = model.image.tower.register_forward_hook(lambda m, given, out: seen.append(len(out)))
    return seen, hook


@pytest.fixture(scope="module")
def everything(model, digits, tmp_path_factory):
    """All evaluations at once, and how many images the tower saw."""
    folder = tmp_path_factory.mktemp("run")
    seen, hook = passes(model)
    found = evaluate(
        model, digits, list(EVALUATIONS), folder, train_source="digits:train", options=QUICK,
        step=7, device="cpu", precision="fp32", batch_size=50,
    )  # fmt: skip
    hook.remove()
    return folder, {scores.evaluation: scores for scores in found}, sum(seen)


@pytest.mark.parametrize("name", EVALUATIONS)
def test_every_evaluation_keeps_the_contract(everything, name):
    """To be listed is to be tested: numbers with n and interval, a file that reads back."""
    folder, found, _ = everything
    made = lookup("evaluation", EVALUATIONS, name)
    assert made.name == name
    assert one_line(EVALUATIONS, name).endswith((".", ";"))
    scores = found[name]
    path = folder / "scores" / "000000007" / f"{name}.json"
    body = json.loads(path.read_text())
    assert body["evaluation"] == name
    assert body["n"] == scores.n > 0
    for value in body["values"].values():
        assert set(value) == {"value", "low", "high", "n", "interval"}
        assert value["low"] <= value["value"] <= value["high"]
        assert value["n"] > 0
        assert "95%" in value["interval"]
    for table in body["tables"].values():
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
    provenance = body["provenance"]
    assert provenance["model_fingerprint"]
    assert provenance["source_fingerprint"] == open_source("digits:test").fingerprint
    assert provenance["step"] == 7
    assert provenance["settings"]["preprocess"]["size"] == [16, 16]
    assert provenance["versions"]["torch"]
    assert read_scores(path).values == scores.values
    assert path.with_suffix(".md").exists()
    assert path.with_suffix(".csv").exists()
    json.dumps(build_evaluation(name).settings())


def test_one_pass_over_the_images_serves_all(everything, digits):
    _, _, seen = everything
    assert seen == len(digits) + len(open_source("digits:train"))


def test_the_report_reads_the_scores(everything):
    from vislang.report.collect import read_run

    run = read_run(everything[0])
    assert {score.name for score in run.scores} == set(EVALUATIONS)
    assert all(score.step == 7 for score in run.scores)
    assert all(v.has_interval for s in run.scores for v in s.values.values())


def test_stores_are_used_again_also_for_less(everything, model, digits):
    folder = everything[0]
    how = {"device": "cpu", "precision": "fp32", "batch_size": 50}
    seen, hook = passes(model)
    for step, names in ((8, ["zeroshot", "retrieval"]), (9, ["knn"])):
        found = evaluate(
            model, digits, names, folder, train_source="digits:train", step=step, **how
        )
        for scores in found:
            assert scores.values == everything[1][scores.evaluation].values
    assert not seen
    evaluate(model, digits, ["cluster"], folder, step=10, **(how | {"batch_size": 49}))
    assert sum(seen) == len(digits)  # another batch size is another store
    hook.remove()


def test_in_memory_and_from_disk_are_the_same(model, digits, tmp_path):
    both = [
        evaluate(
            model,
            Part(digits, n=60),
            ["retrieval", "cluster"],
            tmp_path / str(keep),
            device="cpu",
            keep_store=keep,
        )
        for keep in (True, False)
    ]
    for one, two in zip(*both):
        assert one.values == two.values
        assert one.examples == two.examples
    assert (tmp_path / "True" / "stores").is_dir()
    assert not (tmp_path / "False" / "stores").exists()


def test_without_a_training_source_the_source_is_divided(model, digits, tmp_path):
    found = evaluate(
        model, digits, ["probe", "knn", "fewshot"], tmp_path, options=options_for(["fewshot"]),
        device="cpu", keep_store=False,
    )  # fmt: skip
    for scores in found:
        assert scores.provenance["train_source"].startswith("a part of")
        assert scores.provenance["settings"]["train"] == "a part of the source"
        assert any("of the source itself" in note for note in scores.notes)
    assert found[0].n == found[1].n < 130


def test_rejected_and_captionless_samples_are_counted(model, digits, tmp_path):
    source = Part(digits, n=60, bad=(1, 2, 3), bare=(10, 11))
    one, two = evaluate(model, source, ["zeroshot", "retrieval"], tmp_path, device="cpu")
    assert one.n == 57
    assert any("3 of 60 samples" in note for note in two.notes)
    assert any("2 images without a caption" in note for note in two.notes)
    assert two.n == 55


def test_an_image_model_gets_what_needs_no_text(digits, tmp_path):
    model = make_model(text="")
    found = evaluate(
        model, digits, ["knn", "overview"], tmp_path, options=options_for(["overview"]),
        device="cpu", keep_store=False,
    )  # fmt: skip
    assert "modality_gap" not in found[1].values
    with pytest.raises(UserError, match=r"'zeroshot'.*no text side"):
        evaluate(model, digits, ["zeroshot"], tmp_path, device="cpu")


# -- bad input --------------------------------------------------------------------------------


def with_gives(source, *gives):
    part = Part(source, n=20)
    part.gives = frozenset(gives)
    return part


@pytest.mark.parametrize("name", EVALUATIONS)
def test_a_source_that_lacks_what_is_needed_is_refused_before_any_work(
    model, digits, tmp_path, name
):
    lacks = with_gives(digits, "image")
    if name == "overview":
        return
    seen, hook = passes(model)
    with pytest.raises(UserError, match=f"'{name}' needs (labels|captions).*gives image"):
        evaluate(model, lacks, [name], tmp_path, device="cpu")
    hook.remove()
    assert not seen


@pytest.mark.parametrize(
    ("names", "options", "match"),
    [
        (["zeroshots"], {}, "Did you mean 'zeroshot'"),
        ([], {}, "at least one evaluation"),
        (["knn"], {"knn": {"kk": 3}}, r"no option 'kk'.*Did you mean 'k'"),
        (["knn"], {"probe": {}}, "no evaluation that was asked for"),
        (["fewshot"], {"fewshot": {"way": 11}}, "only 10 of 10"),
    ],
)
def test_wrong_requests_are_named(model, digits, tmp_path, names, options, match):
    with pytest.raises(UserError, match=match):
        evaluate(model, digits, names, tmp_path, options=options, device="cpu", keep_store=False)


def test_other_classes_in_the_training_source(model, digits, tmp_path):
    other = Part(digits, n=20)
    other.classes = (*digits.classes[:9], "ten")
    with pytest.raises(UserError, match="'nine' against 'ten'"):
        evaluate(model, digits, ["knn"], tmp_path, train_source=other, device="cpu")


def test_one_failure_leaves_the_others_written(model, digits, tmp_path):
    few = Part(digits, n=3)
    with pytest.raises(UserError, match=r"retrieval: .*The other 1 are written"):
        evaluate(model, few, ["retrieval", "zeroshot"], tmp_path, device="cpu",
                 options={"retrieval": {"ks": [5]}})  # fmt: skip
    assert (tmp_path / "scores" / "000000000" / "zeroshot.json").exists()
    assert not (tmp_path / "scores" / "000000000" / "retrieval.json").exists()


# -- the judge --------------------------------------------------------------------------------


def test_the_judge_leaves_the_training_as_it_was(digits, tmp_path):
    model = make_model()
    model.train()
    judge = make_judge(digits, ["zeroshot", "knn"], tmp_path, device="cpu")
    state, before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    values = judge(model, 12)
    assert (torch.get_rng_state() == state).all()
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    assert model.training
    assert model.image.tower.training
    assert set(values) == {"zeroshot", "knn"}
    assert {"value", "low", "high", "n"} <= set(values["zeroshot"]["accuracy"])
    assert (tmp_path / "scores" / "000000012" / "knn.json").exists()
    assert not (tmp_path / "stores").exists()
    # Training goes on: nothing was left behind that autograd refuses.
    model.image(torch.zeros(2, 3, 16, 16)).sum().backward()


def test_the_judge_checks_before_the_training(digits, tmp_path):
    with pytest.raises(UserError, match="needs captions"):
        make_judge(with_gives(digits, "image", "label"), ["retrieval"], tmp_path)
    with pytest.raises(UserError, match="No evaluation is called"):
        make_judge(digits, ["retrievall"], tmp_path)


def test_the_judge_of_a_config(tmp_path):
    config = TrainConfig(run=RunConfig(device="cpu", precision="fp32", evaluations=("zeroshot",)))
    with pytest.raises(UserError, match=r"data\.valid is empty"):
        judge_from_config(config, tmp_path)
    assert judge_from_config(replace(config, run=RunConfig()), tmp_path) is None
    valid = replace(config.data, valid="digits:test", workers=0)
    judge = judge_from_config(replace(config, data=valid), tmp_path)
    assert judge(make_model(), 3)["zeroshot"]["accuracy"]["n"] == 500
