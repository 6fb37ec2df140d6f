"""Foreign files of weights: converted in a child process, refused when they hold more."""

import os
import subprocess
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from vislang.config import TowerConfig
from vislang.errors import UserError
from vislang.models.build import build_tower
from vislang.models.foreign import convert, find_tensors, guarded
from vislang.models.weights import load_exactly, read_weights, take_part

VIT = {"image_size": 16, "patch": 8, "width": 16, "depth": 1, "heads": 2}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("VISLANG_CACHE", str(tmp_path / "cache"))


class Evil:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def vit(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_tower("image", TowerConfig("scratch_vit", VIT))


def load_vit(path: Path) -> nn.Module:
    torch.manual_seed(9)
    return build_tower("image", TowerConfig("scratch_vit", VIT, pretrained=str(path)))


def test_a_pth_file_fills_a_tower_and_is_converted_once(tmp_path, monkeypatch):
    """A whole model in a training program's checkpoint, of which the image side is taken."""
    source = vit(0).state_dict()
    model = OrderedDict((f"module.visual.{k}", v) for k, v in source.items())
    model["module.logit_scale"], model["module.text_projection"] = torch.ones(()), torch.ones(2)
    model._metadata = source._metadata
    path = tmp_path / "weights.pth"
    torch.save({"epoch": 3, "state_dict": model}, path)
    for name, value in load_vit(path).state_dict().items():
        assert torch.equal(value, source[name])

    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("converted twice"))
    copy = tmp_path / "copy.pt"
    copy.write_bytes(path.read_bytes())
    first = convert(path)
    assert convert(copy) == first
    assert list(first.parent.iterdir()) == [first]  # nothing temporary is left
    guarded_libraries_see_it(copy, model)


def guarded_libraries_see_it(path, model):
    """What a library unpickles inside `guarded` comes from the child, version notes included."""
    real = torch.load
    with guarded():
        state = torch.load(path, map_location="cpu", weights_only=False)
        with path.open("rb") as file, pytest.raises(UserError, match="not unpickled here"):
            torch.load(file)
    assert torch.load is real
    assert set(state) == set(model)
    assert state._metadata == model._metadata


def test_code_in_a_file_does_not_run(tmp_path):
    mark = tmp_path / "ran"
    path = tmp_path / "weights.bin"
    torch.save({"a": torch.zeros(1), "b": Evil(mark)}, path)
    with pytest.raises(UserError, match=r"not a file of plain tensors \(UnpicklingError"):
        convert(path)
    assert not mark.exists()
    assert not list((tmp_path / "cache").rglob("*.*"))


def test_limits_hold(tmp_path):
    """A file that asks for far more memory than it has bytes is given up."""
    path = tmp_path / "weights.pt"
    one = torch.zeros(1).expand(3_000_000_000)  # 12 GB as a copy, 4 bytes in the file
    torch.save({"a": one}, path)
    assert path.stat().st_size < 10_000
    with pytest.raises(UserError, match="can't allocate memory"):
        convert(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("weights.txt", b"x", "the suffix must be"),
        ("weights.safetensors", b"x" * 20, "no whole safetensors file"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_weights(path)
    with pytest.raises(UserError, match="no file of weights at"):
        read_weights(tmp_path / "absent.pt")


@pytest.mark.parametrize("value", [[1, 2], {}, {"a": 1}, {"state_dict": {"a": 1}}])
def test_what_holds_no_tensors(value):
    assert find_tensors(value)[0] == {}


def test_misfits_are_named():
    layer = nn.Linear(2, 3)
    state = {"weight": torch.zeros(3, 3), "offset": torch.zeros(3)}
    with pytest.raises(UserError) as error:
        load_exactly(layer, state, "a.pt into Linear")
    text = str(error.value)
    assert "a.pt into Linear" in text
    assert "Missing: bias." in text
    assert "Unexpected: offset." in text
    assert "weight is [3, 3], not [3, 2]" in text
    many = {f"k{i}": torch.zeros(1) for i in range(9)}
    with pytest.raises(UserError, match="k0, k1, k2 and 6 more"):
        load_exactly(layer, many, "b")


def test_the_best_fitting_part_is_taken():
    state = {"text.a": torch.zeros(1), "text.b": torch.ones(1), "visual.a": torch.full((1,), 2.0)}
    part = take_part(state, {"a", "b"}, ("", "text."))
    assert part.keys() == {"a", "b"}
    top = {"a": torch.zeros(1), "visual.a": torch.ones(1), "logit_scale": torch.ones(())}
    assert take_part(top, {"a"}, ("", "text.")).keys() == {"a"}
