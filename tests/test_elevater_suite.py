"""ELEVATER from end to end on small sets of all three layouts, and fine-tuning on any source."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from layouts import add_files, add_zip
from pictures import jpeg
from vislang.cli import main as cli
from vislang.config import ModelConfig, TowerConfig
from vislang.data.decode import Limits
from vislang.data.elevater_sets import chosen_sets
from vislang.errors import UserError
from vislang.evaluate.elevater.material import Material
from vislang.evaluate.elevater.predictions import read_predictions
from vislang.evaluate.elevater.search import RATES
from vislang.evaluate.elevater.settings import ElevaterOptions, make_options, read_task
from vislang.evaluate.elevater.suite import evaluate_elevater, metric_interval
from vislang.evaluate.finetune import evaluate_finetune
from vislang.evaluate.scores import read_scores
from vislang.models.build import build_model
from vislang.models.pretrained import save_model

HOW: dict[str, Any] = {"device": "cpu", "precision": "fp32"}
COLOURS = ((220, 30, 30), (30, 200, 30), (40, 40, 220))
NAMES = ("red thing", "green thing", "blue thing")


def coloured(label: int, seed: int) -> bytes:
    """A noisy picture of one colour."""
    import io

    from PIL import Image

    noise = np.random.default_rng(seed).integers(-25, 25, (16, 16, 3))
    pixels = np.clip(np.array(COLOURS[label]) + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def lay_out(root: Path, broken: str = "") -> Path:
    """Three sets of three classes: lines, lines with several labels, COCO. Returns the registry."""
    sizes = {"train": 24, "test": 9}
    records = []
    for name in ("lines", "several", "coco"):
        home, record = root / "classification" / name, {"name": name, "num_classes": 3}
        for split, n in sizes.items():
            labels = [i % 3 for i in range(n)]
            files = {f"p/{i} x.png": coloured(y, 100 * len(name) + i + n)
                     for i, y in enumerate(labels)}  # fmt: skip
            if name == broken and split == "test":
                files["p/4 x.png"] = jpeg(1, 8, 8)[:40]
            add_zip(home / f"{split}.zip", dict(files))
            more = {0: "0,2", 1: "1", 2: "2"} if name == "several" else {}
            lines = [f"{split}.zip@{path} {more.get(y, y)}" for path, y in zip(files, labels)]
            index = f"{split}.txt" if name != "coco" else f"{split}.json"
            images = [{"id": i, "file_name": path, "zip_file": f"{split}.zip"}
                      for i, path in enumerate(files)]  # fmt: skip
            content = {
                "images": images,
                "annotations": [{"image_id": i, "category_id": y} for i, y in enumerate(labels)],
                "categories": [{"id": k, "name": n} for k, n in enumerate(NAMES)],
            }
            text = json.dumps(content) if name == "coco" else "\n".join(lines)
            add_files(home, {index: text})
            record[split] = {"index_path": index, "num_images": n,
                             "files_for_local_usage": [f"{split}.zip"]}  # fmt: skip
        if name != "coco":
            add_files(home, {"labels.txt": "\n".join(NAMES)})
            record["labelmap"] = "labels.txt"
        metrics = {"lines": "mean-per-class", "several": "11point_mAP", "coco": "accuracy"}
        records.append(record | {"root_folder": f"classification/{name}", "metric": metrics[name]})
    path = root / "registry.json"
    path.write_text(json.dumps(records))
    return path


@pytest.fixture(scope="module")
def model():
    image = {"image_size": 16, "patch": 8, "width": 16, "depth": 1, "heads": 2}
    text = {"context": 12, "width": 16, "depth": 1, "heads": 2}
    torch.manual_seed(0)
    config = ModelConfig(TowerConfig("scratch_vit", image), TowerConfig("scratch_text", text), 8)
    return build_model(config)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("elevater")
    return root, str(lay_out(root))


def options(registry: str, **more):
    return {"registry": registry, "words": "labels", "seeds": [0, 1, 2], **more}


@pytest.fixture(scope="module")
def done(model, tree, tmp_path_factory):
    """Zero-shot and probes by the toolkit's protocol, all three sets."""
    root, registry = tree
    out = tmp_path_factory.mktemp("out")
    asked = options(registry, tasks=["zeroshot", "probe:5", "probe:full"], search=False, rate=0.03)
    return out, evaluate_elevater(model, ["all"], root, out, options=asked, **HOW)


