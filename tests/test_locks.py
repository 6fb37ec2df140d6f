"""Layers and locks: which parameter is where, and which of them are trained."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.overrides import TorchFunctionMode

from runs import IMAGE, TEXT, digits
from towers_cases import CASES, Case
from vislang.config import ModelConfig, from_dict
from vislang.errors import UserError
from vislang.models.build import build_model
from vislang.models.dual import Side
from vislang.models.layers import Layers, find_layers
from vislang.models.locks import from_keywords, hold_statistics, lock_tower, locked_names
from vislang.train.loop import train
from vislang.train.optim import parameter_groups

GOLDEN = json.loads((Path(__file__).parent / "golden" / "adapters.json").read_text())
TORCHVISION = ("alexnet", "vgg11_bn", "resnet18", "densenet121", "mobilenet_v3_small",
               "efficientnet_b0", "googlenet", "convnext_tiny", "resnext50_32x4d", "vit_b_32",
               "swin_t", "shufflenet_v2_x0_5")  # fmt: skip


class Uses(TorchFunctionMode):
    """Notes the order in which a forward pass first uses each parameter, and enters each block."""

    def __init__(self, tower: nn.Module, layers: Layers):
        super().__init__()
        self.names = {id(p): n for n, p in tower.named_parameters()}
        self.order: list[str] = []
        for name in layers.blocks:
            tower.get_submodule(name).register_forward_pre_hook(self._entering(name))

    def _entering(self, name: str):
        return lambda *_: None if name in self.order else self.order.append(name)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        looked_at = func.__name__ == "__get__"  # `weight.dtype` is no use of a weight
        for value in () if looked_at else torch.utils._pytree.tree_leaves((args, kwargs or {})):
            name = self.names.get(id(value))
            if name and name not in self.order:
                self.order.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", CASES)
def test_layers_are_in_the_order_of_the_computation(name):
    """Found by structure and names; held against when the tower really uses each parameter."""
    tower = CASES[name].build()
    layers = find_layers(tower)
    assert set(layers.number) == {n for n, _ in tower.named_parameters(remove_duplicate=False)}
    if not layers.blocks:  # a table of word vectors: embeddings are all it has
        assert set(layers.number.values()) == {0}
        return
    assert len(layers.blocks) >= 2
    x = CASES[name].inputs(tower, 2)
    with torch.no_grad(), Uses(tower.eval(), layers) as uses:
        tower(x)
    assert len(set(uses.order) & set(layers.number)) > len(layers.number) / 2
    assert [n for n in uses.order if n in layers.blocks] == list(layers.blocks)
    entered = 0
    for used in uses.order:
        if used in layers.blocks:
            entered += 1
        elif used.startswith(tuple(f"{block}." for block in layers.blocks)):
            assert layers.number[used] == entered, used
        elif entered == 0:
            assert layers.number[used] == 0, used
        elif entered == len(layers.blocks):
            assert layers.number[used] == layers.last, used
        else:  # between two stages: with either of them
            assert layers.number[used] in (entered, entered + 1), used


@pytest.mark.parametrize("name", TORCHVISION)
def test_every_family_of_nets_has_layers(name):
    """Shapes only: at least four layers from stem to end, the number of blocks of a ViT."""
    import torchvision

    extra = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    with torch.device("meta"):
        tower = torchvision.models.get_model(name, weights=None, **extra)
    layers = find_layers(tower)
    expected = {"vit_b_32": 12, "resnet18": 4, "convnext_tiny": 7, "swin_t": 12}
    assert len(layers.blocks) == expected.get(name, len(layers.blocks)) >= 3
    first = next(iter(tower.named_parameters()))[0]
    if name != "vit_b_32":  # there it is the class token
        assert layers.number[first] == 0
    assert list(layers.number.values()).count(0) > 0
    numbers = [layers.number[n] for n, _ in tower.named_parameters()]
    if name not in ("vit_b_32", "swin_t"):
        assert numbers == sorted(numbers), "a convolutional net defines its parts in order"


class Names(nn.Module):
    """A module with parameters of given dotted names."""

    def __init__(self, names):
        super().__init__()
        for name in names:
            module = self
            *parents, last = name.split(".")
            for parent in parents:
                if parent not in module._modules:
                    module.add_module(parent, nn.Module())
                module = module._modules[parent]
            module.register_parameter(last, nn.Parameter(torch.zeros(2)))


@pytest.mark.parametrize("case", GOLDEN["locks"])
@pytest.mark.parametrize("side", ["image", "text"])
def test_the_originals_keywords_translate(side, case):
    """What its loops set for eleven combinations of flags."""
    told = GOLDEN["locks"][case]
    locked = told["args"][f"lock_{side}_model"]
    lock, unlock = from_keywords(locked, told["args"][f"lock_{side}_partial"])
    names = GOLDEN["lock_names"][side]
    tower = Names(names)
    # We refuse a pattern that matches nothing, where the original said nothing.
    with pytest.raises(UserError) if case == "binor" and side == "image" else nullcontext():
        lock_tower(tower, lock, unlock)
    lock_tower(tower, lock, [p for p in unlock if any(p.strip("*") in n for n in names)])
    found = dict(tower.named_parameters())
    assert "".join("01"[found[n].requires_grad] for n in names) == told[side]


WORDS = st.lists(st.sampled_from(["weight", "bias", "ln", "bn1", "layer4", "conv"]), max_size=3)


@given(locked=st.booleans(), plain=WORDS, marked=WORDS)
def test_keywords_mean_what_the_original_meant(locked, plain, marked):
    """Its rule in two lines, against the translation, on names that all words occur in."""
    names = GOLDEN["lock_names"]["image"] + ["ln_post.weight", "ln_post.bias"]
    rule = {
        n: any(w in n for w in marked) if locked else not any(w in n for w in plain) for n in names
    }
    lock, unlock = from_keywords(locked, ",".join([*plain, *(f"!{w}" for w in marked)]))
    frozen = locked_names(Names(names), lock, unlock)
    assert {n: n not in frozen for n in names} == rule


def trained(tower: nn.Module) -> set[str]:
    return {n for n, p in tower.named_parameters() if p.requires_grad}


def test_unlock_wins_and_the_order_does_not_matter():
    for lock, unlock in ((("*", "*.ln_*"), ("*.ln_*",)), (("*.ln_*", "*"), ("*.ln_*",))):
        tower = CASES["scratch_text"].build()
        assert not lock_tower(tower, lock, unlock)
        assert trained(tower) == {n for n, _ in tower.named_parameters() if "ln_" in n}
        assert "ln_final.weight" in trained(tower), "a star before a dot may be nothing"


@pytest.mark.parametrize(
    ("lock", "layers"),
    [
        (("embeddings",), {0}),
        (("final",), {7}),
        (("layers:0-2",), {1, 2, 3}),
        (("layers:5",), {6}),
        (("first:2", "embeddings"), {0, 1, 2}),
        (("last:2",), {5, 6}),
    ],
)
def test_groups_of_layers(lock, layers):
    tower = CASES["timm vit"].build()
    number = find_layers(tower).number
    lock_tower(tower, lock)
    assert {n for n in number if n not in trained(tower)} == {
        n for n in number if number[n] in layers
    }


def test_one_pattern_for_every_builder():
    """`last:1` leaves the last block (or stage) and what is behind it, whatever the library."""
    for name in ("scratch_vit", "open_clip image", "timm vit", "timm convolutional", "torchvision",
                 "huggingface mean", "sentence_transformers", "open_clip resnet"):  # fmt: skip
        tower = CASES[name].build()
        layers = find_layers(tower)
        lock_tower(tower, ("*",), ("last:1", "final"))
        wanted = {n for n, k in layers.number.items() if k >= layers.last - 1}
        assert trained(tower) == wanted & set(dict(tower.named_parameters())), name


@pytest.mark.parametrize(
    ("lock", "unlock", "message"),
    [
        (("resblox.*",), (), r"model.image.lock: 'resblox.\*' matches no parameter.* layers:A-B"),
        (("*",), ("*.lm_*",), r"model.image.unlock: '\*.lm_\*' matches no parameter"),
        ((), ("*.ln_*",), r"model.image.unlock is .* but nothing is locked. Set model.image.lock"),
        (("layers:0-2",), (), r"'layers:0-2' must lie within the tower's 2 layers, layers:0-1"),
        (("layers:1-0",), (), "must lie within"),
        (("last:3",), (), "'last:3', but the tower has 2 layers"),
    ],
)
def test_locks_that_say_nothing_are_refused(lock, unlock, message):
    with pytest.raises(UserError, match=message):
        lock_tower(CASES["scratch_vit"].build(), lock, unlock, "model.image")


def test_a_config_may_give_one_pattern_as_text():
    model = from_dict(ModelConfig, {"image": {"lock": "*", "unlock": "*.ln_*, final"}}, "model")
    assert model.image.lock == ("*",)
    assert model.image.unlock == ("*.ln_*", "final")


def test_a_fully_locked_tower_is_frozen():
    """No graph, eval mode, features computed once; only its head learns."""
    part = replace(IMAGE, lock=("*",), options={**IMAGE.options, "dropout": 0.5})
    side = build_model(ModelConfig(part, TEXT, width=16)).train().side("image")
    assert side.frozen and not side.tower.training and side.head.training
    assert not side.features(torch.zeros(1, 3, 8, 8)).requires_grad


def test_nothing_left_to_train_is_refused():
    parts = [replace(part, lock=("*",), head="none") for part in (IMAGE, TEXT)]
    with pytest.raises(UserError, match=r"Nothing can be trained.*locked.*model.image.lock"):
        parameter_groups({"model": build_model(ModelConfig(*parts, width=16))}, 0.1)


def test_statistics_of_locked_batch_norms_rest():
    tower = Case("timm", "image", {"name": "test_resnet", "image_size": 32}).build()
    lock_tower(tower, ("embeddings", "layers:0"))
    side = Side(tower, nn.Identity(), tower.width).train()
    before = {k: v.clone() for k, v in tower.state_dict().items()}
    side(torch.rand(4, 3, 32, 32))
    moved = {k for k, v in tower.state_dict().items() if not torch.equal(v, before[k])}
    assert moved and all(
        ".layer1." not in k and ".bn1." not in f".{k.split('layer')[0]}" for k in moved
    )
    assert any("layer2" in k for k in moved)
    assert side.training
    hold_statistics(tower)


def test_tied_weights_are_locked_by_any_of_their_names():
    tower = nn.Module()
    tower.a, tower.b = nn.Linear(3, 3), nn.Linear(3, 3)
    tower.b.weight = tower.a.weight
    lock_tower(tower, ("b.weight",))
    assert not tower.a.weight.requires_grad and tower.a.bias.requires_grad


def test_a_run_leaves_locked_parameters_as_they_were(tmp_path):
    from safetensors.torch import load_file

    config = digits(
        model__image__lock=["*"],
        model__image__unlock=["*.ln_*"],
        model__text__lock=["embeddings"],
        optim__steps=2,
        run__checkpoint_every="1 steps",
        run__keep=0,
    )
    train(config, tmp_path)
    first, last = (
        load_file(tmp_path / "checkpoints" / f"{step:09d}" / "model.safetensors") for step in (1, 2)
    )
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    image = {n for n in first if n.startswith("image.tower")}
    assert moved & image == {n for n in image if "ln_" in n}
    still = {n for n in first if n.startswith("text.tower")} - moved
    assert still == {"text.tower.positional_embedding", "text.tower.token_embedding.weight"}
