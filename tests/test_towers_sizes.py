"""Images of another size than a tower's own: exact where it can be, refused in words where not."""

import pytest
import torch
from torch import nn

from towers_cases import CASES, CLIP, Case
from vislang.errors import UserError
from vislang.models.towers.sizes import check_image_size, resize_positions
from vislang.models.towers.wrapped import WrappedImage
from vislang.preprocess import Preprocess

pytestmark = pytest.mark.xdist_group("libraries")

FLEXIBLE = [
    "scratch_vit", "scratch_vit mean sincos grey", "open_clip image", "open_clip coca image",
    "timm vit", "timm convolutional", "torchvision",
]  # fmt: skip


def images(height: int, width: int, n: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("name", FLEXIBLE)
def test_towers_take_other_sizes(name):
    tower = CASES[name].build().eval()
    for size in ((48, 48), (32, 64)):
        check_image_size(tower, size)
        with torch.no_grad():
            out = tower(images(*size))
        assert out.shape == (3, tower.width) and out.isfinite().all()


def larger(positions: torch.Tensor, grid: tuple[int, int], new: tuple[int, int]) -> torch.Tensor:
    """timm's own resizing, [1 + h·w, D]."""
    from timm.layers.pos_embed import resample_abs_pos_embed

    return resample_abs_pos_embed(positions[None], list(new), list(grid))[0]


@pytest.mark.parametrize("new", [(2, 2), (4, 4), (6, 9), (13, 14), (14, 14)])
def test_positions_are_resized_as_timm_does(new):
    positions = torch.randn(1 + 49, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        resize_positions(positions, (7, 7), new), larger(positions, (7, 7), new)
    )
    assert resize_positions(positions, (7, 7), (7, 7)) is positions
    double = resize_positions(positions.double(), (7, 7), new)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), resize_positions(positions, (7, 7), new))


CLIP_24 = CLIP | {"vision_cfg": CLIP["vision_cfg"] | {"image_size": [24, 32]}}


@pytest.mark.parametrize(
    ("name", "grid", "other", "key"),
    [
        ("scratch_vit", (2, 2), {"image_size": [24, 32]}, "positional_embedding"),
        ("scratch_vit mean sincos grey", (2, 3), {"image_size": [24, 32]}, "positional_embedding"),
        (
            "open_clip image",
            (2, 2),
            {"config": {"model_cfg": CLIP_24}},
            "model.positional_embedding",
        ),
    ],
)
def test_another_size_gives_the_numbers_of_a_tower_made_for_it(name, grid, other, key):
    """With the same weights and the positions resized beforehand."""
    tower = CASES[name].build().eval()
    case = CASES[name]
    made = Case(case.name, case.side, {**case.options, **other}).build(seed=1).eval()
    state = dict(tower.state_dict())
    state[key] = larger(state[key], grid, (3, 4))
    made.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(tower(images(24, 32)), made(images(24, 32)))
        assert not torch.equal(tower(images(24, 32))[0], tower(images(24, 32))[1])


def test_timm_gives_the_numbers_of_a_model_made_for_the_size():
    tower = CASES["timm vit"].build().eval()
    made = Case("timm", "image", {"name": "test_vit", "image_size": 64}).build(seed=1).eval()
    state = dict(tower.state_dict())
    state["model.pos_embed"] = larger(state["model.pos_embed"][0], (2, 2), (4, 4))[None]
    made.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(tower(images(64, 64)), made(images(64, 64)))


def test_timm_at_its_own_size_is_timm():
    import timm

    tower = CASES["timm vit"].build().eval()
    plain = timm.create_model("test_vit", num_classes=0, img_size=32).eval()
    plain.load_state_dict(tower.model.state_dict())
    with torch.no_grad():
        same = plain(tower.pixels(images(32, 32)))
        assert torch.equal(tower(images(32, 32)), same)


