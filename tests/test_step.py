"""The seam: chunked = whole, many processes = one, replayed dropout, batch norms counted once."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vislang.models.dual import DualEncoder, Side
from vislang.train.step import backward
from worlds import run_world


class Pair(nn.Module):
    """Two small towers with the given layers; maps a batch to embeddings."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.image = nn.Sequential(nn.Linear(6, 8), *layers, nn.Linear(8, 5))
        self.text = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 5))

    def forward(self, **batch):
        return {key: getattr(self, key.split("_")[0])(value) for key, value in batch.items()}


class Contrast(nn.Module):
    """Symmetric cross-entropy with a learned scale, and whatever else the test asks for."""

    def __init__(self, needs=("image", "text")):
        super().__init__()
        self.needs = needs
        self.log_scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, **rows):
        rows = {k: F.normalize(v, dim=-1) if v.is_floating_point() else v for k, v in rows.items()}
        image, text = rows["image"], rows[next(k for k in rows if k.startswith("text"))]
        logits = self.log_scale.exp() * image @ text.T
        own = torch.arange(len(logits))
        loss = F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)
        if "label" in rows:
            loss = loss + (logits * (rows["label"][:, None] == rows["label"][None])).mean()
        return loss


def gradients(model, objective, batch, chunk):
    model, objective = copy.deepcopy(model), copy.deepcopy(objective)
    torch.manual_seed(3)
    loss = backward(model, objective, batch, chunk)
    grads = [p.grad for p in [*model.parameters(), *objective.parameters()]]
    return loss, grads, model


def batch_of(rows=12):
    torch.manual_seed(1)
    return {
        "image": torch.randn(rows, 6, dtype=torch.float64),
        "text": torch.randn(rows, 4, dtype=torch.float64),
        "label": torch.randint(0, 3, (rows,)),
        "id": [str(i) for i in range(rows)],
    }


@pytest.mark.parametrize("chunk", [1, 5, 11])
def test_chunks_give_the_gradient_of_the_whole_batch(chunk):
    model, objective = Pair().double(), Contrast(("image", "text", "label")).double()
    loss, whole, _ = gradients(model, objective, batch_of(), 0)
    loss_chunked, chunked, _ = gradients(model, objective, batch_of(), chunk)
    assert math.isclose(loss, loss_chunked, rel_tol=1e-12)
    torch.testing.assert_close(chunked, whole, rtol=1e-10, atol=1e-12)


def test_the_replay_sees_the_same_dropout():
    """Gradients must belong to the very embeddings that the objective saw."""
    model, objective = Pair(nn.Dropout(0.5)).double(), Contrast().double()
    seen = []
    objective.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["image"].detach()), with_kwargs=True
    )
    replayed = []
    model.register_forward_hook(
        lambda module, args, kwargs, out: replayed.append(out["image"].detach()), with_kwargs=True
    )
    backward(model, objective, batch_of(), 4)
    torch.testing.assert_close(torch.cat(replayed[3:]), seen[0], rtol=0, atol=0)


def test_batch_norm_records_each_chunk_once():
    model, objective = Pair(nn.BatchNorm1d(8)).double(), Contrast().double()
    backward(model, objective, batch_of(), 4)
    norm = model.image[1]
    assert norm.num_batches_tracked == 3
    assert norm.track_running_stats


def test_a_key_without_input_is_embedded_from_its_first_word():
    """text_2 is the text again, under another draw of dropout."""
    model = Pair().double()
    model.text = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 5)).double()
    seen = {}

    class Twice(nn.Module):
        needs = ("text", "text_2")

        def forward(self, text, text_2):
            seen.update(text=text.detach(), text_2=text_2.detach())
            return (text * text_2).sum()

    backward(model, Twice(), batch_of(), 0)
    assert not torch.equal(seen["text"], seen["text_2"])


def test_teacher_keys_come_from_the_teacher_without_graph():
    model, teacher = Pair().double(), Pair().double()

    class Follow(nn.Module):
        needs = ("image", "image_teacher")

        def forward(self, image, image_teacher):
            assert not image_teacher.requires_grad
            return ((image - image_teacher) ** 2).mean()

    for chunk in (0, 5):
        backward(model, Follow(), batch_of(), chunk, teacher=teacher)
    assert all(p.grad is None for p in teacher.parameters())
    with pytest.raises(ValueError, match="no teacher model"):
        backward(model, Follow(), batch_of())


