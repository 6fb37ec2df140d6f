"""Training runs: they learn, resume to the bit, survive kills, stop cleanly, refuse nonsense."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from runs import digits
from vislang.config import write_config
from vislang.data.sample import BadSample, Sample
from vislang.data.sources import open_source
from vislang.errors import UserError
from vislang.train import Stopped, train
from vislang.train.checkpoint import checkpoints, newest_checkpoint
from vislang.train.log import read_log
from worlds import run_world


def lines(folder: Path, kind: str) -> list[dict]:
    return [line for line in read_log(folder) if line["kind"] == kind]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    found = {}
    for name in ("model", "objective", "optimizer"):
        found |= {
            f"{name}/{k}": v for k, v in load_file(checkpoint / f"{name}.safetensors").items()
        }
    return found


def same_bits(left: Path, right: Path) -> None:
    a, b = weights(left), weights(right)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """An uninterrupted run, with dropout so that the random state matters."""
    folder = tmp_path_factory.mktemp("whole")
    train(digits(model__image__options__dropout=0.1), folder)
    return folder


def test_a_run_learns_and_leaves_what_it_should(whole):
    losses = [line["loss"] for line in lines(whole, "train")]
    assert len(losses) == 12
    assert sum(losses[-3:]) < sum(losses[:3])
    assert [p.name for p in checkpoints(whole)] == ["000000004", "000000008", "000000012"]
    start, end = lines(whole, "start")[0], lines(whole, "end")[0]
    assert start["samples"] == len(open_source("digits:train"))
    assert start["trainable"] == start["parameters"] > 0
    assert end["step"] == 12
    assert json.loads((whole / "environment.json").read_text())["versions"]["torch"]
    train_line = lines(whole, "train")[1]
    assert train_line["lr"] == pytest.approx(1e-3)  # the last of two warm-up steps runs at the peak
    assert 0 < train_line["scale"] <= 100.1 and train_line["samples_per_s"] > 0


@pytest.mark.parametrize("stop_at", [4, 8])
def test_a_resumed_run_ends_with_the_same_bits(whole, tmp_path, stop_at):
    def interrupt(model, step):
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    config = digits(model__image__options__dropout=0.1, run__evaluate_every=f"{stop_at} steps")
    with pytest.raises(Stopped) as stopped:
        train(config, tmp_path, judge=interrupt)
    assert stopped.value.signal == signal.SIGTERM
    assert stop_at < stopped.value.step < 12
    assert "Repeat the same command" in str(stopped.value)
    train(config, tmp_path)
    same_bits(newest_checkpoint(whole)[0], newest_checkpoint(tmp_path)[0])
    told = [(line["step"], line["loss"]) for line in lines(tmp_path, "train")]
    assert told == [(line["step"], line["loss"]) for line in lines(whole, "train")]


def test_repeating_a_finished_run_changes_nothing(whole):
    before = weights(newest_checkpoint(whole)[0])
    train(digits(model__image__options__dropout=0.1), whole)
    assert all(torch.equal(before[k], v) for k, v in weights(newest_checkpoint(whole)[0]).items())
    assert len(lines(whole, "train")) == 12


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bits(whole, tmp_path, child_environment):
    """SIGKILL leaves no torn file that is ever read."""
    write_config(tmp_path / "given.yaml", digits(model__image__options__dropout=0.1))
    code = (
        "import sys; from pathlib import Path; from vislang.config import read_config;"
        "from vislang.train import train;"
        "train(read_config(sys.argv[1]), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "given.yaml"), str(tmp_path / "run")]
    draw, kills = random.Random(0), 0
    while kills < 4:
        process = subprocess.Popen(command, env=child_environment)
        seen = len(checkpoints(tmp_path / "run"))
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if len(lines(tmp_path / "run", "train")) and draw.random() < 0.3:
                process.kill()
                kills += 1
            time.sleep(draw.random() * 0.05)
        if process.wait() == 0:
            break
        assert len(checkpoints(tmp_path / "run")) >= seen
    subprocess.run(command, env=child_environment, check=True)
    same_bits(newest_checkpoint(whole)[0], newest_checkpoint(tmp_path / "run")[0])


@pytest.mark.parametrize("changes", [{"data__chunk": 8}, {"run__grad_checkpoint": True}])
def test_saving_memory_does_not_change_the_loss_curve(tmp_path, changes):
    train(digits(), tmp_path / "plain")
    train(digits(**changes), tmp_path / "saving")
    for a, b in zip(lines(tmp_path / "plain", "train"), lines(tmp_path / "saving", "train")):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)


def test_other_settings_are_refused_by_name(whole):
    with pytest.raises(UserError, match=r"made with other settings: optim.lr \(0.001 -> 0.5\)"):
        train(digits(model__image__options__dropout=0.1, optim__lr=0.5), whole)


def test_settings_that_change_no_number_may_change(whole):
    config = digits(model__image__options__dropout=0.1, run__keep=5, run__log_every=7)
    assert train(config, whole).name == "000000012"


def test_a_folder_with_other_things_is_not_used(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="holds no run"):
        train(digits(), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__batch_size": 5000}, "5,?000"),
        ({"optim__steps": 0, "optim__epochs": 0.0}, "no steps"),
        ({"run__checkpoint_every": "often"}, "'500 steps' or '0.5 epochs'"),
        ({"model__image__frozen": True, "model__image__head": "none"}, "Nothing can be trained"),
        ({"objective__name": "infonc"}, "Did you mean 'infonce'"),
        ({"data__train": "nowhere/at/all"}, "nowhere"),
        ({"run__device": "cuda:9"}, "no CUDA device|has"),
        ({"run__precision": "fp8"}, "auto, fp32 or bf16"),
    ],
)
def test_bad_settings_are_refused_before_the_first_step(tmp_path, changes, message):
    if "model__image__frozen" in changes:
        changes |= {"model__text__frozen": True, "model__text__head": "none"}
    with pytest.raises(UserError, match=message):
        train(digits(**changes), tmp_path / "run")
    assert not list(tmp_path.glob("run/checkpoints/*"))


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_last_checkpoint(tmp_path):
    config = digits(optim__lr=1e30, optim__warmup=0, optim__clip_grad=0.0, optim__steps=40)
    config_calm = digits(optim__steps=40)
    with pytest.raises(UserError, match=r"The loss is .*nan.*lower optim.lr"):
        train(config, tmp_path / "wild")
    for path in checkpoints(tmp_path / "wild"):
        assert all(torch.isfinite(v).all() for v in load_file(path / "model.safetensors").values())
    assert config_calm.optim.lr == 1e-3


class Holes:
    """A source some of whose samples cannot be used."""

    def __init__(self, bad):
        self.inner, self.bad = open_source("digits:train"), bad
        self.name, self.gives, self.classes = "holes", self.inner.gives, self.inner.classes
        self.fingerprint = "holes"

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, index: int) -> Sample:
        if index in self.bad:
            raise BadSample(f"sample-{index}", "is a hole", "here")
        return self.inner[index]

    def shards(self):
        return self.inner.shards()


def test_bad_samples_are_rows_and_nothing_is_repeated_in_their_place(tmp_path):
    bad = set(range(0, 1297, 3))
    train(digits(), tmp_path, source=Holes(bad))
    rejected = lines(tmp_path, "rejected")
    assert {row["reason"] for row in rejected} == {"is a hole"}
    assert {int(row["id"].split("-")[1]) for row in rejected} <= bad
    assert 60 < len(rejected) < 200  # a third of 12 x 32


def test_a_batch_of_only_bad_samples_is_no_step_but_no_crash(tmp_path):
    train(digits(optim__steps=2), tmp_path, source=Holes(set(range(1297))))
    assert not lines(tmp_path, "train")
    assert len(lines(tmp_path, "rejected")) == 64
    assert lines(tmp_path, "end")


def test_the_judge_is_asked_when_due_and_changes_no_random_number(whole, tmp_path):
    asked = []

    def judge(model, step):
        assert not model.training
        torch.rand(5)
        asked.append(step)
        return {"zeroshot": {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10}}}

    config = digits(model__image__options__dropout=0.1, run__evaluate_every="5 steps")
    train(config, tmp_path, judge=judge)
    assert asked == [5, 10, 12]
    assert [line["step"] for line in lines(tmp_path, "eval")] == asked
    same_bits(newest_checkpoint(whole)[0], newest_checkpoint(tmp_path)[0])


def test_the_moving_average_lies_beside_the_raw_weights(whole, tmp_path):
    train(digits(model__image__options__dropout=0.1, optim__ema=0.9), tmp_path)
    last = newest_checkpoint(tmp_path)[0]
    same_bits(newest_checkpoint(whole)[0], last)
    raw, ema = load_file(last / "model.safetensors"), load_file(last / "ema.safetensors")
    assert raw.keys() == ema.keys()
    assert any(not torch.equal(raw[k], ema[k]) for k in raw)


def test_tensorboard_gets_the_same_numbers(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(digits(run__tensorboard=True, optim__steps=3), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    written = [event.value for event in events.Scalars("train/loss")]
    assert written == pytest.approx([line["loss"] for line in lines(tmp_path, "train")], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [0, 8])
def test_two_processes_give_the_loss_curve_of_one(tmp_path, chunk):
    """Same global batch, each process its own half: equal to fp32 rounding (1e-5)."""
    config = digits(data__chunk=chunk, optim__clip_grad=0.5)
    train(config, tmp_path / "one")
    write_config(tmp_path / "given.yaml", config)
    code = (
        "import sys; from pathlib import Path; from vislang.config import read_config;"
        "from vislang.train import train; from vislang.devices import stop_processes;"
        "train(read_config(sys.argv[1]), Path(sys.argv[2])); stop_processes()"
    )
    run_world(["-c", code, str(tmp_path / "given.yaml"), str(tmp_path / "two")], 2)
    one, two = (lines(tmp_path / name, "train") for name in ("one", "two"))
    assert [a["loss"] for a in two] == pytest.approx([b["loss"] for b in one], rel=1e-5)
    assert [a["grad_norm"] for a in two] == pytest.approx([b["grad_norm"] for b in one], rel=1e-4)
    assert lines(tmp_path / "two", "start")[0]["processes"] == 2
