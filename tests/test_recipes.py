"""Recipes: complete configs, and tiny twins that really train."""

import dataclasses
import math

import pytest

from vislang.config import TowerConfig, TrainConfig, from_dict, to_dict, with_changes
from vislang.errors import UserError
from vislang.lookup import lookup
from vislang.recipes import RECIPES, find_config
from vislang.recipes.tiny import tiny

DISTILLING = {  # objective -> options that keep it small
    "simreg": {},
    "simreg_l1": {},
    "simreg_smooth_l1": {},
    "vicreg": {},
    "barlow_twins": {},
    "rkd": {},
    "seed": {"queue": 48},
    "compress_1q": {"queue": 48},
    "compress_2q": {"queue": 48},
    "protocpc": {"prototypes": 16, "hidden": 32, "bottleneck": 16},
    "dino": {"prototypes": 16, "hidden": 32, "bottleneck": 16},
}
DIRECTED = [name for name in DISTILLING if name not in ("vicreg", "barlow_twins")]
ALONE = [name for name in RECIPES if find_config(name).model.text.name == "none"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_a_complete_config_that_knows_its_name(name):
    config = find_config(name)
    assert config.recipe == name
    assert from_dict(TrainConfig, to_dict(config)) == config
    assert lookup("recipe", RECIPES, name).__doc__


@pytest.mark.parametrize("name", RECIPES)
def test_names_and_options_of_a_recipe_exist(name):
    from vislang.data import AUGMENTS
    from vislang.evaluate import EVALUATIONS
    from vislang.models import DECODERS, HEADS
    from vislang.models.decoder import DecoderOptions
    from vislang.models.towers import TOWERS
    from vislang.models.towers.scratch_text import TextOptions
    from vislang.models.towers.scratch_vit import VitOptions
    from vislang.objectives import OBJECTIVES

    config = find_config(name)
    for tower in (config.model.image, config.model.text):
        if tower.name == "none":
            continue
        assert tower.name in TOWERS
        assert tower.head in HEADS
        options = {"scratch_vit": VitOptions, "scratch_text": TextOptions}.get(tower.name)
        if options:
            from_dict(options, tower.options)
    if config.model.decoder.name:
        assert config.model.decoder.name in DECODERS
        from_dict(DecoderOptions, config.model.decoder.options)
    assert config.objective.name in OBJECTIVES
    assert {*config.data.augment.split(","), config.data.crop_augment} <= set(AUGMENTS)
    assert set(config.run.evaluations) <= set(EVALUATIONS)


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "demo"])
def test_the_towers_of_the_full_size_can_be_built(name):
    """Shapes only, without memory: names, options, heads and widths fit each other."""
    import torch

    from vislang.models.build import build_model

    config = find_config(name).model
    if config.text.name == "sentence_transformers":  # its architecture lies beside its weights
        config = dataclasses.replace(config, text=TowerConfig("none"))
    if config.text == config.image:  # a model of open_clip: one of its sides speaks for both
        config = dataclasses.replace(config, text=TowerConfig("none"))
    real = "open_clip" in (config.image.name, config.text.name)  # it reads numbers as it builds
    with torch.device("cpu" if real else "meta"):
        model = build_model(config, weights=False)
    assert model.width == (config.width or model.image.tower.width)


@pytest.mark.parametrize("name", RECIPES)
def test_the_tiny_twin_keeps_what_makes_the_recipe(name):
    config, twin = find_config(name), tiny(find_config(name))
    assert (twin.recipe, twin.objective.name) == (config.recipe, config.objective.name)
    assert twin.objective.teacher == config.objective.teacher
    assert set(twin.objective.options) == set(config.objective.options)
    assert twin.model.decoder.name == config.model.decoder.name
    for mine, theirs in (
        (twin.model.image, config.model.image),
        (twin.model.text, config.model.text),
    ):
        assert (mine.frozen, mine.head) == (theirs.frozen, theirs.head)
        assert (mine.name == "none") == (theirs.name == "none")
    for field in ("chunk", "crop_size", "episode"):
        assert bool(getattr(twin.data, field)) == bool(getattr(config.data, field))
    assert twin.data.augment == config.data.augment
    assert bool(twin.optim.image_until) == bool(config.optim.image_until)