@pytest.mark.parametrize(
    ("name", "key"),
    [("scratch_vit", "positional_embedding"), ("open_clip image", "model.positional_embedding"),
     ("timm vit", "model.pos_embed")],
)  # fmt: skip
def test_positions_learn_from_other_sizes(name, key):
    tower = CASES[name].build().train()
    tower(images(48, 48)).square().sum().backward()
    gradient = tower.get_parameter(key).grad
    assert gradient is not None and (gradient.abs().sum(-1) > 0).all()


TORCHVISION_VIT = Case("torchvision", "image", {"name": "vit_b_32", "image_size": 64})


@pytest.mark.parametrize(
    ("case", "size", "said"),
    [
        (
            TORCHVISION_VIT,
            (96, 96),
            "The image tower torchvision (vit_b_32) takes images of 64 x 64 pixels, not 96 x 96"
            " (data.crop_size): Wrong image height! Expected 64 but got 96. Set data.crop_size=0",
        ),
        (
            CASES["scratch_vit"],
            (20, 20),
            "The image tower scratch_vit takes images of 16 x 16 pixels, not 20 x 20"
            " (data.crop_size): An image of 20 x 20 pixels does not divide into patches of 8 x 8",
        ),
        (CASES["open_clip image"], (20, 20), "The image tower open_clip takes images of 16 x 16"),
        (CASES["open_clip resnet"], (64, 64), "The image tower open_clip takes images of 32 x 32"),
        (CASES["timm vit"], (40, 40), "The image tower timm (test_vit) takes images of 32 x 32"),
    ],
)
def test_a_size_that_a_tower_cannot_take_is_refused_at_once(case, size, said):
    tower = case.build()
    with pytest.raises(UserError) as caught:
        check_image_size(tower, size, case.name)
    assert str(caught.value).startswith(said)
    with pytest.raises(Exception, match=r"."), torch.no_grad():
        tower(images(*size))  # it is true
    check_image_size(tower, tower.preprocess.size)


def test_a_tower_whose_width_goes_with_the_size_is_refused():
    """A net without pooling runs at any size, but its rows then fit no head."""
    net = nn.Sequential(nn.Conv2d(3, 2, 8, 8), nn.Flatten())
    tower = WrappedImage(net, 8, Preprocess((16, 16)), {})
    with pytest.raises(UserError, match=r"tower WrappedImage takes images of 16 x 16 .*\[1, 18\]"):
        check_image_size(tower, (24, 24))


def test_asking_changes_nothing(monkeypatch):
    """Neither modes nor weights nor statistics; and a compiled tower is not compiled for it."""
    tower = CASES["torchvision version"].build().train()
    norm = next(module for module in tower.modules() if isinstance(module, nn.BatchNorm2d))
    norm.eval()  # as a locked one is held
    before = {key: value.clone() for key, value in tower.state_dict().items()}
    compiled = []
    tower.compile(backend=lambda graph, _: compiled.append(graph) or graph.forward)
    check_image_size(tower, (48, 48))
    assert not compiled and tower.training and not norm.training
    assert all(torch.equal(value, before[key]) for key, value in tower.state_dict().items())


def test_a_run_refuses_the_size_before_its_first_step(tmp_path):
    from vislang.config import (
        DataConfig,
        ModelConfig,
        ObjectiveConfig,
        OptimConfig,
        RunConfig,
        TowerConfig,
        TrainConfig,
    )
    from vislang.train import train

    vit = {"image_size": 16, "patch": 8, "width": 16, "depth": 1, "heads": 2}
    config = TrainConfig(
        model=ModelConfig(TowerConfig("scratch_vit", vit), TowerConfig("none"), 8),
        objective=ObjectiveConfig("swav", {"crops": 2, "prototypes": 4, "projector": [8]}),
        data=DataConfig("digits", batch_size=8, workers=0, augment="simclr", crop_size=20),
        optim=OptimConfig(steps=1, warmup=1.0),
        run=RunConfig(device="cpu", precision="fp32", tensorboard=False),
    )
    with pytest.raises(
        UserError, match=r"takes images of 16 x 16 pixels, not 20 x 20 \(data\.crop"
    ):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
