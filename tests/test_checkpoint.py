"""Checkpoints: whole or absent, checked, and equal to what was saved."""

import errno
import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vislang.config import OptimConfig
from vislang.errors import UserError
from vislang.train import checkpoint as ckpt
from vislang.train.ema import Ema
from vislang.train.optim import make_optimizer


def save(folder, step, value=1.0):
    return ckpt.save_checkpoint(
        folder, step, {"model": {"w": torch.full((3,), value)}}, {"epoch": 0}
    )


def test_what_is_saved_is_read_back(tmp_path):
    path = save(tmp_path, 20, 2.5)
    assert path.name == "000000020"
    tensors, state = ckpt.read_checkpoint(path)
    assert torch.equal(tensors["model"]["w"], torch.full((3,), 2.5))
    assert state == {"step": 20, "epoch": 0}
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_the_newest_whole_checkpoint_is_taken_and_the_others_are_named(tmp_path):
    good, torn, cut, unfinished = (save(tmp_path, step) for step in (1, 2, 3, 4))
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    (cut / "model.safetensors").unlink()
    (unfinished / ckpt.DONE).unlink()
    found, bad = ckpt.newest_checkpoint(tmp_path)
    assert found == good
    assert [sentence.split(":")[0] for sentence in bad] == [
        "000000004 is skipped",
        "000000003 is skipped",
        "000000002 is skipped",
    ]
    assert "done.json" in bad[0] and "missing" in bad[1] and "bytes" in bad[2]


def test_a_flipped_bit_is_seen(tmp_path):
    path = save(tmp_path, 1) / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert ckpt.newest_checkpoint(tmp_path)[0] is None


def test_a_full_disk_leaves_earlier_checkpoints_and_says_so(tmp_path, monkeypatch):
    good = save(tmp_path, 1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ckpt, "write_json", full)
    with pytest.raises(UserError, match=r"disk is full.*step 2.*Earlier checkpoints are intact"):
        save(tmp_path, 2)
    assert ckpt.newest_checkpoint(tmp_path)[0] == good
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["000000001"]


def test_sweeping_keeps_the_newest_and_removes_leftovers(tmp_path):
    for step in (1, 2, 3, 4):
        save(tmp_path, step)
    (tmp_path / "checkpoints" / ".000000005.77.tmp").mkdir()
    ckpt.thin(tmp_path, 2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        "000000003",
        "000000004",
    ]


def test_the_optimizer_goes_on_with_the_same_bits():
    def run(steps, restart):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
        optimizer = make_optimizer({"model": module}, OptimConfig(lr=0.1))
        for step in range(steps):
            if step == restart:
                saved = {k: v.clone() for k, v in ckpt.optimizer_tensors(optimizer).items()}
                optimizer = make_optimizer({"model": module}, OptimConfig(lr=0.1))
                ckpt.load_optimizer(optimizer, saved)
            torch.manual_seed(step)
            optimizer.zero_grad()
            module(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
        return module.state_dict()

    torch.testing.assert_close(run(6, 3), run(6, None), rtol=0, atol=0)


def test_tied_weights_are_saved_and_loaded(tmp_path):
    module = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    module["b"].weight = module["a"].weight
    save_file(ckpt.tensors_of(module), tmp_path / "m.safetensors")
    other = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    ckpt.load_module(other, ckpt.tensors_of(module), "model")
    assert torch.equal(other["b"].weight, module["a"].weight)


def test_a_checkpoint_of_another_model_is_refused_by_name():
    with pytest.raises(UserError, match=r"does not fit the model: 1 tensors missing \['weight'\]"):
        ckpt.load_module(nn.Linear(3, 3), {"bias": torch.zeros(3), "x": torch.zeros(1)}, "model")


def test_done_json_names_every_file(tmp_path):
    path = save(tmp_path, 7)
    names = set(json.loads((path / ckpt.DONE).read_text())["sha256"])
    assert names | {ckpt.DONE} == {p.name for p in path.iterdir()}


def test_the_moving_average_follows_weights_and_copies_buffers():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].bias.requires_grad_(False)
    ema = Ema(model, 0.9)
    start = model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight.add_(1.0)
        model[1].running_mean.add_(2.0)
    ema.update()
    torch.testing.assert_close(ema.model[0].weight, start + 0.1)
    assert torch.equal(ema.model[1].running_mean, model[1].running_mean)
    assert ema.model[0].bias is model[0].bias  # frozen weights are shared, not copied
    assert not any(p.requires_grad for p in ema.model[0].parameters())
