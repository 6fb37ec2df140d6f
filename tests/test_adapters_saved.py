"""Adapters of a model: built from a config, trained alone, saved, loaded, merged, exported."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adapters_cases import OPTIONS
from runs import IMAGE, TEXT, digits
from vislang.cli import main as cli
from vislang.config import ModelConfig, TowerConfig
from vislang.errors import UserError
from vislang.models.adapters import ADAPTERS
from vislang.models.adapters.merge import merge_adapters
from vislang.models.adapters.saved import load_adapters, save_adapters
from vislang.models.build import build_model
from vislang.models.dual import DualEncoder, count_parameters
from vislang.models.fingerprint import fingerprint_model
from vislang.models.pretrained import export_open_clip, load_model, save_model
from vislang.train.ema import Ema
from vislang.train.loop import train

CLIP_TEXT = TowerConfig("scratch_text", {**TEXT.options, "tokenizer": "clip"})


def config(image: str = "", text: str = "", tower: TowerConfig = TEXT) -> ModelConfig:
    """Two tiny towers with adapters."""
    parts = [
        replace(part, adapter=method, adapter_options=OPTIONS.get(method, {}))
        for part, method in ((IMAGE, image), (tower, text))
    ]
    return ModelConfig(*parts, width=16)


def made(settings: ModelConfig, seed: int = 0, moved: float = 0.0) -> DualEncoder:
    torch.manual_seed(seed)
    model = build_model(settings).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if moved and ".adapters." in name:
                parameter.add_(moved * torch.randn_like(parameter))
    return model


def embedded(model: DualEncoder) -> torch.Tensor:
    """Both sides' embeddings of a few fixed inputs, in one matrix."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8, generator=generator)
    text = model.side("text").tower.prepare(["one", "a second text", "three"])
    with torch.no_grad():
        out = model(image=image, text=text)
    return torch.cat([out["image"], out["text"]])


@pytest.mark.parametrize("method", ADAPTERS)
def test_only_adapters_and_heads_are_trained(method):
    model = made(config(method, method))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {
        n for n in dict(model.named_parameters()) if ".adapters." in n or ".head." in n
    }
    assert not model.side("image").frozen
    plain = count_parameters(build_model(config()))["total"]
    assert count_parameters(model)["trainable"] < count_parameters(model)["total"]
    assert count_parameters(model)["total"] > plain


def test_unlock_trains_more_beside_the_adapter():
    image = replace(IMAGE, adapter="lora", unlock=("*.ln_*", "final"))
    model = build_model(ModelConfig(image, TEXT, width=16))
    locked = {n for n, p in model.side("image").tower.named_parameters() if not p.requires_grad}
    assert not [n for n in locked if "ln_" in n or n.startswith("adapters.")]
    assert "transformer.resblocks.0.mlp.c_fc.weight" in locked


@pytest.mark.parametrize("method", ADAPTERS)
def test_saved_alone_and_loaded_onto_the_same_weights(method, tmp_path):
    """The file holds nothing of the towers, and makes of the plain model the adapted one."""
    model = made(config(method, method), moved=0.2)
    plain = made(config())
    with torch.no_grad():  # the same towers under other heads
        for name in ("image", "text"):
            own = plain.side(name).tower.state_dict()
            theirs = model.side(name).tower.state_dict()
            plain.side(name).tower.load_state_dict({k: theirs[k] for k in own})
    path = save_adapters(model, tmp_path / "a.safetensors")
    saved = set(load_file(path))
    assert saved == {k for k in model.state_dict() if ".adapters." in k or ".head." in k}
    same = load_adapters(copy.deepcopy(plain), path)
    assert torch.equal(embedded(same), embedded(model))
    again = load_adapters(made(config(method, method)), path, any_base=True)
    assert {k: v for k, v in again.state_dict().items() if ".adapters." in k}.keys() < set(saved)
    heads = {k for k in load_file(save_adapters(model, path, heads=False)) if ".head." in k}
    assert not heads


