"""Fine-tuning: the original's schedule and checkpoints, large batches, early ends, others' data."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from layouts import add_tar, picture
from runs import digits
from test_train import lines, same_bits
from vislang.config import OptimConfig, TrainConfig, from_dict, read_config
from vislang.errors import UserError
from vislang.objectives.infonce import InfoNCE
from vislang.train import Stopped, train
from vislang.train.checkpoint import checkpoints
from vislang.train.moments import FRACTIONS, checkpoint_steps
from vislang.train.optim import make_schedule
from vislang.train.patience import best, watched
from vislang.train.step import backward

GOLDEN = Path(__file__).parent / "golden"
NUMBERS = np.load(GOLDEN / "finetune.npz")
LISTS = json.loads((GOLDEN / "curate.json").read_text())


def test_golden_schedule_is_ours_one_step_late_with_the_peak_twice():
    """The original divides by w - 1, so that its first step has the rate 0 and does nothing."""
    theirs = NUMBERS["warmup_cosine_lr"]
    base, warmup, steps = NUMBERS["warmup_cosine_args"]
    w, steps = int(warmup), int(steps)
    rising = make_schedule(OptimConfig(lr=base, warmup=w - 1), steps)
    falling = make_schedule(OptimConfig(lr=base, warmup=w), steps)
    ours = [0.0, *(rising.rate(t - 1) for t in range(1, w))]
    ours += [falling.rate(t - 1) for t in range(w, steps)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-18)
    assert theirs[0] == 0 < falling.rate(0)
    assert theirs[w - 1] == pytest.approx(theirs[w], rel=1e-12) == base


@pytest.mark.parametrize("length", [2023, 2271])
def test_golden_fractional_checkpoints(length):
    golden = LISTS["fractional_checkpoints"][str(length)]
    found = sorted(checkpoint_steps(("doubling",), length, 10 * length))
    assert [list(divmod(step, length)) for step in found] == golden
    assert sorted(eval(f) for f in FRACTIONS) == LISTS["fractions"]


class Linears(nn.Module):
    """The golden's two towers: one linear map a side, in float64."""

    def __init__(self):
        super().__init__()
        for side in ("image", "text"):
            weight, bias = (golden(f"{letter}_{side}") for letter in "wb")
            setattr(self, side, nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64))
            layer = getattr(self, side)
            layer.weight.data, layer.bias.data = weight, bias

    def side(self, key):
        return getattr(self, key)

    def forward(self, **batch):
        return {key: self.side(key)(value) for key, value in batch.items()}


def golden(name: str) -> torch.Tensor:
    return torch.from_numpy(NUMBERS[f"large_batch|{name}"])


@pytest.mark.parametrize("chunk", [0, 7, 16])
def test_golden_gradient_of_a_large_batch(chunk):
    """One number of rows a chunk for both sides; the original's 16 and 7 give the same."""
    model = Linears()
    objective = InfoNCE(learn=False).double()
    objective.log_scale.data = -golden("temperature").log()  # in float64 from the beginning
    batch = {side: golden(f"x_{side}") for side in ("image", "text")}
    loss = backward(model, objective, batch, chunk)
    assert float(loss) == pytest.approx(float(golden("loss")), abs=1e-12)
    weight = float(golden("loss_weight"))
    for side in ("image", "text"):
        for letter, part in (("w", "weight"), ("b", "bias")):
            ours = weight * getattr(model.side(side), part).grad
            torch.testing.assert_close(
                ours, golden(f"grad_{letter}_{side}"), rtol=1e-11, atol=1e-12
            )


def test_checkpoints_at_fractions_are_kept_and_others_thinned(tmp_path):
    config = digits(run__checkpoint_at="0,1/16,1/8", run__checkpoint_every="1 steps", run__keep=1)
    train(config, tmp_path)
    length = lines(tmp_path, "start")[0]["steps_per_epoch"]
    wanted = {0, round(length / 16), round(length / 8), 12}
    assert {int(p.name) for p in checkpoints(tmp_path)} == wanted and len(wanted) == 4
    state = json.loads((checkpoints(tmp_path)[0] / "state.json").read_text())
    assert (state["step"], state["steps_per_epoch"]) == (0, length)


