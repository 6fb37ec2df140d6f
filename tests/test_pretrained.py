"""Saving and loading models: whole or absent, checked, and never a foreign import."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vislang.config import ModelConfig, TowerConfig, TrainConfig, write_config
from vislang.errors import UserError
from vislang.models import saved
from vislang.models.build import build_model
from vislang.models.pretrained import fingerprint_model, load_model, save_model
from vislang.train.checkpoint import save_checkpoint, tensors_of

CONFIG = ModelConfig(
    TowerConfig("scratch_vit", {"image_size": 16, "patch": 8, "width": 16, "depth": 1, "heads": 2}),
    TowerConfig(
        "scratch_text",
        {"tokenizer": "bytes", "context": 12, "width": 16, "depth": 1, "heads": 2},
        head="mlp",
        head_options={"hidden": 8},
    ),
    width=6,
)


def made(seed: int = 0, config: ModelConfig = CONFIG):
    torch.manual_seed(seed)
    return build_model(config).eval()


def same(a, b) -> bool:
    return fingerprint_model(a) == fingerprint_model(b)


@pytest.fixture
def run(tmp_path) -> Path:
    """A run folder with checkpoints of steps 2 and 4, the second with a moving average."""
    folder = tmp_path / "run"
    write_config(folder / "config.yaml", TrainConfig(model=CONFIG))
    save_checkpoint(folder, 2, {"model": tensors_of(made(2))}, {})
    tensors = {"model": tensors_of(made(4)), "ema": tensors_of(made(5))}
    save_checkpoint(folder, 4, tensors, {})
    return folder


def test_an_export_comes_back(tmp_path):
    model = made()
    save_model(model, CONFIG, tmp_path)
    again = load_model(tmp_path)
    assert not again.training
    assert again.config == load_model(str(tmp_path)).config
    x = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(again(image=x)["image"], model(image=x)["image"])
    assert same(model, again)
    assert json.loads((tmp_path / "vislang.json").read_text())["fingerprint"] == fingerprint_model(
        model
    )


def test_a_second_export_replaces_the_first(tmp_path):
    for seed in (0, 1):
        save_model(made(seed), CONFIG, tmp_path)
    assert same(load_model(tmp_path), made(1))


def test_an_interrupted_export_is_no_model(tmp_path, monkeypatch):
    save_model(made(), CONFIG, tmp_path)

    def full(*_):
        raise UserError("The disk is full")

    monkeypatch.setattr(saved, "write_json", full)
    with pytest.raises(UserError, match="disk is full"):
        save_model(made(1), CONFIG, tmp_path)
    with pytest.raises(UserError, match=r"is no model: it has neither vislang\.json"):
        load_model(tmp_path)


def test_a_changed_export_is_refused(tmp_path):
    save_model(made(), CONFIG, tmp_path)
    path = tmp_path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="not as it was written"):
        load_model(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match="is missing or not"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "not of format 1"),
        ({"sha256": {"../other": "0"}}, "names a file outside its folder"),
        ({"sha256": {"/etc/hostname": "0"}}, "names a file outside its folder"),
    ],
)
def test_a_strange_note_is_refused(tmp_path, change, message):
    save_model(made(), CONFIG, tmp_path)
    note = tmp_path / "vislang.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | change))
    with pytest.raises(UserError, match=message):
        load_model(tmp_path)
    note.write_text("{torn")
    with pytest.raises(UserError, match="is not JSON"):
        load_model(tmp_path)


@pytest.mark.parametrize("place", [("image", "name"), ("text", "head")])
def test_an_exports_config_names_no_import(tmp_path, place):
    """A folder from the web that says "os:system" runs nothing."""
    save_model(made(), CONFIG, tmp_path)
    note = tmp_path / "vislang.json"
    about = json.loads(note.read_text())
    about["model"][place[0]][place[1]] = "os:system"
    about["model"]["image"]["options"] = {}
    note.write_text(json.dumps(about))
    with pytest.raises(UserError, match="must be registered"):
        load_model(tmp_path)


def test_a_run_gives_its_newest_whole_checkpoint(run):
    assert same(load_model(run), made(4))
    assert same(load_model(run, ema=True), made(5))
    assert same(load_model(run / "checkpoints" / "000000002"), made(2))
    weights = run / "checkpoints" / "000000004" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    assert same(load_model(run), made(2))
    with pytest.raises(UserError, match=r"000000004 cannot be used: model\.safetensors does"):
        load_model(run / "checkpoints" / "000000004")
    (run / "checkpoints" / "000000002" / "done.json").unlink()
    with pytest.raises(UserError, match=r"no usable checkpoint .*000000002: it has no done\.json"):
        load_model(run)


def test_a_run_without_a_moving_average_says_so(run):
    with pytest.raises(UserError, match="kept no moving average"):
        load_model(run / "checkpoints" / "000000002", ema=True)


def test_a_run_without_checkpoints_says_so(tmp_path):
    write_config(tmp_path / "config.yaml", TrainConfig(model=CONFIG))
    with pytest.raises(UserError, match=r"no usable checkpoint \(there is none\)"):
        load_model(tmp_path)


def test_a_checkpoint_of_another_architecture_is_named(run):
    other = replace(CONFIG, width=7)
    write_config(run / "config.yaml", TrainConfig(model=other))
    with pytest.raises(UserError, match=r"do not fit.*image.head.0.weight is \[6, 16\], not \[7"):
        load_model(run)


def test_a_runs_own_parts_need_the_users_word(run):
    image = TowerConfig("test_pretrained:own_tower", CONFIG.image.options)
    write_config(run / "config.yaml", TrainConfig(model=replace(CONFIG, image=image)))
    with pytest.raises(UserError, match="must be registered"):
        load_model(run)
    assert same(load_model(run, trusted=True), made(4))


def own_tower(**arguments):
    from vislang.models.towers.scratch_vit import build

    return build(**arguments)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("runs/absent", "There is no model 'runs/absent'"),
        ("open-clip:ViT-B-32/openai", "There is no model .*Did you mean 'open_clip:'"),
        ("", "is no model"),
        ("timm:test_vit?image_sise=3", "no field 'image_sise'"),
    ],
)
def test_wrong_specs_are_named(spec, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        load_model(spec)


def test_the_weights_file_is_read_by_safetensors_alone(tmp_path):
    """Importing and loading our own models imports no tower library and no unpickler runs."""
    save_model(made(), CONFIG, tmp_path)
    code = (
        "import sys; from vislang.models.pretrained import load_model; import torch;"
        "torch.load = None; load_model(sys.argv[1]);"
        "heavy = ('open_clip', 'timm', 'transformers', 'torchvision');"
        "print([module for module in heavy if module in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_tied_weights_are_written_out(tmp_path):
    tied = torch.nn.Module()
    tied.a = torch.nn.Linear(2, 2, bias=False)
    tied.b = torch.nn.Linear(2, 2, bias=False)
    tied.b.weight = tied.a.weight
    path = tmp_path / "tied.safetensors"
    path.write_bytes(saved.tensor_bytes(tied))
    from safetensors.torch import load_file

    state = load_file(path)
    assert torch.equal(state["a.weight"], state["b.weight"])
    with pytest.raises(RuntimeError, match="share memory"):
        save_file(dict(tied.state_dict()), tmp_path / "raw.safetensors")
