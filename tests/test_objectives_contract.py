"""Promises that every objective keeps: to be listed in OBJECTIVES is to be tested."""

import copy
import math

import pytest
import torch

from objectives_cases import NAMES, descend, gradients, leaves, make, rows
from vislang.errors import UserError
from vislang.lookup import lookup
from vislang.objectives import OBJECTIVES
from vislang.objectives.objective import Objective

# A random start: what the loss is about, for B unrelated pairs of wide embeddings.
START = {"infonce": lambda b: math.log(b), "siglip": lambda b: 10.0}
# Parameters that get no gradient by design (averages of others).
WITHOUT_GRADIENT: dict[str, tuple[str, ...]] = {}


def close(left, right, tolerance=1e-9):
    torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_an_objective_with_a_sentence_and_needs(name):
    made = lookup("objective", OBJECTIVES, name)
    objective = make(name)
    assert isinstance(objective, Objective)
    assert objective.needs
    assert (made.__doc__ or "").strip().split("\n")[0].endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_loss_is_one_finite_number_with_detached_parts(name):
    objective = make(name)
    loss = objective(**rows(objective, 8))
    assert loss.shape == () and loss.isfinite()
    assert objective.parts
    for part, value in objective.parts.items():
        assert value.shape == () and value.isfinite() and not value.requires_grad, part


@pytest.mark.parametrize("name", NAMES)
def test_random_start_has_the_right_scale(name):
    objective = make(name, width=2048, dtype=torch.float32)
    loss = objective(**rows(objective, 64, width=2048, dtype=torch.float32))
    assert loss.item() == pytest.approx(START[name](64), rel=0.1, abs=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_every_embedding_and_parameter_gets_its_gradient(name):
    objective = make(name)
    _, by_key, by_name = gradients(objective, rows(objective, 8))
    assert any(gradient is not None for gradient in by_key.values())
    for key, gradient in {**by_key, **by_name}.items():
        if key in WITHOUT_GRADIENT.get(name, ()):
            assert gradient is None, key
        else:
            assert gradient is not None and gradient.isfinite().all(), key
            assert gradient.abs().max() > 0, key


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_global_batch_does_not_matter(name):
    objective = make(name)
    batch = rows(objective, 9)
    shuffle = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    shuffled = leaves({key: value[shuffle] for key, value in batch.items()})
    loss, by_key, by_name = gradients(copy.deepcopy(objective), batch)
    other_loss, other_by_key, other_by_name = gradients(copy.deepcopy(objective), shuffled)
    close(other_loss, loss)
    for key, gradient in by_key.items():
        if gradient is not None:
            close(other_by_key[key], gradient[shuffle])
    for key, gradient in by_name.items():
        if gradient is not None:
            close(other_by_name[key], gradient)


@pytest.mark.parametrize("name", NAMES)
def test_forward_changes_nothing_until_the_step_is_done(name):
    objective = make(name)
    batch = rows(objective, 8)
    first = objective(**batch)
    objective(**rows(objective, 8, seed=1))
    assert torch.equal(objective(**batch), first)


@pytest.mark.parametrize("name", NAMES)
def test_state_makes_a_round_trip(name):
    objective = make(name)
    for step in range(2):
        _, _, by_name = gradients(objective, rows(objective, 7, seed=step))
        descend(objective, by_name)
    again = make(name, seed=9)
    again.load_state_dict(objective.state_dict())
    for step in range(2, 5):
        loss, _, by_name = gradients(objective, rows(objective, 7, seed=step))
        other, _, other_by_name = gradients(again, rows(again, 7, seed=step))
        assert torch.equal(loss, other)
        descend(objective, by_name)
        descend(again, other_by_name)


@pytest.mark.parametrize("name", NAMES)
def test_two_objectives_under_one_seed_are_the_same(name):
    left, right = make(name).state_dict(), make(name).state_dict()
    assert left.keys() == right.keys()
    for key in left:
        assert torch.equal(left[key], right[key]), key


def _hard(kind, batch):
    """Batches that break naive softmaxes, norms and standard deviations."""
    made = {}
    for number, (key, value) in enumerate(batch.items()):
        if not value.is_floating_point() or value.ndim != 2:
            made[key] = value.detach()
        elif kind == "opposite":  # every pair points the other way
            made[key] = torch.ones_like(value) * (-1) ** number
        elif kind == "identical":
            made[key] = torch.ones_like(value)
        elif kind == "duplicates":
            made[key] = value.detach()[torch.arange(len(value)) // 2]
        elif kind == "zero":
            made[key] = torch.zeros_like(value)
    return leaves(made)


@pytest.mark.parametrize("kind", ["opposite", "identical", "duplicates", "zero"])
@pytest.mark.parametrize("name", NAMES)
def test_hard_batches_stay_finite_in_single_precision(name, kind):
    objective = make(name, dtype=torch.float32)
    for parameter, value in objective.named_parameters():
        if parameter.endswith("log_scale"):
            value.data.fill_(math.log(100))
    batch = _hard(kind, rows(objective, 8, dtype=torch.float32))
    loss, by_key, by_name = gradients(objective, batch)
    assert loss.isfinite()
    for key, gradient in {**by_key, **by_name}.items():
        assert gradient is None or gradient.isfinite().all(), key


@pytest.mark.parametrize("name", NAMES)
def test_gradient_agrees_with_finite_differences(name):
    objective = make(name)
    batch = rows(objective, 5)
    names = [
        key for key, gradient in gradients(objective, batch)[1].items() if gradient is not None
    ]
    parameters = [p for p in objective.parameters() if p.requires_grad]
    rest = {key: value for key, value in batch.items() if key not in names}

    def loss(*values):
        return objective(**dict(zip(names, values[: len(names)])), **rest)

    torch.autograd.gradcheck(
        loss, [*(batch[key] for key in names), *parameters], fast_mode=True, atol=1e-5
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_key_is_named(name):
    objective = make(name)
    batch = rows(objective, 4)
    gone = objective.needs[-1]
    del batch[gone]
    with pytest.raises(UserError, match=f"has no {gone}"):
        objective(**batch)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_is_refused(name):
    with pytest.raises(UserError, match=r"objective\.options has no 'tempratur'"):
        make(name, tempratur=0.1)
