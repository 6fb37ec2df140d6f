"""Rates and decays of the parts of a dual encoder: towers, heads, layers, sides that rest."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from runs import IMAGE, TEXT, digits
from towers_cases import CASES
from vislang.config import ModelConfig, OptimConfig
from vislang.errors import UserError
from vislang.models.build import build_model
from vislang.models.dual import DualEncoder, Side
from vislang.models.layers import find_layers
from vislang.objectives.infonce import InfoNCE
from vislang.train.loop import train
from vislang.train.optim import (
    make_optimizer,
    make_schedule,
    make_schedules,
    parameter_groups,
    set_rate,
)

GOLDEN = Path(__file__).parent / "golden"
SCALES = json.loads((GOLDEN / "adapters.json").read_text())["lr_scales"]["ViT/llrd"]
RATES = np.load(GOLDEN / "weights.npz")


def deep(part, depth: int):
    return replace(part, options={**part.options, "depth": depth})


def dual(image=IMAGE, text=TEXT) -> DualEncoder:
    return build_model(ModelConfig(image, text, width=16))


def settings_of(groups) -> dict[str, tuple[float, float]]:
    """Parameter name -> (scale of its rate, weight decay)."""
    return {n: (g["lr_scale"], g["weight_decay"]) for g in groups for n in g["names"]}


def test_layer_decay_is_the_originals_where_that_was_right():
    """Blocks, what is behind them, and heads; its embeddings missed the decay by their prefix."""
    modules = {"model": dual(deep(IMAGE, 3), deep(TEXT, 2)), "objective": InfoNCE()}
    config = OptimConfig(layer_decay_image=0.9, layer_decay_text=0.8)
    found = settings_of(parameter_groups(modules, 0.2, config))
    for theirs, scale in SCALES.items():
        name = theirs.replace("_backbone", ".tower").replace("_projection_head", ".head.0")
        same = [k for k in found if k.startswith(f"model.{name.rpartition('.')[0]}")]
        if "resblocks" in theirs or "ln_post" in theirs or "ln_final" in theirs:
            assert same and all(math.isclose(found[k][0], scale) for k in same), theirs
    assert found["model.image.head.0.weight"][0] == found["objective.log_scale"][0] == 1.0
    for name, scale in (
        ("image.tower.class_embedding", 0.9**4),
        ("image.tower.positional_embedding", 0.9**4),
        ("image.tower.conv1.weight", 0.9**4),
        ("text.tower.token_embedding.weight", 0.8**3),
        ("text.tower.positional_embedding", 0.8**3),
    ):
        assert math.isclose(found[f"model.{name}"][0], scale), name


@pytest.mark.parametrize("name", CASES)
def test_layer_decay_for_every_builder(name):
    """decay^(N + 1 - layer), layer 0 the embeddings; each trainable parameter exactly once."""
    case = CASES[name]
    tower = case.build()
    sides = {"image": None, "text": None}
    sides[case.side] = Side(tower, nn.Linear(int(tower.width), 4), 4)
    config = OptimConfig(layer_decay_image=0.5, layer_decay_text=0.5)
    groups = parameter_groups({"model": DualEncoder(**sides)}, 0.1, config)
    found = settings_of(groups)
    layers = find_layers(tower)
    assert len(found) == sum(len(g["params"]) for g in groups)
    for parameter, (scale, _) in found.items():
        _, _, kind, rest = parameter.split(".", 3)
        wanted = 1.0 if kind == "head" else 0.5 ** (layers.last - layers.number[rest])
        assert math.isclose(scale, wanted), parameter
    assert {round(math.log2(s)) for s, _ in found.values()} >= {0, -layers.last}


def test_each_part_has_its_own_rate_and_decay():
    config = OptimConfig(
        lr=1e-3, lr_image=1e-4, lr_text=0.0, lr_head=2e-3,
        weight_decay=0.2, weight_decay_image=0.1, weight_decay_head=0.0,
    )  # fmt: skip
    modules = {"model": dual(), "objective": InfoNCE()}
    found = settings_of(parameter_groups(modules, config.weight_decay, config))
    matrix = "tower.transformer.resblocks.0.mlp.c_fc.weight"
    assert found[f"model.image.{matrix}"] == pytest.approx((0.1, 0.1))
    assert found[f"model.text.{matrix}"] == (0.0, 0.2)
    assert found["model.image.head.0.weight"] == found["model.text.head.0.weight"] == (2.0, 0.0)
    assert found["objective.log_scale"] == (1.0, 0.0)
    assert found["model.image.tower.ln_post.weight"] == pytest.approx((0.1, 0.0))
    optimizer = make_optimizer(modules, config)
    set_rate(optimizer, {"": 0.5, "image": 0.3, "text": 0.2})
    rates = {g["name"]: g["lr"] for g in optimizer.param_groups}
    assert rates["model.image.tower/decay"] == pytest.approx(0.03)
    assert rates["model.image.head/decay"] == pytest.approx(0.6)
    assert rates["model.text.head/decay"] == pytest.approx(0.4)
    assert rates["objective/no_decay"] == 0.5


@given(
    decay=st.sampled_from([0.5, 0.9, 1.0]),
    image=st.sampled_from(["", "lora", "prefix_tuning"]),
    lock=st.sampled_from([(), ("embeddings",), ("layers:0",)]),
)
def test_every_trainable_parameter_is_in_exactly_one_group(decay, image, lock):
    model = dual(replace(IMAGE, adapter=image), replace(TEXT, lock=lock))
    config = OptimConfig(layer_decay_image=decay, layer_decay_text=decay, lr_head=0.1)
    groups = parameter_groups({"model": model, "objective": InfoNCE()}, 0.1, config)
    members = [id(p) for group in groups for p in group["params"]]
    wanted = {id(p) for p in model.parameters() if p.requires_grad}
    assert len(members) == len(set(members)) and wanted < set(members)
    assert len({g["name"] for g in groups}) == len(groups)
    names = {k.removeprefix("model."): v for k, v in settings_of(groups).items()}
    added = {v[0] for k, v in names.items() if ".adapters." in k}
    assert added <= {1.0}, "what was added learns at the full rate"


def test_the_cosine_is_the_originals_one_step_earlier():
    """Its last step still moves; ours ends at min_lr, so step k has the rate of its k + 1."""
    theirs, base = RATES["lr_schedules/cosine"][:, 0], float(RATES["lr_schedules/cosine_base"])
    config = OptimConfig(lr=base, warmup=int(RATES["lr_schedules/warmup"]))
    ours = [make_schedule(config, 50).rate(step) for step in range(50)]
    np.testing.assert_allclose(ours[:10], theirs[:10], rtol=1e-12)
    np.testing.assert_allclose(ours[10:49], theirs[11:50], rtol=1e-12)
    assert ours[49] == 0.0


def test_two_phases_are_protoclips():
    """Image rate to 0 at its end; text from its start to its end, where the original's cosine
    goes up again and ours stays 0."""
    lr, lr_text, warmup, total, visual, start, end = RATES["lr_schedules/proto_args"].tolist()
    theirs = RATES["lr_schedules/proto"]
    config = OptimConfig(
        lr=lr, lr_text=lr_text, warmup=warmup, image_until=visual / 10,
        text_from=start / 10, text_until=end / 10,
    )  # fmt: skip
    schedules = make_schedules(config, int(total), steps_per_epoch=10)
    image = np.array([schedules["image"].rate(step) for step in range(50)])
    text = np.array([schedules["text"].rate(step) for step in range(50)]) * lr_text / lr
    np.testing.assert_allclose(image[:10], theirs[:10, 0], rtol=1e-12)
    np.testing.assert_allclose(image[10:49], theirs[11:50, 0], rtol=1e-12, atol=1e-18)
    assert not image[39:].any() and image[38] > 0
    np.testing.assert_allclose(text[:15], theirs[:15, 2], rtol=1e-12)
    np.testing.assert_allclose(text[15:44], theirs[16:45, 2], rtol=1e-12)
    assert not text[:5].any() and not text[44:].any()
    assert theirs[46, 2] > 0
    assert schedules[""].rate(48) > 0


def test_a_resting_side_stays_bit_for_bit(tmp_path):
    """LiT for the last half of a run of 12 steps: the image side's weights no longer move."""
    # An epoch is some 45 steps, so the image side's last is the seventh at most.
    config = digits(optim__image_until=0.13, optim__warmup=1, run__checkpoint_every="6 steps",
                    run__keep=0)  # fmt: skip
    train(config, tmp_path)
    steps = sorted((tmp_path / "checkpoints").iterdir())
    first, last = (load_file(step / "model.safetensors") for step in steps)
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    assert moved and all(name.startswith("text.") for name in moved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_decay_image": 0.0}, "layer_decay_image must be above 0 and at most 1, got 0.0"),
        ({"layer_decay_text": 1.5}, "layer_decay_text must be above 0 and at most 1"),
        ({"lr_text": -0.5}, r"optim.lr_text must not be negative \(-1: as the run\), got -0.5"),
        ({"weight_decay_head": -2.0}, "optim.weight_decay_head must not be negative"),
        ({"lr": 0.0, "lr_head": 0.1}, "optim.lr_head is 0.1, but optim.lr, which its curve"),
    ],
)
def test_impossible_parts_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        parameter_groups({"model": dual()}, 0.1, OptimConfig(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_from": 3.0, "image_until": 2.0}, "image_from is epoch 3 and optim.image_until ep"),
        ({"text_until": 9.0}, "the run goes from epoch 0 to 5"),
        ({"text_from": -1.0}, "optim.text_from is epoch -1"),
        ({"image_from": 4.0, "warmup": 15}, "15 steps, but the run has from step 40 to 50, which"),
    ],
)
def test_impossible_phases_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        make_schedules(OptimConfig(**changes), 50, steps_per_epoch=10)
