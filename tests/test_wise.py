"""Models between models: WiSE-FT's line, and the moving average of the weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from runs import IMAGE, TEXT, digits
from vislang.cli import main as cli
from vislang.config import ModelConfig, TowerConfig
from vislang.errors import UserError
from vislang.models.build import build_model
from vislang.models.pretrained import load_model, save_model
from vislang.models.wise import interpolate_models, interpolate_states
from vislang.train.ema import Ema
from vislang.train.loop import train

GOLDEN = np.load(Path(__file__).parent / "golden" / "weights.npz")


def golden(prefix: str) -> dict[str, torch.Tensor]:
    found = {k.removeprefix(prefix): GOLDEN[k] for k in GOLDEN if k.startswith(prefix)}
    return {k: torch.from_numpy(v) for k, v in found.items()}


def test_the_line_is_the_originals_but_for_whole_numbers():
    """It took a truncated share of a batch norm's counter (2 of 7); ours is the fine-tuned one."""
    start, end = golden("wise_ft/theta0_"), golden("wise_ft/theta1_")
    theirs, ours = golden("wise_ft/alpha0.3_"), interpolate_states(start, end, 0.3)
    assert set(ours) == set(theirs) and len(ours) == 7
    for name, value in ours.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, theirs[name], rtol=1e-6, atol=1e-8)
    count = "1.num_batches_tracked"
    assert (int(theirs[count]), int(ours[count])) == (2, 7)


@given(alpha=st.floats(0, 1), seed=st.integers(0, 9))
def test_ends_are_exact_and_the_line_is_straight(alpha, seed):
    generator = torch.Generator().manual_seed(seed)
    start, end = ({"w": torch.randn(5, generator=generator)} for _ in range(2))
    assert torch.equal(interpolate_states(start, end, 0.0)["w"], start["w"])
    assert torch.equal(interpolate_states(start, end, 1.0)["w"], end["w"])
    wanted = (1 - alpha) * start["w"].double() + alpha * end["w"].double()
    found = interpolate_states(start, end, alpha)["w"].double()
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_half_precision_is_rounded_once():
    start, end = ({"w": torch.tensor([v], dtype=torch.bfloat16)} for v in (1.0, 1.0078125))
    made = interpolate_states(start, end, 0.9)["w"]
    assert made.dtype == torch.bfloat16 and made.item() == 1.0078125


CONFIG = ModelConfig(IMAGE, TEXT, width=16)


def made(config: ModelConfig = CONFIG, seed: int = 0):
    torch.manual_seed(seed)
    return build_model(config)


def test_models_meet_half_way():
    start, end = made(seed=1), made(seed=2)
    before = [p.detach().clone() for p in end.parameters()]
    middle = interpolate_models(start, end, 0.5)
    for m, a, b in zip(middle.parameters(), start.parameters(), end.parameters()):
        torch.testing.assert_close(m, (a + b) / 2)
    assert all(torch.equal(a, b) for a, b in zip(before, end.parameters()))
    assert middle.config == end.config


def changed(**options) -> ModelConfig:
    return replace(CONFIG, text=replace(TEXT, options={**TEXT.options, **options}))


@pytest.mark.parametrize(
    ("other", "alpha", "message"),
    [
        (changed(causal=False), 0.5, r"text sides .* differ in settings.causal \(True -> False\)"),
        (changed(depth=2), 0.5, "text sides .* differ in settings.depth"),
        (replace(CONFIG, width=8), 0.5, "image sides .* differ in head"),
        (replace(CONFIG, image=replace(IMAGE, head="mlp")), 0.5, "image sides .* differ in head"),
        (replace(CONFIG, text=TowerConfig("none")), 0.5, "Only one of the two models has a text"),
        (replace(CONFIG, image=replace(IMAGE, adapter="lora")), 0.5, "different weights.*--merge"),
        (CONFIG, 1.5, r"alpha must lie between 0 .* and 1 .*, got 1.5"),
    ],
)
def test_models_that_do_not_meet(other, alpha, message):
    with pytest.raises(UserError, match=message):
        interpolate_models(made(), made(other), alpha)


def test_what_acts_only_in_training_may_differ():
    end = made(changed(dropout=0.5), seed=2)
    assert interpolate_models(made(), end, 0.5).config == end.config


def test_states_that_do_not_fit():
    with pytest.raises(UserError, match=r"shape of w: \[2\] and \[3\]"):
        interpolate_states({"w": torch.zeros(2)}, {"w": torch.zeros(3)}, 0.5)
    with pytest.raises(UserError, match=r"first lacks \['b'\] \(1 in all\) and has \['a'\]"):
        interpolate_states({"a": torch.zeros(2)}, {"b": torch.zeros(2)}, 0.5)


def test_the_command_reads_exports_runs_and_checkpoints(tmp_path, capsys):
    start = save_model(made(seed=7), CONFIG, tmp_path / "start")
    config = digits(optim__steps=2, optim__ema=0.5, run__checkpoint_every="1 steps", run__keep=0)
    run = tmp_path / "run"
    train(config, run)
    for end, flags in (
        (str(run), []),
        (str(run), ["--ema", "true"]),
        (str(run / "checkpoints" / "000000001"), ["--alpha", "0.25"]),
    ):
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        assert cli.main(["interpolate", str(start), end, "--out", str(out), *flags]) == 0
        assert "Written" in capsys.readouterr().out
        alpha = 0.25 if "--alpha" in flags else 0.5
        wanted = interpolate_models(load_model(start), load_model(end, ema="--ema" in flags), alpha)
        found = load_model(out).state_dict()
        assert all(torch.equal(value, found[key]) for key, value in wanted.state_dict().items())
    assert cli.main(["interpolate", str(start), str(run), "--alpha", "2", "--out", "x"]) == 2
    assert "alpha must lie between 0" in capsys.readouterr().err


def test_the_average_is_the_originals_one_step_earlier():
    """It averaged at the start of a step, before the weights moved; ours never lags."""
    model = nn.Linear(3, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(GOLDEN["ema/w0"]))
    ema = Ema(model, float(GOLDEN["ema/decay"]))
    for step in range(3):
        with torch.no_grad():
            model.weight.copy_(torch.from_numpy(GOLDEN[f"ema/step{step}_model"]))
        ema.update()
        if step < 2:
            theirs = torch.from_numpy(GOLDEN[f"ema/step{step + 1}_ema"])
            torch.testing.assert_close(ema.model.weight.data, theirs, rtol=1e-12, atol=1e-14)
