"""The dual encoder: its contract with training and embedding."""

import copy
from dataclasses import replace

import pytest
import torch

from vislang.config import ModelConfig, TowerConfig
from vislang.errors import UserError
from vislang.models.build import build_model
from vislang.models.dual import DualEncoder, Side, count_parameters
from vislang.models.fingerprint import fingerprint_model, fingerprint_side

SIZES = {"depth": 2, "heads": 2, "dropout": 0.1}
IMAGE = TowerConfig("scratch_vit", {"image_size": 16, "patch": 8, "width": 16, **SIZES})
TEXT = TowerConfig(
    "scratch_text",
    {"tokenizer": "bytes", "context": 12, "width": 24, **SIZES},
    head="mlp",
    head_options={"hidden": 8},
)
CONFIG = ModelConfig(IMAGE, TEXT, width=10)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(3)
    image = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=generator)
    text = build_model(CONFIG).side("text").tower.prepare(["one", "two", "three", "four"])
    return {"image": image, "text": text}


def made(config: ModelConfig = CONFIG, seed: int = 0) -> DualEncoder:
    torch.manual_seed(seed)
    return build_model(config)


def test_forward_embeds_what_begins_with_image_or_text(batch):
    model = made().eval()
    label, ids = torch.arange(4), ["a", "b", "c", "d"]
    out = model(**batch, image_2=batch["image"].flip(0), label=label, id=ids, text_source="x")
    assert out["image"].shape == out["text"].shape == (4, 10)
    torch.testing.assert_close(out["image_2"], out["image"].flip(0))
    assert out["label"] is label
    assert out["id"] is ids
    assert out["text_source"] == "x"
    assert model.width == 10


def test_features_go_through_the_head_alone(batch):
    model = made().eval()
    side = model.side("text")
    features = side.features(batch["text"])
    assert features.shape == (4, 24)
    whole = model(text=batch["text"])["text"]
    torch.testing.assert_close(side(features, from_features=True), whole)
    out = model(text_features=features, image=batch["image"])
    assert set(out) == {"text", "image"}
    torch.testing.assert_close(out["text"], whole)


def test_stored_features_are_preferred_to_running_the_tower(batch):
    model = made()
    features = torch.randn(4, 24)
    model.side("text").tower.forward = None  # would fail if it ran
    out = model(**batch, text_features=features)
    torch.testing.assert_close(out["text"], model.side("text").head(features))


def test_features_of_another_tower_are_refused():
    with pytest.raises(UserError, match=r"Stored features must be \[B, 24\].*\[4, 23\]"):
        made()(text_features=torch.zeros(4, 23))


def test_features_of_another_precision_fit_the_head():
    out = made()(text_features=torch.zeros(4, 24, dtype=torch.float16))
    assert out["text"].dtype == torch.float32


def test_a_frozen_tower_keeps_its_weights_its_mode_and_no_graph(batch):
    model = made(replace(CONFIG, text=replace(TEXT, frozen=True))).train()
    side = model.side("text")
    assert side.head.training
    assert not any(m.training for m in side.tower.modules())
    assert not any(p.requires_grad for p in side.tower.parameters())
    features = side.features(batch["text"])
    assert not features.requires_grad
    out = model(**batch)
    (out["text"].sum() + out["image"].sum()).backward()
    assert all(p.grad is None for p in side.tower.parameters())
    assert all(p.grad is not None for p in side.head.parameters())
    # In eval mode dropout is off, so the frozen tower repeats itself while the other does not.
    torch.testing.assert_close(side.features(batch["text"]), features, rtol=0, atol=0)
    assert not torch.equal(model(**batch)["image"], out["image"])


def test_a_frozen_tower_has_no_graph_whatever_its_input_asks_for(batch):
    model = made(replace(CONFIG, image=replace(IMAGE, frozen=True)))
    floats = (batch["image"] / 255).requires_grad_()
    assert not model.side("image").features(floats).requires_grad
    assert made().side("image").features(floats).requires_grad


def test_freezing_survives_a_copy(batch):
    model = copy.deepcopy(made(replace(CONFIG, image=replace(IMAGE, frozen=True)))).train()
    assert not any(m.training for m in model.side("image").tower.modules())
    assert count_parameters(model.side("image"))["trainable"] == 16 * 10


def test_one_side_alone(batch):
    model = made(replace(CONFIG, text=TowerConfig("none")))
    assert model.text is None
    assert set(model(image=batch["image"])) == {"image"}
    with pytest.raises(UserError, match="no text side"):
        model(text=batch["text"])
    with pytest.raises(UserError, match="neither"):
        made(replace(CONFIG, text=TowerConfig(""), image=TowerConfig("none")))


