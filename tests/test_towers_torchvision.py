"""torchvision: every classification model loses its classifier, found by structure alone."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vislang.errors import UserError
from vislang.models.pixels import prepare_image
from vislang.models.towers.torchvision import build, take_off_classifier
from vislang.models.towers.wrapped import output_width
from vislang.preprocess import Preprocess

pytestmark = pytest.mark.xdist_group("libraries")

# The width before the last layer, a few of each family; of all others only that there is one.
WIDTHS = {
    "alexnet": 4096, "convnext_tiny": 768, "densenet121": 1024, "densenet161": 2208,
    "efficientnet_b0": 1280, "efficientnet_v2_s": 1280, "googlenet": 1024, "inception_v3": 2048,
    "maxvit_t": 512, "mnasnet0_5": 1280, "mobilenet_v2": 1280, "mobilenet_v3_small": 1024,
    "regnet_y_400mf": 440, "resnet18": 512, "resnext50_32x4d": 2048, "shufflenet_v2_x0_5": 1024,
    "squeezenet1_0": 512, "swin_t": 768, "swin_v2_t": 768, "vgg11_bn": 4096, "vit_b_32": 768,
    "wide_resnet50_2": 2048,
}  # fmt: skip
QUICK = ("alexnet", "densenet121", "googlenet", "mobilenet_v3_small", "squeezenet1_0", "swin_t",
         "vit_b_32", "regnet_y_400mf")  # fmt: skip


@pytest.fixture
def without_init(monkeypatch):
    """Weights stay as the allocator gives them: 640 million are then free."""
    for name in ("normal_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_", "uniform_",
                 "zeros_", "ones_", "constant_", "xavier_uniform_"):  # fmt: skip
        monkeypatch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)


def names() -> list:
    from torchvision import models

    found = models.list_models(module=models)
    assert set(WIDTHS) <= set(found)
    marks = [() if name in QUICK else (pytest.mark.slow,) for name in found]
    return [pytest.param(name, marks=mark) for name, mark in zip(found, marks)]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", names())
def test_every_classifier_comes_off(name, without_init):
    from torchvision import models

    size = (224, 224) if "inception" not in name else (299, 299)
    model = models.get_model(name, weights=None)
    before = sum(p.numel() for p in model.parameters())

    gone = take_off_classifier(model, size)

    width = output_width(model, size)
    assert width == WIDTHS.get(name, width)
    assert width != 1000
    # What is gone is the layer onto 1000 classes, and auxiliary heads.
    lost = before - sum(p.numel() for p in model.parameters())
    assert lost in (width * 1000, width * 1000 + 1000) or name in ("googlenet", "inception_v3")
    assert not any(name.startswith(gone) for name in model.state_dict())


def test_auxiliary_heads_do_not_answer_in_training():
    tower = build(side="image", name="googlenet", image_size=64).train()
    out = tower(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    assert out.shape == (2, 1024)
    assert not any("aux" in name for name, _ in tower.named_parameters())


def test_a_local_file_with_its_classifier_loads(tmp_path):
    from torchvision import models

    torch.manual_seed(5)
    source = models.squeezenet1_1(weights=None).eval()
    path = tmp_path / "weights.pth"
    torch.save(source.state_dict(), path)
    tower = build(side="image", name="squeezenet1_1", image_size=64, pretrained=str(path)).eval()
    x = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        maps = source.features(tower.pixels(x))
        torch.testing.assert_close(tower(x), maps.relu().mean((2, 3)))

    state = source.state_dict()
    state["features.0.wait"] = state.pop("features.0.weight")
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    with pytest.raises(UserError, match=r"Missing: features.0.weight. Unexpected: features.0.wait"):
        build(side="image", name="squeezenet1_1", pretrained=str(path))


@pytest.mark.parametrize(
    ("options", "pretrained", "message"),
    [
        ({"name": "resnet5"}, "", "no classification model 'resnet5'. Did you mean"),
        ({"name": "resnet18"}, "IMAGENET1K_V7", "no weights 'IMAGENET1K_V7'.* IMAGENET1K_V1"),
        ({"name": "resnet18", "sise": 3}, "", "no field 'sise'"),
        ({"name": "vit_b_32", "image_size": 50}, "", "cannot make vit_b_32"),
    ],
)
def test_wrong_options_are_named(options, pretrained, message):
    with pytest.raises(UserError, match=message):
        build(side="image", pretrained=pretrained, **options)


@pytest.mark.parametrize("shape", [(300, 200), (201, 333), (224, 224), (100, 50)])
@pytest.mark.parametrize("fraction", [0.875, 1.0])
def test_pixels_are_torchvisions(shape, fraction):
    """Within one grey level of torchvision's Resize and CenterCrop on a PIL image."""
    from PIL import Image
    from torchvision.transforms.v2 import functional as tv

    array = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    preprocess = Preprocess(size=(112, 112), crop_fraction=fraction, interpolation="bilinear")
    theirs = tv.resize(Image.fromarray(array), [int(112 / fraction)])
    theirs = np.array(tv.center_crop(theirs, [112, 112]))
    ours = prepare_image(array, preprocess).permute(1, 2, 0).numpy()
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_other_fits():
    picture = np.full((40, 80, 3), 200, dtype=np.uint8)
    squashed = prepare_image(picture, Preprocess(size=(16, 24), fit="squash"))
    assert squashed.shape == (3, 16, 24)
    assert (squashed == 200).all()
    padded = prepare_image(picture, Preprocess(size=(16, 16), fit="longest", fill=7))
    assert (padded[:, 4:12] == 200).all()
    assert (padded[:, :4] == 7).all()
    assert (padded[:, 12:] == 7).all()
    wide = prepare_image(picture, Preprocess(size=(10, 30)))
    assert wide.shape == (3, 10, 30)
    assert (wide == 200).all()