def test_every_result_names_convention_and_protocol(done):
    out, found = done
    assert found.values["probe:full: average (elevater)"].n == 3
    assert found.values["probe:full: average (standard)"].value > 0.9
    scores = read_scores(out / "elevater/lines/scores/000000000/probe-5.json")
    assert set(scores.values) == {"mean-per-class (elevater)", "mean-per-class (standard)"}
    assert "3 seeds" in scores.values["mean-per-class (elevater)"].method
    assert any("rate and decay given, last epoch" in note for note in scores.notes)
    assert scores.provenance["settings"]["protocol"].startswith("elevater, probe:5")
    several = read_scores(out / "elevater/several/scores/000000000/zeroshot.json")
    assert "11point_mAP (elevater)" in several.values and several.n == 9


def test_the_toolkits_search_is_noted(model, tree, tmp_path):
    root, registry = tree
    asked = options(registry, tasks=["probe:5"], seeds=[0])
    evaluate_elevater(model, ["lines"], root, tmp_path, options=asked, **HOW)
    scores = read_scores(tmp_path / "elevater/lines/scores/000000000/probe-5.json")
    assert any("rate and decay searched, last epoch" in note for note in scores.notes)
    row = dict(zip(scores.tables["seeds"]["columns"], scores.tables["seeds"]["rows"][0]))
    assert row["trainings"] in range(66, 91) and row["rate"] in RATES and row["weight decay"]


def test_the_summary_has_all_sets_and_their_average(done):
    _, found = done
    table = found.tables["sets"]
    assert [row[0] for row in table["rows"]] == ["lines", "several", "coco", "average"]
    assert table["columns"][3:5] == ["zeroshot (elevater)", "zeroshot (standard)"]
    assert any("cannot be compared" in note for note in found.notes)
    assert found.tables["parameters"]["rows"][1][:3] == ["lines", "probe:5", 8 * 3 + 3]


def test_predictions_are_submitted(done, tree, tmp_path, capsys):
    out, _ = done
    command = ["submit", "elevater", str(out), "--registry", tree[1]]
    for task in ("zeroshot", "probe-5", "probe-full"):
        target = tmp_path / f"{task}.zip"
        assert cli.main([*command, "--task", task, "--out", str(target)]) == 0
        assert target.stat().st_size
    assert "Without" not in capsys.readouterr().out
    few = read_predictions(out / "elevater/predictions/probe-5/seed2_lines.safetensors")
    assert few.rnd_seeds == (2,) and few.predictions.shape == (1, 9, 3)
    assert few.num_params == few.num_backbone_params + 8 * 3 + 3 + 1


def test_ours_chooses_on_held_out_samples(model, tree, tmp_path):
    root, registry = tree
    tune = {"rates": [1e-2], "wise": [0.5, 1.0], "epochs": 8, "batch_size": 8}
    asked = options(registry, tasks=["zeroshot", "probe:full", "finetune:5"],
                    protocol="validated", seeds=[0], tune=tune)  # fmt: skip
    found = evaluate_elevater(model, ["lines", "several"], root, tmp_path, options=asked, **HOW)
    assert found.values["probe:full: average (standard)"].value > 0.9
    assert found.values["finetune:5: average (standard)"].value > 0.5
    rows = read_scores(tmp_path / "elevater/lines/scores/000000000/finetune-5.json")
    columns = rows.tables["seeds"]["columns"]
    assert rows.tables["seeds"]["rows"][0][columns.index("share")] in (0.5, 1.0)
    assert any("chosen on held-out" in note for note in rows.notes)


def test_the_toolkits_fine_tuning_trains_the_tower(model, tree, tmp_path):
    root, registry = tree
    asked = options(registry, tasks=["finetune:full"], search=False, rate=0.01, decay=1e-6,
                    epoch="best_on_test")  # fmt: skip
    found = evaluate_elevater(model, ["coco"], root, tmp_path, options=asked, **HOW)
    name = "finetune:full: coco accuracy (elevater, epoch chosen on test)"
    assert found.values[name].value > 0.9
    image = sum(p.numel() for p in model.image.parameters())
    assert found.tables["parameters"]["rows"][0][2] == image + 27


