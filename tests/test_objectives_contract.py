"""Promises that every objective keeps: to be listed in OBJECTIVES is to be tested."""

import copy
import math

import pytest
import torch
from torch.overrides import TorchFunctionMode

from objectives_cases import NAMES, descend, gradients, leaves, make, option_names, rows
from vislang.errors import UserError
from vislang.lookup import lookup
from vislang.objectives import OBJECTIVES
from vislang.objectives.objective import Objective

WIDE, MANY = 2048, 64  # unrelated pairs of wide embeddings: cosines are nearly 0
LN = math.log
# What the loss should then be about, and options that take narrow projectors out of the way.
START = {
    "infonce": (LN(MANY), {}),
    "siglip": (10.0, {}),  # the bias alone: softplus(10) for the own pair, e^-10 for others
    "unicl": (LN(MANY), {}),
    "cross_entropy": (LN(3) + 1 / 6, {}),  # logits of variance 1/3
    "simcse": (LN(MANY) + 0.1, {}),
    "declip": (LN(MANY), {}),
    "slip": (LN(MANY) + LN(2 * MANY - 1), {"projector": []}),
    "coca": (LN(MANY) + 2 * (LN(5) + 0.4), {}),  # five words, logits of variance 1
    "protoclip": (LN(MANY) + LN(4), {"prototype_temperature": 1.0}),
    "simreg": (2.0, {}),
    "simreg_l1": (math.sqrt(4 * WIDE / math.pi), {}),  # entries differ by N(0, 2/D)
    "simreg_smooth_l1": (1.0, {}),
    "rkd": (0.0, {}),  # all distances equal, all angles 60 degrees
    "seed": (LN(10 + 1) + 0.05, {}),
    "compress_1q": (25**2 / WIDE * 0.9, {}),  # variance of logits · (1 - 1 / queue)
    "compress_2q": (25**2 / WIDE * 0.9, {}),
    "protocpc": (LN(11), {"layers": 0}),
    "dino": (LN(11), {"layers": 0}),
    "vicreg": (25 * 2 + 0.9 + 2 * (WIDE - 1) / (MANY - 1), {"projector": []}),
    "barlow_twins": (WIDE + 0.0051 * WIDE * (WIDE - 1) / MANY, {"projector": []}),
    "ntxent": (LN(2 * MANY - 1), {"projector": []}),
    "simsiam": (0.0, {"projector": []}),
    "byol": (4.0, {"projector": []}),
    "nnclr": (LN(MANY), {"projector": []}),
    "swav": (LN(7), {"projector": []}),
    "disentangle": (1.0, {}),  # parts start at 0
}


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
    expected, options = START[name]
    objective = make(name, width=WIDE, dtype=torch.float32, **options)
    loss = objective(**rows(objective, MANY, width=WIDE, dtype=torch.float32))
    assert loss.item() == pytest.approx(expected, rel=0.1, abs=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_every_embedding_and_parameter_gets_its_gradient(name):
    objective = make(name)
    _, by_key, by_name = gradients(objective, rows(objective, 8))
    taught_by = getattr(objective, "teacher", None)
    assert any(gradient is not None for gradient in by_key.values())
    for key, gradient in {**by_key, **by_name}.items():
        if key == taught_by or (name == "protocpc" and key == "text"):
            assert gradient is None, key  # a teacher is detached unless one asks
        else:
            assert gradient is not None and gradient.isfinite().all(), key
            assert gradient.abs().max() > 0, key


DISTILLATIONS = [name for name in NAMES if "detach" in option_names(name)]


@pytest.mark.parametrize("name", DISTILLATIONS)
@pytest.mark.parametrize("teacher", ["text", "image"])
def test_the_teacher_is_detached_unless_asked(name, teacher):
    if name == "dino":
        options = {"teacher": teacher, "crops": 0}
    else:
        options = {"teacher": teacher}
    student = "image" if teacher == "text" else "text"
    objective = make(name, **options)
    assert set(objective.needs) == {"text", "image"}
    _, by_key, _ = gradients(objective, rows(objective, 8))
    assert by_key[teacher] is None and by_key[student].abs().max() > 0
    attached = make(name, **options, detach=False)
    assert gradients(attached, rows(attached, 8))[1][teacher].abs().max() > 0


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
def test_learned_scales_are_held_between_1_and_100(name):
    objective = make(name)
    scales = [p for key, p in objective.named_parameters() if key.endswith("log_scale")]
    for start, held in ((9.0, math.log(100)), (-9.0, 0.0)):
        for scale in scales:
            scale.data.fill_(start)
        objective.after_step()
        assert [scale.item() for scale in scales] == pytest.approx([held] * len(scales))


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

    stopped = []  # what the loss detached, in the order of the calls

    def loss(*values):
        with _Replay(stopped):
            return objective(**dict(zip(names, values[: len(names)])), **rest)

    torch.autograd.gradcheck(
        loss, [*(batch[key] for key in names), *parameters], fast_mode=True, atol=1e-5
    )


class _Replay(TorchFunctionMode):
    """Every `detach()` gives what it gave in the first call, so that finite differences hold
    constant what the gradient holds constant."""

    def __init__(self, stopped):
        super().__init__()
        self.stopped, self.recording, self.place = stopped, not stopped, 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function is not torch.Tensor.detach:
            return out
        if self.recording:
            self.stopped.append(out.clone())
        self.place += 1
        return self.stopped[self.place - 1]


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
