"""Promises that every tower keeps, on every side it has: to be listed in TOWERS is to be tested.

The libraries take long to import, so all their tests ask for one process (xdist_group).
"""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from towers_cases import CASES, Case
from vislang.config import ModelConfig, TowerConfig
from vislang.errors import UserError
from vislang.models.build import build_model
from vislang.models.pretrained import fingerprint_model, load_model, save_model
from vislang.models.towers import TOWERS

pytestmark = pytest.mark.xdist_group("libraries")


@pytest.fixture(scope="module", params=CASES)
def case(request) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def tower(case: Case) -> nn.Module:
    return case.build().eval()


@pytest.fixture(scope="module")
def inputs(case: Case, tower: nn.Module) -> Tensor:
    return case.inputs(tower)


def test_every_builder_and_side_is_tested():
    assert {c.name for c in CASES.values()} == set(TOWERS)
    for name in ("scratch_vit", "timm", "torchvision"):
        with pytest.raises(UserError, match="has no text side"):
            Case(name, "text").build()
    for name in ("scratch_text", "huggingface", "sentence_transformers"):
        with pytest.raises(UserError, match="has no image side"):
            Case(name, "image").build()


def test_output_is_finite_of_the_stated_width_and_repeats(tower, inputs):
    with torch.no_grad():
        out = tower(inputs)
        assert out.shape == (len(inputs), tower.width)
        assert out.dtype == torch.float32
        assert out.isfinite().all()
        assert torch.equal(tower(inputs), out)  # eval mode is deterministic
        spread = (out[0] - out[1]).abs().max() / out.abs().max()
        assert spread > 1e-5  # and looks at its input


def test_order_of_the_batch_does_not_matter(tower, inputs):
    with torch.no_grad():
        out = tower(inputs)
        order = torch.tensor([3, 0, 4, 2, 1])
        torch.testing.assert_close(tower(inputs[order]), out[order], rtol=1e-4, atol=1e-5)
        # Alone, the first text is shorter than beside the others: padding must not matter.
        torch.testing.assert_close(tower(inputs[:1]), out[:1], rtol=1e-4, atol=1e-5)


def test_uint8_is_the_same_as_float(case, tower, inputs):
    if case.side == "text":
        assert tower.prepare(["x"]).dtype == torch.int64
        assert tower.pad == tower.tokenizer.pad
        return
    with torch.no_grad():
        out = tower(inputs)
        torch.testing.assert_close(tower(inputs.float() / 255), out, rtol=1e-5, atol=1e-6)
    import numpy as np

    picture = np.random.default_rng(0).integers(0, 256, (50, 37, 3), dtype=np.uint8)
    one = tower.prepare(picture)
    assert one.dtype == torch.uint8
    assert one.shape == inputs.shape[1:]


def test_other_precisions_agree(tower, inputs):
    with torch.no_grad():
        out = tower(inputs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.cosine_similarity(tower(inputs).float(), out).min() > 0.999
        double = copy.deepcopy(tower).double()(inputs)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), out, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["scratch_vit", "scratch_text"])
def test_our_own_towers_compile_in_one_piece(name):
    tower = CASES[name].build().eval()
    inputs = CASES[name].inputs(tower)
    whole = torch.compile(tower, backend="eager", fullgraph=True, dynamic=False)
    with torch.no_grad():
        torch.testing.assert_close(whole(inputs), tower(inputs), rtol=1e-4, atol=1e-5)


def test_every_trained_parameter_gets_a_gradient(case):
    tower = case.build().train()
    tower(case.inputs(tower)).square().sum().backward()
    without = [n for n, p in tower.named_parameters() if p.grad is None]
    assert [n for n in without if not n.endswith(case.unused or "\0")] == []


def test_state_makes_a_second_tower_the_first(case, tower, inputs):
    other = case.build(seed=1).eval()
    other.load_state_dict(dict(tower.state_dict()))  # a plain dict, as from a file
    with torch.no_grad():
        assert torch.equal(other(inputs), tower(inputs))
        assert torch.equal(copy.deepcopy(tower)(inputs), tower(inputs))


def test_the_tokenizer_pickles_small(case, tower):
    if case.side == "text":
        texts = ["a photo of a cat", "zwölf", ""]
        again = pickle.loads(pickle.dumps(tower.tokenizer))
        assert torch.equal(again(texts), tower.prepare(texts))


def test_recomputing_activations_changes_no_gradient(case):
    tower = case.build().train()
    for module in tower.modules():  # dropout would draw anew
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if case.name == "torchvision":
        with pytest.raises(UserError, match="cannot recompute"):
            tower.set_grad_checkpointing(True)
        return
    inputs = case.inputs(tower)
    gradients = []
    for on in (False, True, False):
        tower.set_grad_checkpointing(on)
        tower.zero_grad()
        tower(inputs).square().sum().backward()
        gradients.append([p.grad.clone() for p in tower.parameters() if p.grad is not None])
    for a, b, c in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(a, c, rtol=1e-4, atol=1e-5)


def test_an_export_is_whole_by_itself(case, tower, inputs, tmp_path):
    """Settings and files rebuild the tower elsewhere, without the place it came from."""
    part = TowerConfig(case.name, case.options, case.pretrained, head="linear", frozen=True)
    none = TowerConfig("none")
    config = ModelConfig(*((part, none) if case.side == "image" else (none, part)), width=4)
    torch.manual_seed(0)
    model = build_model(config).eval()
    folder = tmp_path / "first"
    save_model(model, config, folder)
    folder = folder.rename(tmp_path / "moved")

    again = load_model(folder)

    assert again.config is not None
    assert getattr(again.config, case.side).pretrained == ""
    assert again.side(case.side).frozen
    with torch.no_grad():
        assert torch.equal(again(**{case.side: inputs})[case.side], model.side(case.side)(inputs))
    if case.side == "text":
        texts = ["a photo of a cat, or of a dog that is a cat", ""]
        ours = model.side("text").tower.prepare(texts)
        assert torch.equal(again.side("text").tower.prepare(texts), ours)
    assert fingerprint_model(again) == fingerprint_model(model)


def test_dense_features(case, tower, inputs):
    if not hasattr(tower, "dense"):
        return
    try:
        maps = tower.dense(inputs)
    except UserError as error:
        assert "resnet" in case.name or case.options.get("config"), error
        return
    assert maps.ndim == 4
    assert (maps.shape[0], maps.shape[3]) == (len(inputs), tower.width)
    assert maps.isfinite().all()