def test_a_broken_test_picture_gets_the_same_for_every_class(model, tmp_path):
    registry = lay_out(tmp_path, broken="lines")
    asked = options(str(registry), tasks=["zeroshot"])
    found = evaluate_elevater(model, ["lines"], tmp_path, tmp_path / "o", options=asked, **HOW)
    rows = read_predictions(tmp_path / "o/elevater/predictions/zeroshot/lines.safetensors")
    assert np.allclose(rows.predictions[0, 4], 1 / 3) and found.n == 9
    scores = read_scores(tmp_path / "o/elevater/lines/scores/000000000/zeroshot.json")
    assert "1 test samples could not be used: all classes get 1 / C." in scores.notes


def test_absent_sets_are_rows_and_nothing_at_all_is_an_error(model, tree, tmp_path):
    root, registry = tree
    records = json.loads(Path(registry).read_text())
    records.append({**records[0], "name": "gone", "root_folder": "classification/gone"})
    (tmp_path / "more.json").write_text(json.dumps(records))
    asked = options(str(tmp_path / "more.json"), tasks=["zeroshot"])
    found = evaluate_elevater(model, ["lines", "gone"], root, tmp_path, options=asked, **HOW)
    ((name, why),) = found.tables["missing"]["rows"]
    assert name == "gone" and "does not exist" in why
    with pytest.raises(UserError, match="Not one of 1 sets"):
        evaluate_elevater(model, ["gone"], root, tmp_path, options=asked, **HOW)


def test_a_model_without_texts_is_told_to_leave_zero_shot_out(model, tree, tmp_path):
    from vislang.models.dual import DualEncoder

    alone = DualEncoder(model.image, None)
    asked = options(tree[1], tasks=["zeroshot"])
    with pytest.raises(UserError, match="needs a text side"):
        evaluate_elevater(alone, ["lines"], tree[0], tmp_path, options=asked, **HOW)
    asked = options(tree[1], tasks=["probe:full"], protocol="validated")
    found = evaluate_elevater(alone, ["lines"], tree[0], tmp_path, options=asked, **HOW)
    assert found.values["probe:full: average (standard)"].value > 0.9


def test_knowledge_of_the_files_goes_into_the_prompts(model, tree, tmp_path):
    root, registry = tree
    told = [{"classname": n, "def_wiki": f"it is {n[0]}.", "def_wn": None} for n in NAMES[:2]]
    add_files(tmp_path, {"lines_knowledge.tsv": json.dumps(told)})
    more = {"knowledge": ["wiki"], "knowledge_folder": str(tmp_path), "tasks": ["zeroshot"]}
    asked = make_options(options(registry, **more))
    (entry,) = chosen_sets(["lines"], registry)
    how = {**HOW, "batch_size": 8, "workers": 0, "limits": Limits()}
    material = Material(entry, model, root, asked, None, how)
    assert material.prompts == [
        ["a photo of a red thing ; red thing , it is r ."],
        ["a photo of a green thing ; green thing , it is g ."],
        ["a photo of a blue thing"],
    ]
    plain = Material(entry, model, root, make_options(options(registry)), None, how)
    one, other = plain.text, material.text
    assert one is not None and other is not None
    assert not np.allclose(one[0], other[0]) and np.allclose(one[2], other[2], atol=1e-6)
    found = evaluate_elevater(model, ["lines"], root, tmp_path, options=asked, **HOW)
    assert found.provenance["settings"]["knowledge"] == ["wiki"]
    with pytest.raises(UserError, match="no file of knowledge"):
        evaluate_elevater(model, ["several"], root, tmp_path, options=asked, **HOW)


def test_train_and_test_must_name_the_same_classes(model, tmp_path):
    registry = lay_out(tmp_path)
    file = tmp_path / "classification/coco/train.json"
    content = json.loads(file.read_text())
    content["categories"].reverse()
    for number, category in enumerate(content["categories"]):
        category["id"] = number
    file.write_text(json.dumps(content))
    asked = options(str(registry), tasks=["probe:full"])
    with pytest.raises(UserError, match="name their classes differently"):
        evaluate_elevater(model, ["coco"], tmp_path, tmp_path / "o", options=asked, **HOW)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"tasks": ["probe"]}, "A task is zeroshot, probe:SHOTS"),
        ({"tasks": ["prob:5"]}, "Did you mean 'probe'"),
        ({"tasks": ["probe:0"]}, "at least 1"),
        ({"tasks": "zeroshot"}, "must be a list"),
        ({"protocol": "elevator"}, "Did you mean 'elevater'"),
        ({"epoch": "best"}, "epoch must be one of last, best_on_test"),
        ({"sarch": True}, "no option 'sarch'.*Did you mean 'search'"),
        ({"tune": {"rate": 1}}, "tune has no option 'rate'.*Did you mean 'rates'"),
        ({"tune": {"wise": [2]}}, "alpha must lie"),
    ],
)
def test_options_that_mean_nothing_are_explained(given, why):
    with pytest.raises(UserError, match=why):
        _ = make_options(given).asked


