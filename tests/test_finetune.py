"""Fine-tuning as an evaluation: the toolkit's to the number, ours by what it promises."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from test_elevater_protocol import ordered
from vislang.data.sample import Sample
from vislang.errors import UserError
from vislang.evaluate.elevater.linear import Probed, train_heads
from vislang.evaluate.elevater.subsets import divide
from vislang.evaluate.elevater.toolkit import Toolkit
from vislang.evaluate.pictures import Pictures
from vislang.evaluate.tune import Trainer, TuneOptions, fine_tune, forward
from vislang.evaluate.tuned import CosineHead, prepare_side, trainable
from vislang.metrics.elevater import elevater_metric
from vislang.models.dual import Side
from vislang.models.heads import Head
from vislang.preprocess import Preprocess

CPU = torch.device("cpu")


class Held:
    """Rows in memory."""

    def __init__(self, x: np.ndarray):
        self.x = torch.tensor(x)

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, rows):
        return self.x[torch.as_tensor(rows, dtype=torch.int64)]


class Pooled(nn.Module):
    """The golden toy's tower behind its pooling: one linear layer."""

    width = 16

    def __init__(self, weight: np.ndarray):
        super().__init__()
        self.proj = nn.Parameter(torch.tensor(weight))

    def forward(self, x):
        return x @ self.proj.T


