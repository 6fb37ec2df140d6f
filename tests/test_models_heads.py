"""Heads against golden numbers (composition spec 2.6), and their promises over the registry.

The golden upstream gradient is cos(arange(n)) in the shape of the output.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from vislang.config import TowerConfig
from vislang.errors import UserError
from vislang.lookup import lookup
from vislang.models import HEADS
from vislang.models.build import build_side
from vislang.models.heads import linear_head, mlp_head, none_head

GOLDEN = np.load(Path(__file__).parent / "golden" / "models_heads.npz")


def golden(name: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[name])


def gradient_of(head: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Output, and the gradient of x under the golden upstream gradient."""
    x = x.clone().requires_grad_()
    out = head(x)
    out.backward(torch.arange(out.numel(), dtype=out.dtype).cos().view_as(out))
    assert x.grad is not None
    return out.detach(), x.grad


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_mlp_is_dinos_head(layers):
    head = mlp_head(6, 5, layers=layers, hidden=9, normalize=True).double()
    prefix = f"dino_n{layers}_plain_"
    stored = {k.removeprefix(prefix + "param_mlp."): golden(k) for k in GOLDEN if prefix in k}
    weights = {k if layers > 1 else f"0.{k}": v for k, v in stored.items() if "dino_" not in k}
    head.load_state_dict(weights)

    out, gradient = gradient_of(head, golden("dino_x"))

    torch.testing.assert_close(out, golden(prefix + "out"))
    torch.testing.assert_close(gradient, golden(prefix + "grad_x"))
    for name, parameter in head.named_parameters():
        name = name if layers > 1 else name.removeprefix("0.")
        torch.testing.assert_close(parameter.grad, golden(f"{prefix}grad_mlp.{name}"))


def test_none_with_normalize_is_dinos_headless_head():
    out, gradient = gradient_of(none_head(6, 6, normalize=True), golden("dino_x"))
    torch.testing.assert_close(out, golden("dino_n0_plain_out"))
    torch.testing.assert_close(gradient, golden("dino_n0_plain_grad_x"))


@pytest.mark.parametrize("hidden_layers", [0, 1, 2])
def test_mlp_is_protoclips_head(hidden_layers):
    options = {"hidden": 10, "norm": "bn", "activation": "relu"}
    head = mlp_head(16, 5, layers=hidden_layers + 1, **options).double()
    prefix = f"protoclip_n{hidden_layers}_"
    state = {k.removeprefix(prefix + "state_"): golden(k) for k in GOLDEN if prefix + "state" in k}

    for mode in ("train", "eval"):
        head.load_state_dict(state)
        out, gradient = gradient_of(head.train(mode == "train"), golden("protoclip_x"))
        torch.testing.assert_close(out, golden(f"{prefix}{mode}_out"))
        torch.testing.assert_close(gradient, golden(f"{prefix}{mode}_grad_x"))


def test_mlp_starts_as_dino():
    """N(0, 0.02²) weights and zero offsets (golden head_dino_init_stats)."""
    torch.manual_seed(0)
    head = mlp_head(512, 256, layers=3)
    for layer in (m for m in head if isinstance(m, torch.nn.Linear)):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.01)
        assert layer.weight.mean().abs() < 1e-4
        assert layer.bias.count_nonzero() == 0


def test_linear_starts_at_unit_scale():
    torch.manual_seed(0)
    out = linear_head(256, 512)(torch.randn(64, 256))
    assert out.std().item() == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("normalize", [False, True])
def test_promises_of_every_head(name, normalize):
    torch.manual_seed(1)
    head = lookup("head", HEADS, name)(features=12, width=12, normalize=normalize)
    x = torch.randn(7, 12, requires_grad=True)
    out = head(x)
    assert out.shape == (7, 12)
    assert out.isfinite().all()
    if normalize:
        torch.testing.assert_close(out.norm(dim=1), torch.ones(7))
    torch.testing.assert_close(head(x.flip(0)), out.flip(0))
    out.square().sum().add(out.sum()).backward()
    assert all(p.grad is not None and p.grad.any() for p in [x, *head.parameters()])


def side(head: str, width: int = 24, **options):
    tower = {"image_size": 16, "patch": 8, "width": 32, "depth": 1}
    config = TowerConfig("scratch_vit", tower, head=head, head_options=options)
    return build_side("image", config, width)


def test_none_between_different_widths_says_what_to_do():
    with pytest.raises(UserError, match=r"model.image: head none.*32.*24.*Set model.width 32"):
        side("none")


@pytest.mark.parametrize(
    ("head", "options", "message"),
    [
        ("lineer", {}, "No head is called 'lineer'. Did you mean 'linear'"),
        ("mlp", {"hiden": 3}, "no field 'hiden'. Did you mean 'hidden'"),
        ("mlp", {"layers": 0}, "at least 1 layer"),
        ("mlp", {"activation": "gelo"}, "activation .* one of gelu, relu"),
        ("mlp", {"norm": "batch"}, "norm .* one of none, bn, ln"),
        ("linear", {"bias": "maybe"}, "bias must be bool"),
    ],
)
def test_wrong_heads_are_named(head, options, message):
    with pytest.raises(UserError, match=message):
        side(head, **options)
