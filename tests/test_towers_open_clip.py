"""open_clip both ways: its models here, and ours there, with the same embeddings."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from towers_cases import CLIP, COCA, MINILM, RESNET
from vislang.config import ModelConfig, TowerConfig
from vislang.errors import UserError
from vislang.models.build import build_model
from vislang.models.clip_bpe import ClipTokenizer
from vislang.models.pretrained import (
    export_open_clip,
    fingerprint_model,
    load_model,
    save_model,
)
from vislang.models.towers.huggingface import find_model
from vislang.models.towers.open_clip import build

pytestmark = pytest.mark.xdist_group("libraries")

VIT = {"image_size": 32, "patch": 8, "width": 32, "depth": 2, "heads": 4}
TEXT = {"context": 20, "width": 24, "depth": 2, "heads": 2}
SCRATCH = ModelConfig(TowerConfig("scratch_vit", VIT), TowerConfig("scratch_text", TEXT), width=16)
TEXTS = ["a photo of a cat", "Hello! WORLD,   it's   café &amp; more 12", "x " * 100, ""]
PREPROCESS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear",
              "resize_mode": "squash"}  # fmt: skip


def picture():
    from PIL import Image

    values = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    return Image.fromarray(values)


def made(config: ModelConfig = SCRATCH, seed: int = 0):
    torch.manual_seed(seed)
    return build_model(config).eval()


def closest(a: torch.Tensor, b: torch.Tensor) -> float:
    """The smallest cosine between the rows of two sets of embeddings."""
    return torch.cosine_similarity(a.double(), b.double()).min().item()


def agree(model, folder: Path) -> None:
    """Embeddings of a raw picture and of raw texts, here and as open_clip loads the folder."""
    import open_clip

    theirs, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    theirs.eval()
    with torch.no_grad():
        side = model.side("image")
        a = side(side.tower.prepare(picture())[None])
        shown = transform(picture())[None]
        b = theirs.encode_image(shown, normalize=False)
        assert closest(a, b) >= 0.9999
        # Our resize is within one grey level of Pillow's; on Pillow's own pixels nothing is left.
        mean, std = (
            torch.tensor(values).view(3, 1, 1)
            for values in (side.tower.preprocess.mean, side.tower.preprocess.std)
        )
        torch.testing.assert_close(side(shown * std + mean), b, rtol=1e-4, atol=1e-5)
        side = model.side("text")
        tokens = side.tower.prepare(TEXTS)
        assert torch.equal(tokens, tokenizer(TEXTS))
        a, b = side(tokens), theirs.encode_text(tokens, normalize=False)
        assert closest(a, b) >= 0.9999
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def open_clip_folder(folder: Path, config: dict, seed: int = 0, **preprocess) -> Path:
    """A random model in open_clip's own files, made by open_clip."""
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    about = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    torch.manual_seed(seed)
    arguments = json.loads(json.dumps(config))
    kind = open_clip.CustomTextCLIP if arguments.pop("custom_text", False) else open_clip.CLIP
    model = (open_clip.CoCa if "multimodal_cfg" in config else kind)(**arguments)
    with torch.no_grad():
        model.logit_scale.fill_(3.5)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("image", "text", "width"),
    [
        (VIT, TEXT, 16),
        (VIT | {"pool": "mean", "positions": "sincos"}, TEXT, 16),
        (VIT | {"image_size": [32, 16], "mean": [0.5, 0.5, 0.5]}, TEXT, 16),
        (VIT | {"heads": 1, "mlp_ratio": 2.0, "dropout": 0.1}, TEXT | {"heads": 1, "depth": 1}, 40),
    ],
)
def test_scratch_towers_export(tmp_path, image, text, width):
    config = ModelConfig(
        TowerConfig("scratch_vit", image), TowerConfig("scratch_text", text), width=width
    )
    model = made(config)
    export_open_clip(model, tmp_path, log_scale=2.5, bias=-1.5)
    agree(model, tmp_path)
    import open_clip

    theirs = open_clip.create_model(f"local-dir:{tmp_path}")
    assert theirs.logit_scale.item() == 2.5
    assert theirs.logit_bias.item() == -1.5


def test_headless_scratch_towers_export(tmp_path):
    config = ModelConfig(
        TowerConfig("scratch_vit", VIT | {"width": 24}, head="none"),
        TowerConfig("scratch_text", TEXT, head="none"),
        width=24,
    )
    model = made(config)
    export_open_clip(model, tmp_path)
    agree(model, tmp_path)


