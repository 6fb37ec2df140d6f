"""What some objectives ask of the trainer: teachers, episodes, captions, a look at the features."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from runs import digits
from test_train import lines, same_bits, weights
from vislang.config import write_config
from vislang.errors import UserError
from vislang.train import train
from vislang.train.checkpoint import checkpoints, newest_checkpoint
from vislang.train.diagnostics import Diagnostics, describe_rows
from vislang.train.ema import Teacher
from worlds import run_world

SMALL = {
    "byol": {"projector": [16, 8], "predictor": 16},
    "dino": {"prototypes": 32, "hidden": 16, "bottleneck": 8},
    "swav": {"prototypes": 8, "projector": [16, 8]},
    "seed": {"queue": 64, "teacher": "text"},
    "protoclip": {"clusters": 6, "projector": [16], "projection": 8, "warmup": 1},
}


def config(name: str, **changes):
    """A short run with a small objective of that name."""
    small = {"objective__name": name, "objective__options": SMALL.get(name, {})}
    return digits(**{**small, **changes})


def checkpoint_of(folder, name):
    return load_file(newest_checkpoint(folder)[0] / f"{name}.safetensors")


class Half(nn.Module):
    """An objective of which only its momentum matters."""

    needs = ("image_teacher",)
    momentum = 0.5


def test_the_teacher_follows_the_objectives_momentum():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    objective = Half()
    teacher = Teacher(model, objective, decay=0.0)
    before = teacher.model[0].weight.clone()
    with torch.no_grad():
        model[0].weight.add_(2.0)
    teacher.update()
    torch.testing.assert_close(teacher.model[0].weight, before + 1.0)
    objective.momentum = 1.0
    teacher.update()
    torch.testing.assert_close(teacher.model[0].weight, before + 1.0)
    # Batch norms of a momentum teacher take the statistics of the batch.
    rows = torch.randn(8, 3) * 5 + 3
    torch.testing.assert_close(teacher.model(rows).mean(0), torch.zeros(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["byol", "dino"])
def test_momentum_teachers_need_no_setting_and_resume_to_the_bit(tmp_path, name):
    given = config(name, data__augment="simclr", optim__steps=6, run__checkpoint_every="3 steps")
    train(given, tmp_path / "whole")
    last = newest_checkpoint(tmp_path / "whole")[0]
    model, teacher = (load_file(last / f"{what}.safetensors") for what in ("model", "teacher"))
    moved = [k for k in model if k.startswith("image") and not torch.equal(model[k], teacher[k])]
    assert moved and not (last / "ema.safetensors").exists()
    train(given, tmp_path / "cut")
    newest = checkpoints(tmp_path / "cut")[-1]
    for item in newest.iterdir():
        item.unlink()
    newest.rmdir()
    train(given, tmp_path / "cut")
    same_bits(last, newest_checkpoint(tmp_path / "cut")[0])
    again = checkpoint_of(tmp_path / "cut", "teacher")
    assert all(torch.equal(again[key], value) for key, value in teacher.items())


def test_protoclip_clusters_each_episode_and_says_what_it_found(tmp_path):
    given = config("protoclip", optim__steps=12, data__episode=128, run__checkpoint_every="4 steps")
    train(given, tmp_path)  # three episodes of four steps
    episodes = lines(tmp_path, "episode")
    assert [line["phase"] for line in episodes] == ["clip", "prototypes", "prototypes"]
    assert [line["step"] for line in episodes] == [1, 5, 9]
    sides = episodes[1]["sides"]
    assert sides.keys() == {"image", "text"}
    for side in sides.values():
        assert 1 <= side["used"] <= side["not_empty"] <= 6 == side["clusters"]
        errors = side["errors"]
        assert all(b <= a * (1 + 1e-6) for a, b in itertools.pairwise(errors))
    steps = lines(tmp_path, "train")
    assert "image_prototypes" not in steps[3]["parts"]
    assert steps[4]["parts"]["labelled"] == 1.0
    kept = json.loads((tmp_path / "episodes" / "00001.json").read_text())
    group = kept["groups"][0]
    assert group["size"] >= len(group["samples"]) > 1 and group["samples"][0]["text"]
    rows = np.load(tmp_path / "episodes" / "00001.npz")
    assert rows["image"].shape == rows["text"].shape == (len(kept["ids"]), 8)
    assert set(rows["text_labels"]) <= set(range(6))
    # The tables belong to the last episode's samples.
    saved = checkpoint_of(tmp_path, "objective")
    assert len(saved["samples"]) == 128 and int(saved["episode"]) == 2


@pytest.mark.parametrize("stop", [6, 8])
def test_an_interrupted_episode_ends_with_the_same_bits(tmp_path, stop):
    """In the middle of an episode, and between two."""
    given = config(
        "protoclip", data__episode=128, optim__steps=10, run__checkpoint_every="2 steps",
        run__keep=0, model__image__options__dropout=0.1,
    )  # fmt: skip
    train(given, tmp_path / "whole")
    train(given, tmp_path / "cut")
    for late in checkpoints(tmp_path / "cut"):
        if int(late.name) > stop:
            (late / "done.json").unlink()
    train(given, tmp_path / "cut")
    same_bits(*[newest_checkpoint(tmp_path / name)[0] for name in ("whole", "cut")])
    told = [
        [(line["step"], line["phase"]) for line in lines(tmp_path / name, "episode")]
        for name in ("whole", "cut")
    ]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective__options": {"clusters": 500}, "data__episode": 128}, "only 128 samples"),
        ({"objective__options": {"clusters": 4, "lit_start": 2}}, "optim.image_until"),
        ({"objective__options": {"clusters": 4, "external_weight": 1.0}}, "needs both"),
        ({"objective__name": "coca", "objective__options": {}}, "model.decoder.name"),
    ],
)
def test_what_an_objective_lacks_is_said_before_the_first_step(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        train(config("protoclip", **changes), tmp_path)
    assert not lines(tmp_path, "train")


def test_an_external_teachers_rows_are_clustered_too(tmp_path):
    rows = np.random.default_rng(0).normal(size=(1297, 5)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    options = {**SMALL["protoclip"], "warmup": 0, "external_weight": 1.0}
    options["external"] = str(tmp_path / "rows.npy")
    given = config("protoclip", objective__options=options, data__episode=64, optim__steps=2)
    train(given, tmp_path / "run")
    assert lines(tmp_path / "run", "episode")[0]["sides"].keys() == {"image", "text", "external"}
    assert lines(tmp_path / "run", "train")[0]["parts"]["external"] > 0
    np.save(tmp_path / "rows.npy", rows[:10])
    with pytest.raises(UserError, match="one row for each sample"):
        train(given, tmp_path / "short")


def test_captions_are_learned_in_chunks_as_in_whole(tmp_path):
    decoder = {"name": "transformer", "options": {"width": 16, "depth": 1, "heads": 2}}
    given = {"model__decoder": decoder, "optim__steps": 6}
    train(config("coca", **given), tmp_path / "whole")
    train(config("coca", **given, data__chunk=12), tmp_path / "chunks")
    whole, chunks = (lines(tmp_path / name, "train") for name in ("whole", "chunks"))
    for a, b in zip(whole, chunks):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)
        assert a["parts"] == pytest.approx(b["parts"], rel=1e-5)
    assert whole[-1]["parts"]["per_sample"] < whole[0]["parts"]["per_sample"]


@pytest.mark.parametrize("side", ["image", "text"])
def test_captions_are_learned_beside_a_frozen_side(tmp_path, side):
    decoder = {"name": "transformer", "options": {"width": 16, "depth": 1, "heads": 2}}
    given = {"model__decoder": decoder, "optim__steps": 2, "data__augment": "none"}
    train(config("coca", **given, **{f"model__{side}__frozen": True}), tmp_path)
    assert len(lines(tmp_path, "train")) == 2


CODE = (
    "import sys; from pathlib import Path; from vislang.config import read_config;"
    "from vislang.train import train; from vislang.devices import stop_processes;"
    "[train(read_config(f'{sys.argv[1]}/{n}.yaml'), Path(sys.argv[1]) / 'two' / n)"
    " for n in sys.argv[2:]]; stop_processes()"
)


@pytest.mark.slow
def test_two_processes_give_the_runs_of_one(tmp_path):
    """Queues, prototypes, teachers, clusters and captions: the loss curve of one process."""
    names = ["infonce", "swav", "seed", "protoclip", "byol", "coca"]
    decoder = {"name": "transformer", "options": {"width": 16, "depth": 1, "heads": 2}}
    for name in names:
        given = config(
            name, data__augment="simclr", data__episode=128, optim__steps=10, data__chunk=12,
            **({"model__decoder": decoder} if name == "coca" else {}),
        )  # fmt: skip
        write_config(tmp_path / f"{name}.yaml", given)
        train(given, tmp_path / "one" / name)
    run_world(["-c", CODE, str(tmp_path), *names], 2)
    for name in names:
        one, two = (lines(tmp_path / world / name, "train") for world in ("one", "two"))
        assert lines(tmp_path / "two" / name, "start")[0]["processes"] == 2
        for a, b in zip(one, two, strict=True):
            assert a["loss"] == pytest.approx(b["loss"], rel=2e-5), name
            assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3), name
        a, b = (weights(newest_checkpoint(tmp_path / w / name)[0]) for w in ("one", "two"))
        assert a.keys() == b.keys()
    one, two = (lines(tmp_path / world / "protoclip", "episode") for world in ("one", "two"))
    assert [line["sides"]["image"]["used"] for line in one[1:]] == pytest.approx(
        [line["sides"]["image"]["used"] for line in two[1:]]
    )


def test_the_log_says_what_the_embeddings_look_like(tmp_path):
    train(digits(run__diagnostics_every="6 steps"), tmp_path)
    told = lines(tmp_path, "diagnostics")
    assert [line["step"] for line in told] == [6, 12]
    assert told[0]["values"].keys() == {
        "modality_gap", "alignment", "image_uniformity", "image_std", "image_effective_rank",
        "text_uniformity", "text_std", "text_effective_rank",
    }  # fmt: skip
    plain = digits(run__diagnostics_every="")
    train(plain, tmp_path / "without")
    assert not lines(tmp_path / "without", "diagnostics")
    same_bits(newest_checkpoint(tmp_path)[0], newest_checkpoint(tmp_path / "without")[0])


def test_a_collapse_is_flagged():
    torch.manual_seed(0)
    even = torch.randn(256, 32)
    point = torch.ones(256, 32) + 1e-3 * torch.randn(256, 32)
    line = torch.sign(torch.randn(256, 1)) * torch.ones(1, 32) + 1e-4 * torch.randn(256, 32)
    look = Diagnostics()
    look.watch({"image": even, "text": even + 0.1 * torch.randn(256, 32)})
    told = look.line({"prototypes_used": torch.tensor(7.0)})
    assert told["flags"] == [] and told["values"]["prototypes_used"] == 7.0
    assert told["values"]["image_std"] == pytest.approx(1.0, abs=0.05)
    assert told["values"]["image_effective_rank"] > 25
    look.watch({"image": point, "image_2": line})
    flags = look.line({"swav/prototypes_used": torch.tensor(1.2)})["flags"]
    assert len(flags) == 2
    assert "image embeddings collapse to a point" in flags[0] and "1.20 are in use" in flags[1]
    look.watch({"image": line})
    assert "collapse to a line: effective rank 1.0" in look.line({})["flags"][0]
    assert describe_rows({"image": even * math.nan}) == {}
    assert describe_rows({"label": torch.arange(3)}) == {}


def test_a_resting_side_has_no_gradient(tmp_path):
    """It costs no backward pass and does not count in the norm that is clipped."""
    from vislang.config import OptimConfig
    from vislang.train.optim import make_optimizer, make_schedules, rest_sides
    from vislang.train.setup import make_model, settle

    given = digits()
    model, objective = make_model(given, settle(given), 10)
    optim = OptimConfig(steps=10, warmup=0, image_from=2, text_until=4)
    optimizer = make_optimizer({"model": model, "objective": objective}, optim)
    schedules = make_schedules(optim, 10, 2)
    learning = []
    for step in range(10):
        rest_sides(optimizer, schedules, step)
        sides = [
            all(p.requires_grad for p in side.parameters()) for side in (model.image, model.text)
        ]
        learning.append(sides)
    assert learning == [[False, True]] * 4 + [[True, True]] * 4 + [[True, False]] * 2
    assert objective.log_scale.requires_grad


@pytest.mark.slow
def test_split_towers_learn_as_whole_ones(tmp_path):
    """FSDP2 on two processes: the loss curve and the checkpoint of one process, and it resumes."""
    changes = {"data__chunk": 5, "optim__clip_grad": 0.5, "run__evaluate_every": "4 steps"}
    write_config(tmp_path / "split.yaml", config("infonce", **changes, run__shard=True))
    train(config("infonce", **changes), tmp_path / "one" / "split")
    run_world(["-c", CODE, str(tmp_path), "split"], 2)
    for late in checkpoints(tmp_path / "two" / "split")[-1:]:
        (late / "done.json").unlink()
    run_world(["-c", CODE, str(tmp_path), "split"], 2)
    one, two = (lines(tmp_path / world / "split", "train") for world in ("one", "two"))
    for a, b in zip(one, two, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)
    a, b = (weights(newest_checkpoint(tmp_path / w / "split")[0]) for w in ("one", "two"))
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert value.shape == b[name].shape, name
        if name.startswith("model"):
            torch.testing.assert_close(value, b[name], rtol=1e-3, atol=1e-5)


def test_splitting_needs_processes(tmp_path):
    with pytest.raises(UserError, match="there is only one"):
        train(digits(run__shard=True), tmp_path)


def test_epochs_of_a_run_are_its_episodes(tmp_path):
    train(digits(data__episode=96, optim__steps=0, optim__epochs=2.0, optim__warmup=1), tmp_path)
    assert [line["step"] for line in lines(tmp_path, "train")] == [1, 2, 3, 4, 5, 6]