@pytest.mark.parametrize("chunk", [0, 5])
def test_features_and_embedding_come_from_one_pass_of_the_tower(chunk):
    """`image_features` is the tower's output; stored features keep the tower from running."""
    torch.manual_seed(0)
    towers = [nn.Linear(6, 7), nn.Linear(4, 7)]
    for tower in towers:
        tower.width = 7
    image, text = (Side(tower, nn.Linear(7, 5), 5).double() for tower in towers)
    model, runs = DualEncoder(image, text), []
    towers[0].register_forward_hook(lambda *_: runs.append("image"))
    towers[1].register_forward_hook(lambda *_: runs.append("text"))

    class Both(nn.Module):
        needs = ("image", "image_features", "text")

        def forward(self, image, image_features, text):
            torch.testing.assert_close(model.image.head(image_features), image)
            return (image * text).sum() + image_features.square().sum()

    batch = batch_of(10)
    batch["text_features"] = towers[1](batch["text"]).detach()
    runs.clear()
    backward(model, Both(), batch, chunk)
    assert runs == ["image"] * (1 if not chunk else 4)
    assert towers[1].weight.grad is None
    whole = copy.deepcopy([p.grad for p in image.parameters()])
    model.zero_grad()
    backward(model, Both(), batch, 3)
    torch.testing.assert_close([p.grad for p in image.parameters()], whole)


def test_a_side_without_graph_gets_no_gradient():
    model, objective = Pair().double(), Contrast().double()
    model.text.requires_grad_(False)
    for chunk in (0, 5):
        backward(model, objective, batch_of(), chunk)
    assert all(p.grad is None for p in model.text.parameters())
    assert all(p.grad is not None for p in model.image.parameters())


def test_the_objectives_randomness_is_its_own():
    """Seeded, it draws the same whatever the towers drew, and takes none of theirs."""
    draws = []

    class Noisy(Contrast):
        def forward(self, **rows):
            draws.append(torch.rand(3))
            return super().forward(**rows)

    model, objective = Pair(nn.Dropout(0.5)).double(), Noisy().double()
    after = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        backward(model, objective, batch_of(), 4, objective_seed=9)
        after.append(torch.rand(1))
    torch.manual_seed(1)
    backward(model, Contrast().double(), batch_of(), 4)
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(torch.rand(1), after[0])


WORLD_CODE = """
import torch
from test_step import Contrast, Pair, batch_of
from vislang import devices
from vislang.train import step

group = devices.start_processes(torch.device("cpu"))


def fresh():
    torch.manual_seed(5)
    return Pair().double(), Contrast(("image", "text", "label")).double()


model, objective = fresh()
cuts = [0, 5, 12] if group.world == 2 else [0, 2, 9, 12]  # unequal parts of the global batch
mine = {k: v[cuts[group.rank] : cuts[group.rank + 1]] for k, v in batch_of().items()}
losses, gradients = [], []
for chunk in (0, 3):
    model.zero_grad(), objective.zero_grad()
    losses.append(step.backward(model, objective, mine, chunk))
    devices.sum_gradients(list(model.parameters()))
    gradients.append([p.grad.clone() for p in [*model.parameters(), *objective.parameters()]])
devices.stop_processes()

alone, alone_objective = fresh()
expected = step.backward(alone, alone_objective, batch_of())
for loss, found in zip(losses, gradients):
    assert abs(float(loss) - float(expected)) < 1e-12
    torch.testing.assert_close(
        found, [p.grad for p in [*alone.parameters(), *alone_objective.parameters()]],
        rtol=1e-9, atol=1e-12,
    )
print("equal")
"""


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_processes_with_different_rows_equal_one(world):
    """Real gloo processes, each with its own, unequally many rows."""
    assert all(out.strip().endswith("equal") for out in run_world(["-c", WORLD_CODE], world))