def test_tasks_have_names():
    assert [read_task(t).slug for t in ("zeroshot", "probe:full")] == ["zeroshot", "probe-full"]
    assert ElevaterOptions(scale="clip").head_scale(9) == pytest.approx(1 / 0.07)


def test_intervals_hold_their_value():
    rng = np.random.default_rng(0)
    rows, label = rng.dirichlet(np.ones(2), 30), rng.integers(0, 2, 30)
    for metric in ("accuracy", "mean-per-class", "roc_auc"):
        found = metric_interval(metric, rows, label, "elevater")
        assert found.low <= found.value <= found.high and found.low < found.high


# --- the command, and fine-tuning on any source ---------------------------------------------------


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return str(save_model(model, model.config, folder / "m"))


def test_the_command_evaluates_and_says_what_comes_next(saved, tree, tmp_path, capsys):
    root, registry = tree
    told = json.dumps({"elevater": options(registry, tasks=["probe:full"], protocol="validated")})
    command = ["evaluate", saved, "--suite", "elevater", "--dataset", "lines", "--workers", "0",
               "--data_root", str(root), "--out", str(tmp_path),
               "--suite_options", told]  # fmt: skip
    assert cli.main(command) == 0
    out = capsys.readouterr().out
    assert "probe:full: average (elevater)" in out
    assert f"vislang submit elevater {tmp_path} --task probe-full" in out
    assert cli.main([*command[:3], "elevater,probe", *command[4:]]) == 2
    assert "evaluate it by itself" in capsys.readouterr().err


def folders(root: Path) -> str:
    files: dict[str, bytes | str] = {
        f"{s}/{NAMES[y]}/{i}.png": coloured(y, i + 50 * (s == "test"))
             for s in ("train", "test") for y in range(3) for i in range(8)}  # fmt: skip
    return str(add_files(root / "photos", files))


def test_any_labelled_source_can_be_tuned_on(saved, tmp_path, capsys):
    photos = folders(tmp_path)
    told = {"finetune": {"rates": [3e-3], "epochs": 4, "batch_size": 8, "part": "last", "shots": 5}}
    command = ["evaluate", saved, "--suite", "finetune", "--source", photos, "--source_options",
               '{"split": "test"}', "--train_source", photos, "--train_options",
               '{"split": "train"}', "--out", str(tmp_path / "o"), "--workers", "0",
               "--device", "cpu", "--suite_options", json.dumps(told)]  # fmt: skip
    assert cli.main(command) == 0
    scores = read_scores(tmp_path / "o/scores/000000000/finetune.json")
    assert scores.values["accuracy"].value > 0.5 and scores.n == 24
    assert scores.tables["chosen"]["rows"][0][3] == 15
    assert len(scores.tables["held_out"]["rows"]) == 5
    assert scores.provenance["settings"]["part"] == "last"
    assert "accuracy" in capsys.readouterr().out


def test_without_a_training_source_the_source_is_divided(model, tmp_path):
    photos = folders(tmp_path)
    asked = {"rates": [3e-3], "wise": [1.0], "epochs": 3, "batch_size": 8}
    found = evaluate_finetune(model, photos, None, tmp_path, options=asked,
                              source_options={"split": "train"}, **HOW)  # fmt: skip
    assert found.n == 3 and any("four fifths" in note for note in found.notes)
    with pytest.raises(UserError, match="no option 'rate'"):
        evaluate_finetune(model, photos, None, tmp_path, options={"rate": 1})
    with pytest.raises(UserError, match="needs labels"):
        evaluate_finetune(model, folders(tmp_path) + "/test/red thing", None, tmp_path)