@pytest.mark.parametrize("name", RECIPES)
def test_the_tiny_twin_trains_is_judged_and_goes_on_where_it_stopped(name, tmp_path):
    from vislang.evaluate import judge_from_config
    from vislang.train import train
    from vislang.train.log import read_log

    config = tiny(find_config(name))
    last = train(config, tmp_path / "run", judge=judge_from_config(config, tmp_path / "run"))
    assert last.name == f"{config.optim.steps:09d}"
    lines = read_log(tmp_path / "run")
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert len(losses) == config.optim.steps
    assert all(math.isfinite(loss) for loss in losses)
    judged = {line["evaluation"] for line in lines if line["kind"] == "eval"}
    assert judged == set(config.run.evaluations)

    whole = {path.name: path.read_bytes() for path in last.glob("*.safetensors")}
    (last / "done.json").unlink()  # as if killed while writing it
    assert train(config, tmp_path / "run") == last
    assert {path.name: path.read_bytes() for path in last.glob("*.safetensors")} == whole
    if name == "protoclip":
        phases = [line["phase"] for line in lines if line["kind"] == "episode"]
        assert phases == ["clip", "prototypes", "prototypes", "lit"]


# -- distillation -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "name"),
    [("text_to_image", name) for name in DISTILLING]
    + [("image_to_text", name) for name in ("rkd", "seed", "dino", "vicreg")],
)
def test_any_distilling_objective_takes_the_place_in_a_distillation(recipe, name, tmp_path):
    from safetensors.numpy import load_file

    from vislang.train import train
    from vislang.train.log import read_log

    changes = {"objective.name": name, "objective.options": DISTILLING[name]}
    config = with_changes(tiny(find_config(recipe)), changes | {"run.checkpoint_every": "1 steps"})
    last = train(config, tmp_path)
    losses = [line["loss"] for line in read_log(tmp_path) if line["kind"] == "train"]
    assert len(losses) == 4
    assert all(math.isfinite(loss) for loss in losses)
    before = load_file(sorted(last.parent.iterdir())[0] / "model.safetensors")
    after = load_file(last / "model.safetensors")
    moved = {key.split(".")[0] for key in after if (before[key] != after[key]).any()}
    assert moved == {"image" if recipe == "text_to_image" else "text"}


@pytest.mark.parametrize("name", DIRECTED)
@pytest.mark.parametrize(("recipe", "student"), [("text_to_image", 0), ("image_to_text", 1)])
def test_the_direction_stays_when_the_objective_is_exchanged(recipe, student, name, tmp_path):
    """The gradient of the objective reaches the student's embeddings alone."""
    import torch

    from vislang.cli.arguments import read_arguments
    from vislang.cli.train import train
    from vislang.objectives.build import build_objective

    argv = [recipe, "--out", str(tmp_path), "--objective.name", name]
    config = read_arguments(train, argv, "vislang train")["config"].objective
    assert config.options == {} or config.name == "simreg"
    objective = build_objective(dataclasses.replace(config, options=DISTILLING[name]), 8)
    torch.manual_seed(0)
    rows = [torch.randn(6, 8, requires_grad=True) for _ in range(2)]
    objective(image=rows[0], text=rows[1]).backward()
    assert [row.grad is not None and bool(row.grad.any()) for row in rows] == [
        side == student for side in (0, 1)
    ]


def test_a_teacher_that_is_no_side_is_refused():
    from vislang.objectives.build import build_objective

    config = with_changes(find_config("text_to_image"), {"objective.teacher": "sentence"})
    with pytest.raises(UserError, match=r"objective\.teacher must be image, text"):
        build_objective(config.objective, 8)


# -- images alone -------------------------------------------------------------------------------