@pytest.fixture(scope="module")
def toy():
    with np.load(Path(__file__).parent / "golden" / "elevater_toy.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def side(toy) -> Side:
    return Side(Pooled(toy["toy/visual"]), Head(), 16)


@pytest.fixture(scope="module")
def data(toy):
    label = toy["toy/train_labels"].astype(np.int64)
    return Held(toy["toy/train_pooled"]), label, Held(toy["toy/test_pooled"]), toy["toy/text"]


@pytest.mark.parametrize(("shots", "seed"), [(5, 0), (5, 1), (5, 2), (0, 0)])
def test_probabilities_of_fine_tuning_are_the_originals(toy, side, data, shots, seed):
    train, label, test, text = data
    asked = toy["toy/test_labels"].astype(np.int64)
    rows = ordered(label, shots, seed)
    before = side.tower.proj.detach().clone()
    found = Toolkit(side, text, "mean-per-class").final(train, label, rows, test, asked, 0.01, 1e-6)
    golden = toy[f"toy/finetuning_{shots or 'full'}_{seed}"]
    assert np.abs(found.best_rows - golden).max() < 2e-6
    assert found.trainable == 836  # 768 of the tower, 16 * 4 + 4 of the head
    assert torch.equal(side.tower.proj, before)


def test_the_toolkits_probe_is_its_fine_tuning_with_a_frozen_tower(toy, side, data):
    """Encoding anew in every epoch gives what stored features give; hence they may be stored."""
    train, label, test, text = data
    rows = ordered(label, 0, 0)
    asked = toy["toy/test_labels"].astype(np.int64)
    anew = Toolkit(side, text, "mean-per-class", part="head")
    slow = anew.final(train, label, rows, test, asked, 0.1, 1e-3, epochs=5)
    x, y = (torch.tensor(forward(side, p, range(len(p)), CPU, "fp32")) for p in (train, test))
    task = Probed(x[rows], torch.tensor(label[rows]), y, asked, "mean-per-class",
                  torch.tensor(text))  # fmt: skip
    fast = train_heads(task, [0.1], [1e-3], 5, keep=True)
    assert fast.last_rows is not None
    np.testing.assert_allclose(fast.last_rows[0], slow.last_rows, atol=1e-5)
    assert slow.trainable == 68 and fast.best[0] == slow.best


def accuracy(rows, target):
    return elevater_metric("accuracy", rows, target, "standard")


def tune(data, side, **options):
    train, label, test, text = data
    return fine_tune(
        side, train, label, test, divide([(int(y),) for y in label], several=False), accuracy,
        text, 4, TuneOptions(epochs=4, batch_size=8, **options), "cpu", "fp32",
    )  # fmt: skip


def test_choices_are_made_on_held_out_samples_and_the_side_stays_as_it_was(toy, data, side):
    before = side.tower.proj.detach().clone()
    found = tune(data, side, rates=(1e-3, 1e-2))
    assert len(found.tried) == 2 * 5
    assert (found.rate, found.alpha) == max(found.tried, key=lambda one: one[2])[:2]
    assert torch.equal(side.tower.proj, before) and side.tower.proj.requires_grad
    label = toy["toy/test_labels"].astype(np.int64)
    assert accuracy(found.logits, label) > accuracy(toy["toy/zeroshot"], label) + 0.1
    again = tune(data, side, rates=(1e-3, 1e-2))
    assert np.array_equal(found.logits, again.logits)


def test_a_share_of_none_is_the_zero_shot_model(toy, data, side):
    found = tune(data, side, rates=(1e-2,), wise=(0.0,))
    rows = torch.tensor(found.logits).softmax(-1).numpy()
    assert np.abs(rows - toy["toy/zeroshot"]).max() < 2e-5
    assert not found.tried


def test_a_probe_first_changes_features_less(data, side):
    """LP-FT: the head already fits, so that the tower has less reason to move."""

    def moved(start: str) -> float:
        found = tune(data, side, rates=(1e-2,), wise=(1.0,), start=start)
        return float((found.classifier.side.tower.proj - side.tower.proj).detach().norm())  # type: ignore

    assert 0 < moved("probe") < moved("text")


def test_the_head_of_a_probe_is_written_into_the_classifier(data, side):
    train, label, _, text = data
    options = TuneOptions(start="probe", rates=(0.0,), wise=(1.0,), epochs=1)
    trainer = Trainer(side, text, 4, options, CPU, "fp32")
    _, model = trainer.run(train, label, np.arange(60), 0.0)
    logits = trainer.answer(model, train, range(60))
    assert accuracy(logits, label) > 0.8  # zero-shot: 0.2


def test_what_cannot_be_tuned_is_explained(data, side):
    with pytest.raises(UserError, match="start must be one of text, probe, zero"):
        TuneOptions(start="tex")
    with pytest.raises(UserError, match="alpha must lie between"):
        TuneOptions(wise=(1.5,))
    with pytest.raises(UserError, match=r"part must be one of .* Did you mean 'whole'"):
        prepare_side(side, "whol")
    with pytest.raises(UserError, match="has no text side"):
        Trainer(side, None, 4, TuneOptions(), CPU, "fp32")


@pytest.fixture(scope="module")
def vit() -> Side:
    from vislang.config import TowerConfig
    from vislang.models.build import build_side

    options = {"image_size": 16, "patch": 8, "width": 32, "depth": 2, "heads": 2}
    torch.manual_seed(0)
    return build_side("image", TowerConfig("scratch_vit", options, head="linear"), 16)


@pytest.mark.parametrize("part", ["whole", "last", "adapters", "head"])
def test_each_part_trains_itself_and_nothing_else(vit, part):
    made = prepare_side(vit, part)
    names = {name for name, p in made.named_parameters() if p.requires_grad}
    if part == "whole":
        assert trainable(made) == sum(p.numel() for p in vit.parameters())
    if part == "last":
        assert names and all(".1." in n or "blocks" not in n for n in names)
        assert not any("blocks.0." in n or "patch" in n for n in names)
        assert any(n.startswith("head") for n in names)
    if part == "adapters":
        assert names and all(n.startswith("tower.adapters") for n in names)
    if part == "head":
        assert not names and made.frozen
    image = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(made.eval()(image), vit.eval()(image))


def test_adapters_learn_through_wise(vit):
    """Weights of a tower with adapters can be moved between start and end as any others."""
    rng = np.random.default_rng(0)
    label = np.arange(24) % 2
    pixels = (rng.integers(0, 60, (24, 3, 16, 16)) + 150 * label[:, None, None, None]).astype("u1")
    pictures = Held(pixels)
    options = TuneOptions("adapters", start="zero", rates=(1e-2,), wise=(0.5, 1.0), epochs=6)
    found = fine_tune(vit, pictures, label, pictures, (range(12), range(12, 24)), accuracy, None, 2,
                      options, "cpu", "fp32")  # fmt: skip
    assert accuracy(found.logits, label) == 1.0
    assert found.trainable == trainable(prepare_side(vit, "adapters")) + 2 * 16 + 2


def test_a_cosine_head_is_zero_shot_classification():
    x, w = torch.randn(3, 5), torch.randn(4, 5)
    expected = torch.nn.functional.normalize(x, dim=1) @ w.T
    torch.testing.assert_close(CosineHead(w)(x), expected)


class Few:
    """Four pictures, of which one is broken."""

    name, gives, classes, fingerprint = "few", frozenset({"image"}), (), "f"

    def __len__(self):
        return 4

    def __getitem__(self, index):
        from pictures import jpeg

        return Sample(str(index), b"no picture" if index == 2 else jpeg(index, 20, 20))

    def shards(self):
        return [range(4)]


@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_pictures_are_the_same_from_memory_and_from_files(memory):
    pictures = Pictures(Few(), [3, 2, 0], Preprocess((8, 8)), memory=memory)
    assert pictures.kept.tolist() == [0, 2] and pictures.rejected == 1 and len(pictures) == 2
    both = pictures.rows([1, 0])
    whole = Pictures(Few(), [0, 3], Preprocess((8, 8))).rows([0, 1])
    assert torch.equal(both, whole)
    pictures.close()