@pytest.mark.parametrize("config", [CLIP, RESNET, CLIP | {"quick_gelu": True}])
def test_there_and_back(tmp_path, config):
    """open_clip's folder -> our model -> our export -> our model -> open_clip's folder."""
    first = open_clip_folder(tmp_path / "first", config, **PREPROCESS)
    model = load_model(f"open_clip:local-dir:{first}")
    agree(model, first)
    assert model.side("image").tower.scale == (3.5, None)
    save_model(model, model.config, tmp_path / "ours")
    again = load_model(tmp_path / "ours")
    assert fingerprint_model(again) == fingerprint_model(model)
    second = export_open_clip(model, tmp_path / "second")
    agree(again, second)
    note = json.loads((second / "open_clip_config.json").read_text())
    assert {k: note["preprocess_cfg"][k] for k in PREPROCESS} == PREPROCESS


def test_a_folder_is_recognised_without_its_prefix(tmp_path):
    folder = open_clip_folder(tmp_path / "a", CLIP)
    copy = open_clip_folder(tmp_path / "b", CLIP)
    assert fingerprint_model(load_model(folder)) == fingerprint_model(load_model(copy))


def test_coca_loads_but_does_not_go_back(tmp_path):
    folder = open_clip_folder(tmp_path, COCA | {"custom_text": True})
    model = load_model(folder)
    agree(model, folder)
    with pytest.raises(UserError, match="text decoder is not kept"):
        export_open_clip(model, tmp_path / "out")


def test_a_tokenizer_of_transformers_travels(tmp_path):
    """SigLIP's kind of model: no causal mask, the last token, a tokenizer file of its own."""
    from transformers import AutoTokenizer

    text = CLIP["text_cfg"] | {"hf_tokenizer_name": "some/name", "no_causal_mask": True,
                               "vocab_size": 30522, "pool_type": "last",
                               "tokenizer_kwargs": {"clean": "canonicalize"}}  # fmt: skip
    first = open_clip_folder(tmp_path / "first", CLIP | {"text_cfg": text, "custom_text": True})
    AutoTokenizer.from_pretrained(find_model(MINILM)).save_pretrained(first)
    model = load_model(first)
    agree(model, first)
    second = export_open_clip(model, tmp_path / "second")
    agree(model, second)
    save_model(model, model.config, tmp_path / "ours")
    agree(load_model(tmp_path / "ours"), first)


@pytest.mark.parametrize("project", [True, False])
def test_a_trained_head_folds_into_the_projection(tmp_path, project):
    folder = open_clip_folder(tmp_path / "first", CLIP)
    options = {"name": f"local-dir:{folder}", "project": project}
    config = ModelConfig(
        TowerConfig("open_clip", options), TowerConfig("open_clip", options), width=10
    )
    model = made(config)
    assert model.side("image").tower.width == (12 if project else 16)
    export_open_clip(model, tmp_path / "out")
    agree(model, tmp_path / "out")


def test_a_timm_tower_exports_beside_scratch_text(tmp_path):
    options = {"name": "test_vit", "preprocess": {"crop_fraction": 1.0}}
    model = made(replace(SCRATCH, image=TowerConfig("timm", options)))
    export_open_clip(model, tmp_path)
    agree(model, tmp_path)


@pytest.mark.parametrize(
    ("image", "text", "message"),
    [
        ({"head": "mlp"}, {}, "image head has more than one layer"),
        ({"head_options": {"bias": True}}, {}, "image head has a bias"),
        ({}, {"head_options": {"normalize": True}}, "text head normalises its rows"),
        ({"options": VIT | {"channels": 1}}, {}, "this one luminance"),
        ({}, {"options": TEXT | {"tokenizer": "bytes"}}, "The tokenizers clip and file"),
        ({}, {"options": TEXT | {"pool": "mean"}}, "pool 'mean'"),
        ({}, {"name": "none"}, "no text side"),
        ({"name": "timm", "options": {"name": "test_vit"}}, {}, "central 0.950 of its images"),
        ({"name": "torchvision", "options": {"name": "squeezenet1_1"}}, {}, "cannot hold the im"),
    ],
)
def test_what_open_clip_cannot_hold_is_named(tmp_path, image, text, message):
    config = ModelConfig(replace(SCRATCH.image, **image), replace(SCRATCH.text, **text), width=16)
    with pytest.raises(UserError, match=message) as error:
        export_open_clip(made(config), tmp_path)
    assert "no text side" in message or "vislang export --format vislang" in str(error.value)
    assert not (tmp_path / "open_clip_config.json").exists()


