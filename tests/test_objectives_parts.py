"""The parts that objectives share: queues, schedules, assignments; and the memory they take."""

import copy
from collections import deque

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from objectives_cases import gradients, make, rows
from vislang.errors import UserError
from vislang.objectives.queue import Queue
from vislang.objectives.schedule import Clock
from vislang.objectives.sinkhorn import assign


class Largest(TorchDispatchMode):
    """Notes the largest number of elements of any tensor that an operation made."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, torch.Tensor):
                self.numel = max(self.numel, value.numel())
        return out


# -- queues --------------------------------------------------------------------------------------


@given(st.integers(1, 7), st.lists(st.integers(1, 9), max_size=6))
def test_a_queue_holds_the_newest_rows(size, batches):
    queue, expected, value = Queue(size, 1), deque(maxlen=size), 0
    for count in batches:
        new = torch.arange(value, value + count, dtype=torch.float32)[:, None] + 100
        value += count
        expected.extend(new.flatten().tolist())
        queue.push(new)
        before = queue.rows.clone()
        assert torch.equal(queue.rows, before)  # nothing is written before commit
        queue.commit()
    held = sorted(x for x in queue.rows.flatten().tolist() if x >= 100)
    assert held == sorted(expected)
    assert int(queue.written) == len(expected) and queue.full == (len(expected) == size)


def test_a_queue_is_written_in_place_and_never_copied():
    queue = Queue(1000, 4)
    place = queue.rows.data_ptr()
    with Largest() as largest:
        for _ in range(3):
            queue.push(torch.randn(7, 4))
            queue.commit()
    assert queue.rows.data_ptr() == place
    assert largest.numel == 4000  # index_copy_ returns the queue itself; nothing else is as large


@pytest.mark.parametrize("name", ["seed", "compress_1q", "compress_2q", "declip", "nnclr", "swav"])
def test_backward_after_forward_reads_the_old_rows(name):
    """Written before the backward pass, autograd would complain or a copy would be needed."""
    objective = make(name)
    before = copy.deepcopy(objective.state_dict())
    loss = objective(**rows(objective, 4))
    loss.backward()
    assert all(torch.equal(before[key], value) for key, value in objective.state_dict().items()
               if "rows" in key)  # fmt: skip
    objective.after_step()
    after = objective.state_dict()
    assert any(not torch.equal(before[key], after[key]) for key in before if "rows" in key)


def test_nearest_row_in_blocks():
    torch.manual_seed(0)
    queue, wanted = Queue(50, 4), torch.randn(6, 4)
    expected = queue.rows[(F.normalize(wanted) @ queue.rows.T).argmax(1)]
    for block in (1, 7, 50, 99):
        assert torch.equal(queue.nearest(wanted, block), expected)


# -- schedules -----------------------------------------------------------------------------------


def test_clock():
    clock = Clock(steps=4)
    seen = []
    for _ in range(6):
        seen.append((clock.cosine(0.9, 1.0), clock.linear(0.0, 1.0, 2), clock.before(1)))
        clock.tick()
    assert [round(x[0], 4) for x in seen] == [0.9, 0.9146, 0.95, 0.9854, 1.0, 1.0]
    assert [x[1] for x in seen] == [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]
    assert [x[2] for x in seen] == [True] + [False] * 5
    assert Clock().cosine(0.9, 1.0) == 0.9
    with pytest.raises(UserError, match="number of steps is unknown"):
        Clock().step_of(0.1, "warmup")
    with pytest.raises(UserError, match="must be 0 or more"):
        Clock().step_of(-1, "warmup")


@pytest.mark.parametrize(("name", "parameter"), [("swav", "prototypes"), ("dino", "directions")])
def test_frozen_prototypes_get_no_gradient_at_first(name, parameter):
    objective = make(name, freeze=2)
    for step in range(3):
        _, _, by_name = gradients(objective, rows(objective, 6, seed=step))
        found = next(v for key, v in by_name.items() if key.endswith(parameter))
        assert (found is None) == (step < 2)
        objective.after_step()


@pytest.mark.parametrize(("name", "head"), [("byol", "projector"), ("dino", "head")])
def test_the_teachers_head_follows(name, head):
    objective = make(name, momentum=0.75, steps=0)
    teacher = objective.teacher if name == "byol" else objective.teacher_head
    assert not any(p.requires_grad for p in teacher.parameters())
    before = [p.clone() for p in teacher.parameters()]
    with torch.no_grad():
        for p in getattr(objective, head).parameters():
            p += 1
    objective.after_step()
    for old, new in zip(before, teacher.parameters()):
        torch.testing.assert_close(new, old + 0.25)


def test_dinos_teacher_temperature_warms_up():
    objective = make("dino", first_teacher_temperature=0.02, warmup=0.5, steps=4)
    seen = []
    for _ in range(4):
        objective(**rows(objective, 4))
        seen.append(round(float(objective.parts["teacher_temperature"]), 4))
        objective.after_step()
    assert seen == [0.02, 0.03, 0.04, 0.04]


# -- assignments ---------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [0.0, 1.0, 100.0, 1e4])
def test_assignments_are_finite_balanced_and_add_up(spread):
    generator = torch.Generator().manual_seed(0)
    scores = spread * torch.randn(40, 6, generator=generator)
    shares = assign(scores, 1.0, 3)
    assert shares.isfinite().all() and (shares >= 0).all()
    torch.testing.assert_close(shares.sum(1), torch.ones(40))
    wide = assign(scores.double(), 1.0, 3)
    torch.testing.assert_close(shares.double(), wide, rtol=1e-3, atol=1e-4)
    if spread == 1.0:
        even = assign(scores, 1.0, 50).sum(0)
        torch.testing.assert_close(even, torch.full((6,), 40 / 6), rtol=1e-3, atol=1e-3)


def test_assignments_do_not_change_their_input():
    scores = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    before = scores.detach().clone()
    assert not assign(scores).requires_grad
    assert torch.equal(scores.detach(), before)


# -- memory --------------------------------------------------------------------------------------


def test_rkd_never_holds_all_angles():
    objective = make("rkd", block=2)
    batch = rows(objective, 40)
    with Largest() as largest:
        objective(**batch).backward()
    assert largest.numel == 2 * 40**2


@pytest.mark.parametrize("name", ["vicreg", "barlow_twins"])
@pytest.mark.parametrize("count", [4, 30])
def test_correlations_are_the_same_by_rows_or_by_columns(name, count):
    """With fewer rows than columns the sums are made from B x B matrices."""
    objective = make(name, projector=[])
    batch = rows(objective, count, width=12)
    found = objective(**batch)
    wide = {key: F.pad(value, (0, 0)) for key, value in batch.items()}
    x, y = (value - value.mean(0) for value in wide.values())
    if name == "vicreg":
        expected = 25 * F.mse_loss(batch["image"], batch["text"])
        for side in (x, y):
            cov = side.T @ side / (count - 1)
            expected += 12.5 * F.relu(1 - (cov.diagonal() + 1e-4).sqrt()).mean()
            expected += (cov.square().sum() - cov.diagonal().square().sum()) / 12
    else:
        x, y = (side / (side.square().mean(0) + 1e-5).sqrt() for side in (x, y))
        c = x.T @ y / count
        off = c.square().sum() - c.diagonal().square().sum()
        expected = (c.diagonal() - 1).square().sum() + 0.0051 * off
    torch.testing.assert_close(found, expected)
