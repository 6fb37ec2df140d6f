"""Section by section, what a CLIP from nothing must show; the faults of the original are not ours.

CHECKS (scratch_checks.py) names each check and the tests that show it: those below, and tests of
the parts.
"""

import ast
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from scratch_checks import CHECKS
from vislang.config import with_changes
from vislang.evaluate import read_scores
from vislang.models.build import build_model
from vislang.objectives.build import build_objective
from vislang.recipes import find_config
from vislang.recipes.tiny import tiny

HERE = Path(__file__)


def names_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("check", CHECKS)
def test_every_check_has_its_tests(check):
    assert CHECKS[check]
    for named in CHECKS[check]:
        file, colons, test = named.rpartition("::")
        path = HERE.parent / file if colons else HERE
        assert path.is_file(), named
        assert not test or test in names_in(path), named


# The recipe with towers of the tables, the smallest ones -----------------------------------------


def small(**changes):
    """The recipe with M/14@112 and the text tower S, on bytes."""
    base = {
        "model.image.options.size": "M/14@112",
        "model.text.options.size": "S",
        "model.text.options.tokenizer": "bytes",
    }
    return with_changes(find_config("scratch"), base | changes)


def built(config):
    torch.manual_seed(0)
    return build_model(config.model), build_objective(config.objective, config.model.width)


@pytest.fixture(scope="module")
def started():
    """Model and objective at the start of the recipe, a batch of noise pictures and captions."""
    config = small(**{"model.text.options.depth": 4})
    model, objective = built(config)
    images = torch.randint(0, 256, (64, 3, 112, 112), dtype=torch.uint8)
    words = "dog cat boat tree red runs on water man child".split()  # noqa: SIM905
    texts = [f"a {words[i % 10]} and {words[i // 10]} {i}" for i in range(64)]
    batch = {"image": images, "text": model.text.tower.prepare(texts)}
    loss = objective(**model(**batch))
    loss.backward()
    return config, model, objective, loss.item()


def test_the_recipe_is_the_originals_where_that_was_right():
    config = find_config("scratch")
    assert (config.optim.lr, config.optim.weight_decay) == (5e-4, 0.2)
    assert (config.optim.betas, config.optim.eps) == ((0.9, 0.98), 1e-6)
    assert config.model.text.options["context"] == 32
    assert config.model.width == 512
    assert config.optim.clip_grad > 0


def test_the_loss_starts_at_the_logarithm_of_the_batch(started):
    assert started[3] == pytest.approx(math.log(64), rel=0.02)


