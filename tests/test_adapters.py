"""Promises that every adapter keeps in every transformer tower: listed is tested."""

import copy
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from adapters_cases import MERGE, OPTIONS, TOWERS, UNCHANGED, adapted, features
from towers_cases import CASES
from vislang.cli.list import KINDS, lines
from vislang.errors import UserError
from vislang.lookup import lookup
from vislang.models.adapters import ADAPTERS
from vislang.models.adapters.insert import insert_adapters
from vislang.models.adapters.language import Invertible
from vislang.models.adapters.merge import merge_tower, remove_adapters
from vislang.models.anatomy import find_blocks
from vislang.models.transformer import Block

GOLDEN = json.loads((Path(__file__).parent / "golden" / "adapters.json").read_text())


@pytest.mark.parametrize("method", ADAPTERS)
def test_parameters_on_berts_shape_are_those_of_the_published_table(method):
    from transformers import BertConfig, BertModel

    with torch.device("meta"):
        tower = BertModel(BertConfig())
    assert sum(p.numel() for p in tower.parameters()) == GOLDEN["base"]
    own = insert_adapters(tower, method)
    assert sum(p.numel() for p in own.parameters()) == GOLDEN["parameters"][method]


@pytest.mark.parametrize("method", ADAPTERS)
@pytest.mark.parametrize("name", TOWERS)
def test_an_adapter_in_a_tower(name, method):
    """Names stay; the output does where promised; every part learns, of texts alone or in a
    batch; a copy has adapters of its own; taken out, nothing is left of them."""
    case = TOWERS[name]
    tower = case.build().double()
    names, x = set(tower.state_dict()), case.inputs(tower, 4)
    before = features(tower, x)
    own = adapted(tower, method)
    inserted = features(tower, x)
    assert names == {k for k in tower.state_dict() if not k.startswith("adapters.")}
    if method in UNCHANGED:
        torch.testing.assert_close(inserted, before, rtol=0, atol=1e-12)

    twin = copy.deepcopy(tower)
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    after = features(tower, x)
    assert (after - inserted).abs().amax(1).min() > 1e-6, "every row feels the adapter"
    assert torch.equal(features(twin, x), inserted), "the copy keeps the weights that it had"
    alone = torch.cat([features(tower, row[None]) for row in x])
    torch.testing.assert_close(alone, after, rtol=0, atol=1e-9)

    tower.requires_grad_(False)
    own.requires_grad_(True)
    tower(x).pow(3).sum().backward()
    silent = [k for k, p in own.named_parameters() if p.grad is None or not p.grad.any()]
    # ReLU of a bottleneck of 8 features may be dead for these few inputs, in one place.
    assert not [k for k in silent if method in ("lora", "ia3", "prefix_tuning")], silent
    assert len(silent) <= 3, silent

    remove_adapters(tower)
    torch.testing.assert_close(features(tower, x), before, rtol=0, atol=1e-12)
    assert set(tower.state_dict()) == names


@pytest.mark.parametrize("method", MERGE)
@pytest.mark.parametrize("name", TOWERS)
def test_matrices_merge_exactly(name, method):
    case = TOWERS[name]
    for dtype, tolerance in ((torch.float64, 1e-14), (torch.float32, 1e-6)):
        tower = case.build().to(dtype)
        with torch.no_grad():  # libraries begin with offsets of zero, which hide mistakes
            for parameter in tower.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        x = case.inputs(tower, 4)
        before = features(tower, x)
        adapted(tower, method, moved=0.1)
        wanted = features(tower, x)
        assert (wanted - before).abs().max() > 1e-5
        merge_tower(tower)
        assert not hasattr(tower, "adapters")
        away = (features(tower, x) - wanted).norm() / wanted.norm()
        assert away < tolerance, (dtype, away)