def test_recipes_for_images_alone_have_no_text_side():
    assert {"simclr", "simsiam", "byol", "nnclr", "swav", "dino", "vicreg", "barlow"} <= set(ALONE)


def test_a_model_without_texts_is_saved_loaded_and_evaluated(tmp_path, capsys):
    import torch

    from vislang.cli.evaluate import evaluate, servable, sides_of
    from vislang.cli.export import export
    from vislang.data.sources import open_source
    from vislang.models.pretrained import load_model
    from vislang.train import train

    config = tiny(find_config("simclr"))
    train(config, tmp_path / "run")
    export(str(tmp_path / "run"), out=tmp_path / "export", format="vislang")
    models = [load_model(tmp_path / name) for name in ("run", "export")]
    image = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(models[0](image=image), models[1](image=image), rtol=0, atol=0)
    assert models[0].text is None

    for name in ("run", "export"):
        assert sides_of(str(tmp_path / name)) == ("image",)
    asked = servable(open_source("digits:test"), sides=("image",))
    assert {"knn", "probe", "cluster", "fewshot", "overview"} <= set(asked)
    assert not {"zeroshot", "retrieval"} & set(asked)
    assert "zeroshot" in servable(open_source("digits:test"))
    how = {"workers": 0, "device": "cpu", "precision": "fp32"}
    evaluate(str(tmp_path / "run"), suite=("knn",), **how)
    assert (tmp_path / "run" / "scores" / "000000004" / "knn.json").is_file()
    capsys.readouterr()


def test_evaluations_that_need_texts_are_left_out_aloud(tmp_path, capsys):
    from vislang.cli.train import judge_of

    config = with_changes(tiny(find_config("simclr")), {"run.evaluations": ("zeroshot", "knn")})
    assert judge_of(config, tmp_path) is not None
    assert "zeroshot is left out" in capsys.readouterr().out


# -- what cannot be -----------------------------------------------------------------------------


def start(config: TrainConfig, folder) -> None:
    from vislang.train import train

    train(config, folder)


def test_an_image_only_recipe_with_a_text_objective_is_refused(tmp_path):
    config = with_changes(
        tiny(find_config("simclr")), {"objective.name": "infonce", "objective.options": {}}
    )
    with pytest.raises(UserError, match=r"needs text, but the model has\s+no text side"):
        start(config, tmp_path)
    assert not (tmp_path / "config.yaml").exists()


def test_coca_without_a_decoder_is_refused(tmp_path):
    config = with_changes(
        tiny(find_config("coca")), {"model.decoder.name": "", "model.decoder.options": {}}
    )
    with pytest.raises(UserError, match=r"model\.decoder"):
        start(config, tmp_path)


def test_unicl_wants_labels_but_takes_pairs_beside_labelled_images(tmp_path):
    from PIL import Image

    for name in ("a", "b"):
        Image.new("RGB", (16, 16), "red").save(tmp_path / f"{name}.png")
    (tmp_path / "pairs.csv").write_text("image,caption\na.png,a boat\nb.png,a house\n")
    pairs = f"table:{tmp_path / 'pairs.csv'}"
    twin = tiny(find_config("unicl"))
    changes = {"data.train": pairs, "data.train_options": {}, "data.batch_size": 2}
    with pytest.raises(UserError, match="label is needed too"):
        start(with_changes(twin, changes), tmp_path / "refused")
    changes = {"data.train": "mix", "data.train_options": {"parts": {"digits:train": 1, pairs: 1}}}
    start(with_changes(twin, changes), tmp_path / "run")


def test_protoclips_phases_must_agree(tmp_path):
    config = with_changes(tiny(find_config("protoclip")), {"optim.image_until": 2.0})
    with pytest.raises(UserError, match=r"optim\.image_until"):
        start(config, tmp_path)


def test_swav_without_small_crops_of_a_size_the_tower_takes_is_refused(tmp_path):
    config = with_changes(tiny(find_config("swav")), {"data.crop_size": 9})
    with pytest.raises(UserError, match="multiples of 8"):
        start(config, tmp_path)