def test_gradient_reaches_every_parameter(started):
    _, model, objective, _ = started
    dead = [
        name
        for part in (model, objective)
        for name, p in part.named_parameters()
        if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert not dead


def test_what_does_not_decay(started):
    from vislang.train.optim import make_optimizer

    config, model, objective, _ = started
    optimizer = make_optimizer({"model": model, "objective": objective}, config.optim)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    told = {
        name: decay[id(p)] for part in (model, objective) for name, p in part.named_parameters()
    }
    for name, value in told.items():
        still = name.endswith("bias") or any(
            word in name for word in ("ln_", "positional", "class_embedding", "log_scale")
        )
        assert value == (0.0 if still else 0.2), name
    assert sum(value == 0.2 for value in told.values()) > 40


def test_the_scale_is_trained_saved_and_held_below_100(started, tmp_path):
    _, _, objective, _ = started
    names = dict(objective.named_parameters())
    assert list(names) == ["log_scale"] and "log_scale" in objective.state_dict()
    assert names["log_scale"].item() == pytest.approx(math.log(1 / 0.07))
    with torch.no_grad():
        objective.log_scale.fill_(math.log(250))
        objective.after_step()
    assert objective.log_scale.item() <= math.log(100) + 1e-6
    with torch.no_grad():
        objective.log_scale.fill_(math.log(1 / 0.07))


# Short runs --------------------------------------------------------------------------------------


def read(folder, kind="train"):
    from vislang.train.log import read_log

    return [line for line in read_log(folder) if line["kind"] == kind]


def test_the_rate_of_a_run_is_the_one_asked_for(tmp_path):
    """Not its square: the step at the end of warm-up runs at lr; the scale moves."""
    from vislang.train import train

    changes = {"optim.steps": 6, "optim.warmup": 3, "optim.lr": 5e-4, "run.evaluations": ()}
    train(with_changes(tiny(find_config("scratch")), changes), tmp_path)
    lines = read(tmp_path)
    assert [line["lr"] for line in lines[:3]] == pytest.approx([5e-4 / 3, 1e-3 / 3, 5e-4])
    assert lines[-1]["lr"] == pytest.approx(0, abs=1e-9)
    assert len({line["scale"] for line in lines}) > 3


def test_gradients_are_clipped(tmp_path):
    """With a large eps AdamW's step follows the gradient: held to nothing, weights stay."""
    from safetensors.torch import load_file

    from vislang.train import train

    def weight(name, **changes):
        base = {"optim.steps": 2, "optim.warmup": 1, "optim.weight_decay": 0.0, "optim.eps": 1e-3}
        config = with_changes(
            tiny(find_config("scratch")), base | {"run.evaluations": ()} | changes
        )
        last = train(config, tmp_path / name)
        return load_file(last / "model.safetensors")["text.tower.token_embedding.weight"]

    start = weight("start", **{"optim.lr": 0.0})
    held = weight("held", **{"optim.clip_grad": 1e-9})
    free = weight("free", **{"optim.clip_grad": 0.0})
    assert (held - start).abs().max() < 1e-8 < 1e-6 < (free - start).abs().max()
    assert read(tmp_path / "held")[0]["grad_norm"] > 1e-3  # what it was before it was cut


def test_sixty_four_real_pairs_are_learned_by_heart(test_data, tmp_path):
    from vislang.curate.tokenizer import BpeRules, make_tokenizer
    from vislang.data.sources import open_source
    from vislang.models.pretrained import load_model
    from vislang.train import train

    folder = test_data / "flickr8k"
    real = open_source(
        f"flickr:{folder}/captions.csv", images=str(folder / "images_112.zip"), split="dev"
    )
    rows = ["image\tcaption"]
    rows += [f"{real[i].id}\t{real[i].texts[0]}" for i in range(64)]
    (tmp_path / "pairs.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    options = {"images_root": str(folder / "images_112.zip")}
    source = open_source(f"table:{tmp_path}/pairs.tsv", **options)
    make_tokenizer(source, tmp_path / "bpe", BpeRules(500))
    config = small(
        **{
            "model.image.options": {
                "image_size": 32, "patch": 8, "width": 64, "depth": 1, "heads": 4,
            },
            "model.text.options": {
                "tokenizer": f"file:{tmp_path}/bpe/tokenizer.json", "context": 32, "width": 64,
                "depth": 1, "heads": 4,
            },
            "model.width": 64, "data.train": f"table:{tmp_path}/pairs.tsv",
            "data.train_options": options, "data.batch_size": 64, "data.chunk": 0,
            "data.workers": 0, "data.augment": "none", "optim.steps": 60, "optim.lr": 4e-3,
            "run.device": "cpu", "run.precision": "fp32", "run.evaluations": (),
            "run.checkpoint_every": "60 steps", "run.tensorboard": False,
            "run.diagnostics_every": "", "optim.warmup": 10,
        }
    )  # fmt: skip
    model = load_model(train(config, tmp_path / "run")).eval()
    from vislang.data.decode import decode

    image, text = model.side("image"), model.side("text")
    with torch.no_grad():
        pictures = [image.tower.prepare(decode(source[i].image)) for i in range(64)]
        rows_i = F.normalize(image(torch.stack(pictures)), dim=-1)
        captions = [source[i].texts[0] for i in range(64)]
        rows_t = F.normalize(text(text.tower.prepare(captions)), dim=-1)
    cosine = rows_i @ rows_t.T
    own = torch.arange(64)
    assert (cosine.argmax(1) == own).double().mean() > 0.95
    assert (cosine.argmax(0) == own).double().mean() > 0.95


# Evaluation --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from vislang.train import train

    folder = tmp_path_factory.mktemp("scratch") / "run"
    changes = {"optim.steps": 8, "run.evaluations": (), "model.image.options.dropout": 0.3}
    train(with_changes(tiny(find_config("scratch")), changes), folder)
    return folder


def test_evaluation_is_still_and_its_pictures_are_those_of_training(run, tmp_path):
    """Twice the same numbers to the bit in spite of dropout; one way from file to pixels."""
    from vislang.data.decode import decode
    from vislang.data.sources import open_source
    from vislang.data.transforms import build_augment
    from vislang.evaluate import evaluate
    from vislang.models.pretrained import load_model

    found = [
        evaluate(str(run), "digits:test", ("zeroshot",), tmp_path / name)[0].values
        for name in ("one", "two")
    ]
    assert found[0] == found[1]
    tower = load_model(str(run)).side("image").tower
    pixels = decode(open_source("digits:test")[3].image)
    loaded = build_augment("none", tower.preprocess)(pixels, None)
    assert torch.equal(torch.as_tensor(loaded), tower.prepare(pixels))


def test_zeroshot_tells_classes_top_k_and_intervals(run, tmp_path):
    from vislang.evaluate import evaluate

    scores = evaluate(
        str(run), "digits:test", ("zeroshot",), tmp_path,
        options={"zeroshot": {"prompts": "varied"}},
    )[0]  # fmt: skip
    accuracy = scores.values["accuracy"]
    assert accuracy.low < accuracy.value < accuracy.high and accuracy.n == 500
    assert scores.values["accuracy@5"].value >= accuracy.value
    assert len(scores.tables["per_class"]["rows"]) == 10


def test_retrieval_counts_both_ways_over_several_captions(run, tmp_path):
    from vislang.evaluate import evaluate

    scores = evaluate(str(run), "digits:test", ("retrieval",), tmp_path)[0]
    for way in ("image_to_text", "text_to_image"):
        assert {f"{way}@{k}" for k in (1, 5, 10)} <= set(scores.values)


def test_the_typographic_and_bias_pages_are_made_of_such_a_model(run, tmp_path, test_data):
    """With the original's nine photos: accuracy by condition, the word's wins, margins."""
    from layouts import add_files
    from pictures import jpeg
    from vislang.cli.main import main

    groups = {f"{g}/{i}.jpg": jpeg(i, 20, 20) for g in ("one", "two") for i in range(3)}
    captions = {"good.txt": "a good thing\na fine thing\n", "bad.txt": "a bad thing\nan ill one\n"}
    folder = add_files(tmp_path / "groups", groups | captions)
    code = main([
        "probe", str(run), "digits:test", "--out", str(tmp_path / "probe"),
        "--analyses", "typographic,bias", "--bias", str(folder),
        "--photos", str(test_data / "typographic-bias/biastest_labels.csv"),
        "--analysis_options", "{typographic: {samples: 40}, bias: {resamples: 50}}",
    ])  # fmt: skip
    assert code == 0
    found = read_scores(next((tmp_path / "probe/scores").rglob("typographic.json")))
    assert {"accuracy_plain", "accuracy_blank", "word_wins", "margin_lost_to_word",
            "photos_word_wins", "photos_margin_with_word"} <= set(found.values)  # fmt: skip
    assert (
        found.values["photos_accuracy_with_word"].n + found.values["photos_accuracy_without_word"].n
        == 9
    )
    page = (tmp_path / "probe/report.html").read_text(encoding="utf-8")
    assert "ypographic" in page and "lean" in page


# Flags -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "value"), [("false", False), ("true", True)])
def test_a_flag_that_says_false_is_false(text, value):
    from vislang.cli.arguments import read_arguments
    from vislang.cli.train import train

    given = ["scratch", "--out", "x", "--run.grad_checkpoint", text]
    assert read_arguments(train, given, "vislang train")["config"].run.grad_checkpoint is value


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.image.options.size": "S/8@111"}, "No size is called"),
        ({"model.image.name": "scratch_vitt"}, "No tower is called"),
        ({"model.image.pretrained": "absent.safetensors"}, "absent.safetensors"),
    ],
)
def test_unknown_names_are_refused_before_data(changes, said, tmp_path):
    """The data are not even there: the model is what is complained about."""
    from vislang.errors import UserError
    from vislang.train import train

    config = small(**{"data.train": "digits:train", "run.device": "cpu"}, **changes)
    with pytest.raises(UserError, match=said):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
