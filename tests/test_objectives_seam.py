"""Every objective through the seam: chunked = whole, many processes with different rows = one."""

import copy

import pytest
import torch
from torch import nn

from objectives_cases import NAMES, WIDTH, make, rows
from vislang.devices import sum_gradients
from vislang.train.step import backward
from worlds import run_world

COUNT = 12
STEPS = 2  # the second one sees queues that wrapped around, centres and teachers that moved


class Towers(nn.Module):
    """A small tower a side; maps the inputs of a batch to embeddings."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        self.image = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
        self.text = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))

    def forward(self, **batch):
        return {key: self.side(key)(value) for key, value in batch.items()}

    def side(self, key):
        """The side that embeds this key; `.features` is its first layer alone."""
        side = getattr(self, key.split("_")[0])
        side.features = side[0]
        return side


def inputs(objective, step):
    """Tower inputs for every key; those of a teacher or of features are the plain key's."""
    batch = rows(objective, COUNT, seed=step)
    return {
        key.removesuffix("_features"): value.detach()
        for key, value in batch.items()
        if not key.endswith("_teacher")
    }


def train(name, take=slice(None), chunk=0):
    """Losses, gradients and final state of a few steps on this process's rows."""
    objective, model = make(name), Towers().double()
    teacher = copy.deepcopy(model).requires_grad_(False)
    seen = []
    for step in range(STEPS):
        model.zero_grad()
        objective.zero_grad()
        batch = {key: value[take] for key, value in inputs(objective, step).items()}
        loss = backward(model, objective, batch, chunk, teacher=teacher)
        sum_gradients(list(model.parameters()))
        named = [*model.named_parameters(), *objective.named_parameters()]
        seen.append({"loss": loss, **{k: p.grad.clone() for k, p in named if p.grad is not None}})
        with torch.no_grad():
            for _, parameter in named:
                if parameter.grad is not None:
                    parameter -= 0.01 * parameter.grad
        objective.after_step()
    return seen, objective.state_dict()


def same(found, expected):
    """Equal to 1e-9 in float64: the losses, the gradients, the state."""
    assert [step.keys() for step in found[0]] == [step.keys() for step in expected[0]]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_chunks_give_what_the_whole_batch_gives(name):
    whole = train(name)
    for chunk in (5, 1):
        same(train(name, chunk=chunk), whole)


WORLD_CODE = """
import torch
from objectives_cases import NAMES
from test_objectives_seam import same, train
from vislang import devices

group = devices.start_processes(torch.device("cpu"))
cuts = [0, 5, 12] if group.world == 2 else [0, 2, 9, 12]  # unequal parts of the global batch
mine = slice(cuts[group.rank], cuts[group.rank + 1])
chunk = 3 if group.world == 2 else 0
found = {name: train(name, mine, chunk) for name in NAMES}
devices.stop_processes()
for name in NAMES:
    try:
        same(found[name], train(name))
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}") from error
print("equal:", len(NAMES))
"""


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_processes_with_different_rows_equal_one(world):
    """Real gloo processes, each with its own, unequally many rows, over the whole registry."""
    outputs = run_world(["-c", WORLD_CODE], world)
    assert all(out.strip().endswith(f"equal: {len(NAMES)}") for out in outputs)


@pytest.mark.parametrize("name", ["coca", "coca:0.5 + infonce:0.1"])
def test_per_sample_part_adds_up_over_any_pieces(name):
    """CoCa's captions: the seam may leave them with their chunk and only sum the token count."""
    objective = make(name)
    assert objective.per_sample == ("caption_logits", "caption_ids")
    assert objective.gathered == ("image", "text")
    batch = rows(objective, COUNT)
    whole = objective(**batch)
    expected = torch.autograd.grad(whole, [batch["image"], batch["caption_logits"]])
    own = {key: batch[key] for key in objective.per_sample}
    pieces = [{k: v[part] for k, v in own.items()} for part in (slice(0, 5), slice(5, COUNT))]
    total = torch.stack([objective.count(**piece) for piece in pieces]).sum(0)
    loss = objective.across(**{key: batch[key] for key in objective.gathered})
    loss = loss + sum(objective.within(total, **piece) for piece in pieces)
    found = torch.autograd.grad(loss, [batch["image"], batch["caption_logits"]])
    torch.testing.assert_close((loss, found), (whole, expected), rtol=1e-12, atol=1e-12)