@pytest.mark.parametrize("target", ["query", "key", "value", "out", "ffn_in", "ffn_out"])
@pytest.mark.parametrize("name", ["scratch_vit", "open_clip text", "timm vit", "huggingface mean"])
def test_lora_merges_at_every_target(name, target):
    tower = TOWERS[name].build().double()
    x = TOWERS[name].inputs(tower)
    before = features(tower, x)
    own = insert_adapters(tower, "lora", {"targets": [target], "rank": 2, "alpha": 3.0})
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.normal_()
    wanted = features(tower, x)
    # A key's change that all keys share cancels in the softmax, but a low-rank one does not.
    assert (wanted - before).abs().max() > 1e-6
    merge_tower(tower)
    torch.testing.assert_close(features(tower, x), wanted, rtol=1e-10, atol=1e-11)


def test_prefix_is_softmax_over_prefix_and_keys():
    """One of our blocks against the formula written out."""
    torch.manual_seed(0)
    block = Block(8, 2, 16, 0.0).double()
    nn.init.normal_(block.attn.in_proj_weight, std=0.3)
    tower = nn.ModuleDict({"blocks": nn.ModuleList([block])})
    own = insert_adapters(tower, "prefix_tuning", {"length": 3, "hidden": 5})
    x = torch.randn(2, 4, 8, dtype=torch.double)
    hidden = torch.tanh(own.prefix.down(own.prefix.tokens))
    keys, values = own.prefix.up(hidden).chunk(2, dim=-1)
    q, k, v = F.linear(x, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)
    k = torch.cat([keys.expand(2, -1, -1), k], 1).view(2, 7, 2, 4)
    v = torch.cat([values.expand(2, -1, -1), v], 1).view(2, 7, 2, 4)
    logits = torch.einsum("bqhd,bkhd->bhqk", q.view(2, 4, 2, 4), k) / 2
    later = torch.ones(4, 4, dtype=torch.bool).triu(1)
    logits[..., 3:] = logits[..., 3:].masked_fill(later, -torch.inf)
    wanted = torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v).flatten(2)
    wanted = block.attn.out_proj(wanted)
    torch.testing.assert_close(block.attn(x, None, True), wanted)
    mask = ~later
    torch.testing.assert_close(block.attn(x, mask, False), wanted)


def test_our_tower_and_open_clips_adapt_alike():
    """The same weights and the same adapters in two libraries' attentions."""
    theirs = CASES["open_clip text, no projection"].build().double()
    ours = CASES["scratch_text"].build().double()
    weights = {k.removeprefix("model."): v for k, v in theirs.state_dict().items()}
    ours.load_state_dict({k: weights[k] for k in ours.state_dict()})
    x = CASES["scratch_text"].inputs(ours)
    for method in ("unipelt", "mam", "language", "ia3", "compacter", "bottleneck"):
        adapted(theirs, method, moved=0.2)
        adapted(ours, method)
        ours.adapters.load_state_dict(theirs.adapters.state_dict())
        torch.testing.assert_close(features(ours, x), features(theirs, x), rtol=1e-9, atol=1e-10)
        remove_adapters(theirs)
        remove_adapters(ours)


def test_the_language_adapter_reads_berts_norm():
    """Pfeiffer's placement: norm(s + up(f(down(norm(s))))), s being the sum behind the FFN."""
    tower = TOWERS["huggingface mean"].build().double().eval()
    own = adapted(tower, "language", moved=0.2)
    block = find_blocks(tower)[0]
    part, output = own.blocks[0]["norm"], block.closing
    hidden, x = torch.randn(2, 3, 32).double(), torch.randn(2, 3, 16).double()
    total = output.dense(hidden) + x
    norm = lambda s: F.layer_norm(s, (16,), output.LayerNorm.weight, output.LayerNorm.bias, 1e-12)  # noqa: E731
    wanted = norm(total + part.up(part.down(norm(total)).relu()))
    torch.testing.assert_close(output(hidden, x), wanted)


def test_the_invertible_adapter_inverts():
    torch.manual_seed(0)
    layer = Invertible(12, 2, "normal").double()
    x = torch.randn(5, 3, 12, dtype=torch.double)
    y = layer(x)
    assert (y - x).abs().max() > 1e-6
    torch.testing.assert_close(layer.invert(y), x)


