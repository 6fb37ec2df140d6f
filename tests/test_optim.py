"""Parameter groups and the learning-rate schedule."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vislang.config import OptimConfig
from vislang.errors import UserError
from vislang.train.optim import (
    Schedule,
    make_optimizer,
    make_schedule,
    parameter_groups,
    set_rate,
    undecayed_names,
)


class Tower(nn.Module):
    """Every kind of parameter that must not decay, beside those that must."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 2)
        self.class_embedding = nn.Parameter(torch.zeros(1, 1, 4))
        self.positional_embedding = nn.Parameter(torch.zeros(5, 4))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 4))
        self.ln_post = nn.LayerNorm(4)
        self.bn = nn.BatchNorm2d(4)
        self.token_embedding = nn.Embedding(7, 4)
        self.attn = nn.MultiheadAttention(4, 2)
        self.log_scale = nn.Parameter(torch.tensor([[1.0]]))
        self.projection = nn.Linear(4, 4, bias=False)


def test_norms_biases_positions_class_token_and_scale_do_not_decay():
    tower = Tower()
    decayed = {n for n, _ in tower.named_parameters()} - undecayed_names(tower)
    assert decayed == {
        "conv.weight",
        "token_embedding.weight",
        "attn.in_proj_weight",
        "attn.out_proj.weight",
        "projection.weight",
    }


def test_every_trainable_parameter_is_in_exactly_one_group():
    tower = Tower()
    tower.conv.requires_grad_(False)
    tied = nn.Linear(4, 4, bias=False)
    tied.weight = tower.projection.weight
    groups = parameter_groups({"model": tower, "objective": tied}, 0.2)
    members = [id(p) for group in groups for p in group["params"]]
    wanted = {id(p) for p in tower.parameters() if p.requires_grad}
    assert sorted(members) == sorted(wanted)
    assert {g["name"]: g["weight_decay"] for g in groups} == {
        "model/decay": 0.2,
        "model/no_decay": 0.0,
    }


def test_a_run_in_which_nothing_can_be_trained_is_refused():
    tower = Tower().requires_grad_(False)
    with pytest.raises(UserError, match=r"Nothing can be trained.*model.image.frozen=false"):
        parameter_groups({"model": tower}, 0.2)


@given(
    steps=st.integers(1, 500),
    share=st.floats(0, 1),
    lr=st.floats(1e-6, 1),
    floor=st.floats(0, 1e-6),
)
def test_the_schedule_rises_to_lr_then_falls_to_min_lr(steps, share, lr, floor):
    warmup = int(share * steps)
    schedule = Schedule(lr, floor, warmup, steps)
    rates = [schedule.rate(step) for step in range(steps)]
    up, down = rates[:warmup], rates[max(warmup - 1, 0) :]
    assert up == sorted(up)
    assert all(a >= b for a, b in itertools.pairwise(down))
    assert min(rates) >= 0 and max(rates) <= lr * (1 + 1e-12)
    if warmup:
        assert math.isclose(rates[warmup - 1], lr)
    if warmup < steps:
        assert math.isclose(rates[-1], floor, abs_tol=1e-15)


def test_the_optimizers_real_rate_at_the_end_of_warm_up_is_the_configured_one():
    """Read off AdamW's own update: with constant gradients a step moves a weight by lr."""
    config = OptimConfig(lr=0.01, warmup=4, weight_decay=0.0, eps=0.0)
    module = nn.Linear(1, 1, bias=False)
    optimizer = make_optimizer({"model": module}, config)
    schedule = make_schedule(config, steps=10)
    moved = []
    for step in range(10):
        before = module.weight.item()
        module.weight.grad = torch.ones(1, 1)
        set_rate(optimizer, schedule.rate(step))
        optimizer.step()
        moved.append(before - module.weight.item())
    assert math.isclose(moved[3], 0.01, rel_tol=1e-4)
    assert max(moved) <= 0.01 * (1 + 1e-4)
    assert math.isclose(moved[1], 0.005, rel_tol=1e-4)
    assert abs(moved[9]) < 1e-8


def test_a_group_scale_multiplies_the_rate():
    optimizer = make_optimizer({"model": Tower()}, OptimConfig())
    optimizer.param_groups[0]["lr_scale"] = 0.5
    set_rate(optimizer, 0.1)
    assert [g["lr"] for g in optimizer.param_groups] == [0.05, 0.1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warmup": 11}, "optim.warmup is 11 steps, but the run has only 10"),
        ({"warmup": -1}, "must not be negative"),
        ({"lr": -1.0}, "must not be negative"),
    ],
)
def test_impossible_schedules_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        make_schedule(OptimConfig(**changes), 10)


def test_a_fraction_of_warm_up_is_of_all_steps():
    assert make_schedule(OptimConfig(warmup=0.1), 200).warmup == 20
