"""Checkpoints of self-supervised programs, with random weights in their own key layouts."""

import pytest
import torch
from safetensors.torch import save_file

from vislang.errors import UserError
from vislang.models.pretrained import load_model
from vislang.models.towers.timm import build as timm_tower

# layout -> (prefix of the tower, what lies beside it)
LAYOUTS = {
    "simclr": ("encoder.", ("projection.model.0.weight", "projection.model.3.weight")),
    "simsiam": ("module.encoder.", ("module.encoder.fc.0.weight", "module.encoder.fc.6.bias",
                                    "module.predictor.0.weight")),
    "swav": ("module.", ("module.projection_head.0.weight", "module.prototypes.weight")),
    "mocov3": ("module.base_encoder.", ("module.base_encoder.fc.0.weight",
                                        "module.momentum_encoder.conv1.weight",
                                        "module.predictor.0.weight")),
    "lgssl flat": ("", ()),
    "lgssl training": ("visual_backbone.", ("visual_project.0.weight", "language_project.weight",
                                            "language_backbone.ln_final.weight")),
}  # fmt: skip


@pytest.fixture(scope="module")
def original():
    from torchvision.models import resnet18

    torch.manual_seed(3)
    model = resnet18()
    model.fc = torch.nn.Identity()
    return model.eval()


def written(state, layout):
    """A state dict as the program of that layout keeps it."""
    prefix, beside = LAYOUTS[layout]
    tower = {prefix + name: value for name, value in state.items()}
    return tower | {name: torch.randn(3, 3) for name in beside}


def check_equal(tower, original):
    x = torch.rand(2, 3, 64, 64)
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in (tower.preprocess.mean, tower.preprocess.std)
    )
    with torch.no_grad():
        torch.testing.assert_close(tower.eval()(x), original((x - mean) / std))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_tower_of_a_checkpoint_is_the_original(layout, original, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(written(original.state_dict(), layout), path)
    check_equal(load_model(f"torchvision:resnet18/{path}").image.tower, original)
    check_equal(timm_tower(side="image", pretrained=str(path), name="resnet18"), original)


def test_a_pickled_checkpoint_with_an_optimizer_beside_it(original, tmp_path, monkeypatch):
    """As SimSiam's program saves it; read in a child process."""
    monkeypatch.setenv("VISLANG_CACHE", str(tmp_path / "cache"))
    state = written(original.state_dict(), "simsiam")
    path = tmp_path / "checkpoint_0099.pth.tar"
    torch.save({"epoch": 100, "arch": "resnet18", "state_dict": state, "optimizer": {"a": 1}}, path)
    check_equal(load_model(f"torchvision:resnet18/{path}").image.tower, original)


def test_half_a_checkpoint_is_refused(original, tmp_path):
    """The original loads with strict=False and never looks."""
    state = {
        f"module.encoder.{k}": v for k, v in original.state_dict().items() if "layer4" not in k
    }
    save_file(state, tmp_path / "half.safetensors")
    with pytest.raises(UserError, match=r"Missing: layer4\.0"):
        load_model(f"torchvision:resnet18/{tmp_path / 'half.safetensors'}")


def test_a_random_baseline_is_always_the_same():
    first, again = (load_model("torchvision:resnet18/random").state_dict() for _ in range(2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    load_model("timm:test_resnet.random?image_size=32")
    assert torch.equal(torch.rand(1), before)  # other randomness is left alone