def test_a_run_with_fractional_checkpoints_resumes_to_the_bit(tmp_path):
    changes = {"run__checkpoint_at": "0,1/32,1/16", "model__image__options__dropout": 0.1}
    changes |= {"run__keep": 1, "run__evaluate_every": "1 steps"}
    train(digits(**changes), tmp_path / "whole")

    def interrupt(model, step):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    with pytest.raises(Stopped):
        train(digits(**changes), tmp_path / "cut", judge=interrupt)
    train(digits(**changes), tmp_path / "cut")
    ours, theirs = (checkpoints(tmp_path / name) for name in ("cut", "whole"))
    assert [p.name for p in ours] == [p.name for p in theirs]
    for one, other in zip(ours, theirs):
        same_bits(one, other)


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("1/0", "must list epochs such as"),
        ("often", "must list epochs such as"),
        ("-1/2", "must not have an epoch below 0"),
        ("1/2,9", "the run ends at epoch"),
    ],
)
def test_moments_that_cannot_be_are_refused(at, message, tmp_path):
    with pytest.raises(UserError, match=message):
        train(digits(run__checkpoint_at=at), tmp_path)


def judge_of(values):
    """A judge that finds these values, one after another, by step."""
    return lambda model, step: {"zeroshot": {"accuracy": {"value": values[step - 1]}}}


VALUES = [0.1, 0.5, 0.4, 0.5, 0.3, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]


def test_a_run_that_gets_no_better_ends_and_keeps_its_best(tmp_path):
    config = digits(run__patience=3, run__evaluate_every="1 steps", run__keep=1,
                    run__checkpoint_every="12 steps")  # fmt: skip
    last = train(config, tmp_path, judge=judge_of(VALUES))
    assert int(last.name) == 5
    assert [int(p.name) for p in checkpoints(tmp_path)] == [2, 5]
    assert "no better" in lines(tmp_path, "end")[0]["why"]
    assert train(config, tmp_path, judge=judge_of(VALUES)) == last, "and stays ended"
    assert len(lines(tmp_path, "train")) == 5
    longer = digits(run__patience=4, run__evaluate_every="1 steps", run__keep=1,
                    run__checkpoint_every="12 steps")  # fmt: skip
    assert int(train(longer, tmp_path, judge=judge_of(VALUES)).name) == 10
    assert [int(p.name) for p in checkpoints(tmp_path)] == [6, 10]


def test_less_may_be_better_and_a_value_must_be_there(tmp_path):
    entries = [
        {"kind": "eval", "step": s, "evaluation": "retrieval", "values": {"rank": {"value": v}}}
        for s, v in ((1, 5.0), (2, 3.0), (3, 3.0), (4, float("nan")))
    ]
    assert best(watched(entries, "-retrieval.rank")).step == 2
    assert best(watched(entries)).step == 1
    with pytest.raises(UserError, match=r"Did you mean 'retrieval\.rank'"):
        watched(entries, "retrieval.rnk")
    with pytest.raises(UserError, match="there are none"):
        train(digits(run__patience=1), tmp_path)


def captioned(folder: Path, count: int) -> str:
    folder.mkdir(exist_ok=True)
    files = {}
    for i in range(count):
        files |= {f"{i:03d}.jpg": picture(i), f"{i:03d}.txt": f"picture {i}"}
    add_tar(folder / f"{count:05d}.tar", files)
    return f"webdataset:{folder}/*.tar"


def test_a_run_on_anothers_data_which_must_be_as_they_were(tmp_path):
    small = {"data__batch_size": 4, "data__augment": "none", "optim__steps": 2, "optim__warmup": 0}
    spec = captioned(tmp_path / "tars", 8)
    train(digits(data__train=spec, **small), tmp_path / "a")
    config = digits(data__from_run=str(tmp_path / "a"), **small)
    train(config, tmp_path / "b")
    made = read_config(tmp_path / "b" / "config.yaml")
    assert (made.data.train, made.data.from_run) == (spec, str(tmp_path / "a"))
    same_bits(*(checkpoints(tmp_path / name)[-1] for name in "ab"))
    train(config, tmp_path / "b")  # resumes
    captioned(tmp_path / "tars", 9)
    with pytest.raises(UserError, match=r"changed since it was trained: then 8 samples.*now 17"):
        train(config, tmp_path / "c")
    assert not (tmp_path / "c").exists()
    with pytest.raises(UserError, match="no run folder of that name"):
        train(digits(data__from_run=str(tmp_path / "x"), **small), tmp_path / "c")
    (tmp_path / "a" / "data.json").unlink()
    with pytest.raises(UserError, match="start it once more"):
        train(config, tmp_path / "c")


def test_from_is_what_a_file_may_say():
    assert from_dict(TrainConfig, {"data": {"from": "../a"}}).data.from_run == "../a"