def test_sides_must_share_a_width():
    side = made().side("image")
    other = Side(side.tower, side.head, 11)
    with pytest.raises(UserError, match="one width, got 10"):
        DualEncoder(side, other)


def test_the_seed_decides_the_weights():
    same = [torch.equal(a, b) for a, b in zip(made().parameters(), made().parameters())]
    assert all(same)
    other = [torch.equal(a, b) for a, b in zip(made().parameters(), made(seed=1).parameters())]
    assert not all(other)


@pytest.mark.parametrize(
    ("side", "message"),
    [
        (TowerConfig("scratch_vitt"), "No tower is called 'scratch_vitt'. Did you mean"),
        (TowerConfig("scratch_text"), "has no image side, only text"),
        (TowerConfig("scratch_vit", {"pach": 8}), "no field 'pach'. Did you mean 'patch'"),
        (TowerConfig("scratch_vit", {"patch": "big"}), "patch must be int"),
        (TowerConfig("scratch_vit", {"image_size": 30, "patch": 8}), "multiple of patch"),
        (TowerConfig("scratch_vit", {"width": 30, "heads": 4}), "heads must divide width"),
        (TowerConfig("scratch_vit", {"pool": "gap"}), "one of cls, mean"),
        (TowerConfig("scratch_vit", {"channels": 4}), "channels must be 3"),
        (TowerConfig("scratch_vit", {"depth": 0}), "depth must be at least 1"),
        (TowerConfig("os:nothing"), "'os' has no 'nothing'"),
    ],
)
def test_wrong_configs_are_named(side, message):
    with pytest.raises(UserError, match=message):
        made(replace(CONFIG, image=side))


def test_a_foreign_config_names_no_import():
    evil = replace(CONFIG, image=TowerConfig("os:system", {"command": "true"}))
    with pytest.raises(UserError, match="must be registered"):
        build_model(evil, trusted=False)
    with pytest.raises(UserError, match="must be registered"):
        build_model(replace(CONFIG, image=replace(IMAGE, head="os:system")), trusted=False)


def own_tower(*, side, pretrained, weights, size):
    """A tower of the user's own: the mean colour."""

    class Mean(torch.nn.Module):
        width = 3

        def forward(self, x):
            return x.float().mean((2, 3)) / size

    return Mean()


def test_a_users_own_tower():
    config = replace(CONFIG, image=TowerConfig(f"{__name__}:own_tower", {"size": 255}))
    assert made(config)(image=torch.zeros(2, 3, 8, 8))["image"].shape == (2, 10)
    fingerprint_model(made(config))
    with pytest.raises(UserError, match=r"no option 'sise'\. Did you mean 'size'"):
        made(replace(CONFIG, image=TowerConfig(f"{__name__}:own_tower", {"sise": 255})))


def test_a_users_own_tower_is_told_apart_by_its_pixels():
    from vislang.preprocess import Preprocess

    tower = own_tower(side="image", pretrained="", weights=True, size=1)
    tower.preprocess = Preprocess(size=(8, 8))
    first = fingerprint_side(Side(tower, torch.nn.Identity(), 3))
    tower.preprocess = Preprocess(size=(9, 9))
    assert fingerprint_side(Side(tower, torch.nn.Identity(), 3)) != first


def test_count_parameters():
    model = made(replace(CONFIG, text=replace(TEXT, frozen=True)))
    counts = count_parameters(model)
    frozen = sum(p.numel() for p in model.side("text").tower.parameters())
    assert counts["total"] - counts["trainable"] == frozen > 0


def test_fingerprints_tell_models_apart():
    first = fingerprint_model(made())
    assert first == fingerprint_model(made())
    assert first == fingerprint_model(made(replace(CONFIG, text=replace(TEXT, frozen=True))))
    changed = made()
    with torch.no_grad():
        next(changed.side("image").head.parameters())[0, 0] += 1e-3
    assert first != fingerprint_model(changed)
    # The features of the tower do not depend on the head, so their cache stays good.
    assert fingerprint_side(made().side("image")) == fingerprint_side(changed.side("image"))
    assert fingerprint_side(made().side("image")) != fingerprint_side(made(seed=1).side("image"))


@pytest.mark.parametrize(
    "options", [{"mean": (0.5, 0.5, 0.5)}, {"interpolation": "bilinear"}, {"heads": 4}]
)
def test_fingerprints_know_what_weights_do_not(options):
    """Same weights, other pixels or other heads: another model."""
    config = replace(CONFIG, image=replace(IMAGE, options=IMAGE.options | options))
    model = made(config)
    model.load_state_dict(made().state_dict())
    assert fingerprint_side(model.side("image")) != fingerprint_side(made().side("image"))