def test_adapters_of_other_weights_or_kinds_are_refused(tmp_path):
    path = save_adapters(made(config("lora"), moved=0.2), tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"image side were trained on other weights.*any_base"):
        load_adapters(made(config("lora"), seed=1), path)
    with pytest.raises(UserError, match=r"holds adapters 'lora' \{\} for the image side.*'ia3'"):
        load_adapters(made(config("ia3")), path)
    with pytest.raises(UserError, match="no adapters and no prompt to save"):
        save_adapters(made(config()), path)
    with pytest.raises(UserError, match="There is no file of adapters at"):
        load_adapters(made(config()), tmp_path / "none.safetensors")
    save_model(made(config()), config(), tmp_path / "model")
    with pytest.raises(UserError, match="was not written by save_adapters"):
        load_adapters(made(config()), tmp_path / "model" / "model.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="is no whole safetensors file"):
        load_adapters(made(config()), tmp_path / "torn.safetensors")


@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_a_merged_model_is_a_plain_one(method, tmp_path):
    model = made(config(method, method, CLIP_TEXT), moved=0.2)
    before = embedded(model)
    with pytest.raises(UserError, match=r"has adapters.*--merge"):
        export_open_clip(model, tmp_path / "clip")
    merged = merge_adapters(model)
    assert merged is model
    torch.testing.assert_close(embedded(merged), before, rtol=1e-6, atol=1e-6)
    assert set(merged.state_dict()) == set(build_model(config(tower=CLIP_TEXT)).state_dict())
    assert merged.config is not None and not merged.config.image.adapter
    save_model(merged, merged.config, tmp_path / "export")
    torch.testing.assert_close(embedded(load_model(tmp_path / "export")), embedded(merged))
    export_open_clip(merged, tmp_path / "clip")
    torch.testing.assert_close(
        embedded(load_model(tmp_path / "clip")), before, rtol=1e-5, atol=1e-5
    )


def test_what_is_no_matrix_does_not_merge():
    with pytest.raises(UserError, match=r"text side's adapter 'mam' does not merge"):
        merge_adapters(made(config("lora", "mam")))
    with pytest.raises(UserError, match="no adapters to merge"):
        merge_adapters(made(config()))


def test_the_fingerprint_knows_adapters_and_their_options():
    def lora(alpha: float) -> DualEncoder:
        part = replace(IMAGE, adapter="lora", adapter_options={"alpha": alpha})
        return made(ModelConfig(part, TEXT, width=16))

    assert fingerprint_model(lora(2.0)) != fingerprint_model(lora(4.0)), "the same weights"
    assert fingerprint_model(lora(2.0)) == fingerprint_model(lora(2.0))


def test_a_moving_average_has_adapters_of_its_own():
    model = made(config("unipelt", "lora"))
    ema = Ema(model, 0.5)
    start = embedded(ema.model)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(0.1 * torch.randn_like(parameter))
    assert torch.equal(embedded(ema.model), start)
    ema.update()
    assert not torch.equal(embedded(ema.model), start)
    shared = {id(p) for p in model.parameters() if not p.requires_grad}
    assert shared and shared <= {id(p) for p in ema.model.parameters()}, "locked weights are shared"


def weights_of(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"{step:09d}" / "model.safetensors")


def test_a_run_trains_adapters_only_resumes_and_loads(tmp_path):
    """`train()` with adapters: what moved, the same bits after a stop, `load_model`."""
    changes = {
        "model__image__adapter": "lora",
        "model__image__adapter_options": {"rank": 2},
        "model__text__adapter": "unipelt",
        "model__text__adapter_options": OPTIONS["unipelt"],
        "optim__steps": 6,
        "optim__warmup": 1,
        "run__checkpoint_every": "3 steps",
        "run__keep": 0,
    }
    whole = tmp_path / "whole"
    train(digits(**changes), whole)
    first, last = weights_of(whole, 3), weights_of(whole, 6)
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    assert moved == {name for name in first if ".adapters." in name or ".head." in name}

    def stopped(model, step):
        raise KeyboardInterrupt

    half = tmp_path / "half"
    with pytest.raises(KeyboardInterrupt):
        train(digits(**changes, run__evaluate_every="3 steps"), half, judge=stopped)
    train(digits(**changes), half)
    assert all(torch.equal(value, last[name]) for name, value in weights_of(half, 6).items())

    model = load_model(whole)
    assert all(torch.equal(value, last[name]) for name, value in model.state_dict().items())
    started = json.loads((whole / "log.jsonl").read_text().splitlines()[0])
    assert 0 < started["trainable"] < started["parameters"]


def test_commands_write_adapters_and_merged_models(tmp_path, capsys):
    folder = save_model(made(config("lora"), moved=0.2), config("lora"), tmp_path / "model")
    wanted = embedded(load_model(folder))
    alone, merged = tmp_path / "alone", tmp_path / "merged"
    assert cli.main(["export", str(folder), "--format", "adapters", "--out", str(alone)]) == 0
    assert "load_adapters" in capsys.readouterr().out
    assert load_file(alone / "adapters.safetensors")
    arguments = ["--format", "vislang", "--merge", "true", "--out", str(merged)]
    assert cli.main(["export", str(folder), *arguments]) == 0
    loaded = load_model(merged)
    assert loaded.config is not None and not loaded.config.image.adapter
    torch.testing.assert_close(embedded(loaded), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"adapter": "lora", "frozen": True},
            "frozen keeps the whole tower .* model.image.adapter",
        ),
        ({"lock": ("*",), "frozen": True}, "frozen keeps the whole tower .* model.image.lock"),
        ({"adapter_options": {"rank": 2}}, "adapter_options is given, but model.image.adapter is"),
        ({"adapter": "lorra"}, "model.image: No adapter is called 'lorra'"),
        ({"prompt_tokens": 2}, "model.image: prompt_tokens needs a text tower"),
    ],
)
def test_configs_that_contradict_themselves_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        build_model(ModelConfig(replace(IMAGE, **changes), TEXT, width=16))


def test_a_config_that_came_with_weights_names_no_import():
    part = replace(IMAGE, adapter="os:system")
    with pytest.raises(UserError, match="must be registered"):
        build_model(ModelConfig(part, TEXT, width=16), trusted=False)