def test_one_activation_for_both_sides(tmp_path):
    quick = {"config": {"model_cfg": CLIP | {"quick_gelu": True}}}
    config = replace(SCRATCH, text=TowerConfig("open_clip", quick))
    with pytest.raises(UserError, match="exact GELU and the other the quick one"):
        export_open_clip(made(config), tmp_path)


def test_shortened_texts_give_the_same_embedding():
    tower = build(side="text", config={"model_cfg": CLIP}).eval()
    tokens = tower.prepare(["a", "two words", "! !a !", "a much longer caption than these two"])
    with torch.no_grad():
        torch.testing.assert_close(tower(tokens), tower.model(tokens))
        torch.testing.assert_close(tower(tokens[:2]), tower.model(tokens[:2]))
    assert tower.shortens


@given(st.lists(st.text(max_size=60), min_size=1, max_size=3))
@settings(max_examples=300)
def test_clip_tokens_are_open_clips(texts):
    assert torch.equal(ClipTokenizer(16)(texts), reference()(texts, 16))


HARD = (
    "it's we'll I'D don't",
    "<end_of_text> in <start_of_text> a caption",
    "!!! ?!a a!b 3,141.59",
    "naïve café ﬁne Ångström",
    "漢字かな 🙂 👩\u200d👩\u200d👧",
    "&lt;b&gt; &amp;amp; &eacute;",
    "<b> &amp;amp;amp;lt; &amp;lt;",
    "âœ” donâ€™t",
    "a\x00b\x1b[31mc",
    "İstanbul ß ẞ ǅ",
    "\u2028x\u00a0y\u3000z",
    "supercalifragilisticexpialidocious " * 3,
)


@pytest.mark.parametrize("text", HARD)
def test_hard_texts_are_open_clips(text):
    assert torch.equal(ClipTokenizer(40)([text]), reference()([text], 40))


def reference():
    import open_clip

    return open_clip.tokenize.__globals__["_tokenizer"]


@pytest.mark.parametrize(
    ("options", "pretrained", "message"),
    [
        ({"name": "ViT-B32"}, "", "no architecture 'ViT-B32'. Did you mean 'ViT-B-32'"),
        ({"name": "ViT-B-32"}, "openay", "no weights 'openay'.*Did you mean 'openai'"),
        ({"name": "local-dir:/nowhere"}, "", "holds no open_clip_config.json"),
        ({"config": {"vision_cfg": {}}}, "", "with a model_cfg"),
        ({"config": {"model_cfg": CLIP}, "projekt": 1}, "", "Did you mean 'project'"),
        ({"config": {"model_cfg": {**CLIP, "wide": 3}}}, "", "open_clip cannot make"),
    ],
)
def test_wrong_options_are_named(options, pretrained, message):
    with pytest.raises(UserError, match=message):
        build(side="image", pretrained=pretrained, **options)


def test_weights_that_do_not_fit_are_named(tmp_path):
    folder = open_clip_folder(tmp_path, CLIP)
    about = json.loads((folder / "open_clip_config.json").read_text())
    about["model_cfg"]["text_cfg"]["layers"] = 3
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"do not fit.*Missing.*resblocks\.2"):
        load_model(folder)
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds none of open_clip_model\.safetensors"):
        load_model(folder)


def test_specs_without_a_tag_list_the_tags():
    with pytest.raises(UserError, match=r"open_clip:ViT-B-32/TAG.*openai"):
        load_model("open_clip:ViT-B-32")


def test_a_tag_decides_the_activation():
    """ViT-B-32/openai was trained with the quick GELU although its name does not say so."""
    from vislang.models.towers.open_clip import _by_name

    assert _by_name("ViT-B-32", "openai", weights=False)[0]["model_cfg"]["quick_gelu"] is True
    other = _by_name("ViT-B-32", "laion2b_s34b_b79k", weights=False)[0]
    assert other["model_cfg"]["quick_gelu"] is False
