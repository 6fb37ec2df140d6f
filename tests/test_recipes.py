"""Recipes: complete configs, and tiny twins that really train."""

import dataclasses
import math

import pytest

from vislang.config import TrainConfig, from_dict, to_dict
from vislang.lookup import lookup
from vislang.recipes import RECIPES, find_config
from vislang.recipes.tiny import tiny


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
    from vislang.models import HEADS
    from vislang.models.towers import TOWERS
    from vislang.models.towers.scratch_text import TextOptions
    from vislang.models.towers.scratch_vit import VitOptions
    from vislang.objectives import OBJECTIVES

    config = find_config(name)
    for tower in (config.model.image, config.model.text):
        assert tower.name in TOWERS
        assert tower.head in HEADS
        options = {"scratch_vit": VitOptions, "scratch_text": TextOptions}.get(tower.name)
        if options:
            from_dict(options, tower.options)
    assert config.objective.name in OBJECTIVES
    assert config.data.augment in AUGMENTS
    assert set(config.run.evaluations) <= set(EVALUATIONS)


@pytest.mark.parametrize("name", RECIPES)
def test_the_tiny_twin_keeps_what_makes_the_recipe(name):
    config, twin = find_config(name), tiny(find_config(name))
    assert (twin.recipe, twin.objective) == (config.recipe, config.objective)
    for mine, theirs in (
        (twin.model.image, config.model.image),
        (twin.model.text, config.model.text),
    ):
        assert (mine.frozen, mine.head) == (theirs.frozen, theirs.head)
    assert bool(twin.data.chunk) == bool(config.data.chunk)
    assert twin.data.augment == config.data.augment


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

    half = dataclasses.replace(config.run, keep=0)
    again = dataclasses.replace(config, run=half)
    first = train(again, tmp_path / "again")
    for later in sorted((tmp_path / "again" / "checkpoints").iterdir())[1:]:
        (later / "done.json").unlink()  # as if killed while writing it
    assert train(again, tmp_path / "again") == first
    assert (first / "model.safetensors").read_bytes() == (last / "model.safetensors").read_bytes()