def test_gradient_checkpointing_gives_the_same_gradient():
    case = TOWERS["scratch_text bytes mean"]
    gradients = []
    for on in (False, True):
        tower = case.build().double().train()
        own = adapted(tower, "unipelt", moved=0.1)
        tower.set_grad_checkpointing(on)
        tower(case.inputs(tower)).square().sum().backward()
        gradients.append([p.grad for p in own.parameters()])
    torch.testing.assert_close(*gradients)


def test_list_shows_every_adapter():
    assert KINDS["adapters"] == ("vislang.models.adapters", "ADAPTERS")
    shown = dict(lines("adapters"))
    assert set(shown) == set(ADAPTERS)
    assert all(len(line) > 20 for line in shown.values())
    assert all(callable(lookup("adapter", ADAPTERS, name)) for name in ADAPTERS)


def timm_tower(name: str, **options) -> nn.Module:
    import timm

    return timm.create_model(name, num_classes=0, img_size=32, depth=2, embed_dim=16, num_heads=2,
                             **options)  # fmt: skip


def test_a_part_that_a_library_never_calls_is_found_out():
    """BEiT multiplies by the weights of its packed layer without calling it."""
    tower = timm_tower("beit_base_patch16_224")
    insert_adapters(tower, "lora")
    with pytest.raises(UserError, match=r"parts at query, value that this tower never runs"):
        tower(torch.zeros(1, 3, 32, 32))
    other = timm_tower("beit_base_patch16_224")
    insert_adapters(other, "bottleneck")
    other(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("tower", "method", "options", "message"),
    [
        ("timm convolutional", "lora", {}, "'lora' needs a tower made of transformer blocks; ResN"),
        ("torchvision", "ia3", {}, "'ia3' needs a tower made of transformer blocks; SqueezeNet"),
        ("open_clip resnet", "mam", {}, "'mam' needs a tower made of transformer blocks"),
        ("scratch_vit", "lorra", {}, r"No adapter is called 'lorra'. Did you mean 'lora'"),
        ("scratch_vit", "lora", {"rnak": 2}, r"adapter_options has no field 'rnak'.*'rank'"),
        ("scratch_vit", "lora", {"rank": 0}, "rank of the adapter lora must be at least 1, got 0"),
        ("scratch_vit", "lora", {"targets": ["qeury"]}, "no 'qeury'. Did you mean 'query'"),
        ("scratch_vit", "lora", {"targets": []}, "targets of the adapter lora is empty"),
        ("scratch_vit", "ia3", {"rank": 2}, r"adapter 'ia3' has no option 'rank'"),
        ("scratch_vit", "bottleneck", {"reduction": 17}, "is 17, but a block has only 16 features"),
        ("scratch_vit", "bottleneck", {"attention": False, "ffn": False}, "neither attention nor"),
        ("scratch_vit", "bottleneck", {"activation": "relo"}, "activation .* must be one of relu"),
        ("scratch_vit", "language", {"start": "one"}, "start .* must be one of zero, normal"),
        ("scratch_vit", "compacter", {"reduction": 4, "terms": 3}, "terms .* is 3, which must div"),
        ("scratch_vit", "prefix_tuning", {"length": 0}, "length .* must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_is_refused(tower, method, options, message):
    with pytest.raises(UserError, match=message):
        insert_adapters(CASES[tower].build(), method, options)


def test_adapters_are_not_put_upon_adapters():
    tower = TOWERS["scratch_vit"].build()
    insert_adapters(tower, "lora")
    with pytest.raises(UserError, match="has adapters already"):
        insert_adapters(tower, "ia3")


def test_a_prefix_needs_an_attention_that_lets_it_in():
    tower = timm_tower("beit_base_patch16_224")
    with pytest.raises(UserError, match=r"cannot sit in the attention .*Use an adapter that stays"):
        insert_adapters(tower, "prefix_tuning", OPTIONS["prefix_tuning"])
