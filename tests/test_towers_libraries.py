"""timm, transformers and sentence-transformers: the same numbers as the libraries' own use."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from towers_cases import BERT, MINILM
from vislang.errors import UserError
from vislang.models.foreign import convert
from vislang.models.pretrained import load_model
from vislang.models.towers.huggingface import build as huggingface
from vislang.models.towers.huggingface import find_model, pool
from vislang.models.towers.sentence_transformers import build as sentences
from vislang.models.towers.timm import build as timm_tower

pytestmark = pytest.mark.xdist_group("libraries")

TEXTS = ["A photo of a cat.", "hello,   WORLD", "", "one two three four five six seven " * 9]


@pytest.fixture(scope="module")
def berts(tmp_path_factory) -> Path:
    """A tiny BERT as transformers writes it, with MiniLM's tokenizer."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(**{**BERT, "vocab_size": 30522, "max_position_embeddings": 64})
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(find_model(MINILM)).save_pretrained(folder)
    return folder


def test_mean_pooling_is_golden():
    golden = np.load(Path(__file__).parent / "golden" / "models_mean_pooling.npz")
    out = pool(torch.from_numpy(golden["hidden"]), torch.from_numpy(golden["mask"]), "mean")
    np.testing.assert_allclose(out.numpy(), golden["out"], rtol=1e-12)


def test_poolers_by_hand():
    hidden = torch.tensor([[[1.0, -9], [3, -5], [100, 100]], [[-1, -2], [-3, -4], [-5, -6]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert pool(hidden, mask, "cls_before_pooler").tolist() == [[1, -9], [-1, -2]]
    assert pool(hidden, mask, "mean").tolist() == [[2, -7], [-3, -4]]
    assert pool(hidden, mask, "max").tolist() == [[3, -5], [-1, -2]]
    assert pool(hidden, mask, "last").tolist() == [[3, -5], [-5, -6]]


@pytest.mark.parametrize("pooler", ["cls", "cls_before_pooler", "mean"])
def test_huggingface_is_transformers(berts, pooler):
    from transformers import AutoTokenizer, BertModel

    tower = huggingface(side="text", pretrained=str(berts), pooler=pooler, context=20).eval()
    tokenizer = AutoTokenizer.from_pretrained(berts)
    theirs = tokenizer(
        TEXTS, padding="max_length", truncation=True, max_length=20, return_tensors="pt"
    )
    assert torch.equal(tower.prepare(TEXTS), theirs["input_ids"])
    with torch.no_grad():
        out = BertModel.from_pretrained(berts).eval()(**theirs)
        expected = {
            "cls": out.pooler_output,
            "cls_before_pooler": out.last_hidden_state[:, 0],
            "mean": pool(out.last_hidden_state, theirs["attention_mask"], "mean"),
        }[pooler]
        torch.testing.assert_close(tower(tower.prepare(TEXTS)), expected)


def test_sentence_towers_are_sentence_transformers():
    tower = sentences(side="text", pretrained=MINILM).eval()
    with torch.no_grad():
        ours = tower(tower.prepare(TEXTS))
        theirs = tower.model.encode(TEXTS, convert_to_tensor=True, show_progress_bar=False)
        torch.testing.assert_close(ours, theirs)
        assert (tower.width, tower.tokenizer.context) == (384, 256)
        mean = load_model(f"huggingface:{MINILM}?context=256")
        features = F.normalize(mean(text=tower.prepare(TEXTS))["text"], dim=-1)
        torch.testing.assert_close(features, ours)
    # The vectors mean something: real weights were read.
    a, b, c = F.normalize(tower(tower.prepare(["a cat", "a kitten", "tax law"])), dim=-1)
    assert a @ b > 0.6 > 0.3 > a @ c


def test_a_random_start_from_a_config(tmp_path):
    tower = huggingface(side="text", config=BERT, tokenizer="bytes", context=16)
    assert tower.width == 16
    path = tmp_path / "config.json"
    path.write_text(__import__("json").dumps(BERT))
    for given in (str(path), str(tmp_path)):
        again = huggingface(side="text", config=given, tokenizer="bytes", context=16)
        assert again.settings == tower.settings


def test_a_config_cannot_ask_for_code():
    config = BERT | {
        "_attn_implementation": "someone/kernel",
        "_attn_implementation_internal": "someone/kernel",
        "attn_implementation": "someone/kernel",
        "auto_map": {"AutoModel": "someone/model--code.Model"},
        "trust_remote_code": True,
    }
    tower = huggingface(side="text", config=config, tokenizer="bytes", context=16)
    assert "someone" not in str(tower.model.config.to_dict())
    assert tower.model.config._attn_implementation == "sdpa"
    assert "someone" not in str(tower.settings)


def test_pickled_weights_of_a_folder_go_through_the_child(berts, tmp_path, monkeypatch):
    from safetensors.torch import load_file

    from vislang.models import foreign

    monkeypatch.setenv("VISLANG_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "old"
    folder.mkdir()
    for file in berts.iterdir():
        if file.suffix == ".json":
            (folder / file.name).write_bytes(file.read_bytes())
    torch.save(load_file(berts / "model.safetensors"), folder / "pytorch_model.bin")
    converted = []
    monkeypatch.setattr(foreign, "convert", lambda p: converted.append(p) or convert(p))
    tower = huggingface(side="text", pretrained=str(folder), context=20)
    assert [Path(p).name for p in converted] == ["pytorch_model.bin"]
    same = huggingface(side="text", pretrained=str(berts), context=20)
    for a, b in zip(tower.parameters(), same.parameters(), strict=True):
        assert torch.equal(a, b)


def test_missing_weights_are_named(berts, tmp_path):
    from safetensors.torch import load_file

    for file in berts.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = load_file(berts / "model.safetensors")
    state = {k: v for k, v in state.items() if "layer.1.attention.self.query" not in k}
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lack encoder.layer.1.attention.self.query.bias"):
        huggingface(side="text", pretrained=str(tmp_path), context=20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs weights"),
        ({"config": {"hidden_size": 3}}, "needs weights .* model_type"),
        ({"config": {"model_type": "berd"}}, "cannot read the config"),
        ({"config": BERT}, "needs options.tokenizer"),
        ({"config": BERT, "tokenizer": "clip", "context": 8}, "49408 tokens, the model only 300"),
        ({"config": BERT, "tokenizer": "bytes"}, "context is 77 .* 16 positions"),
        ({"config": BERT, "tokenizer": "bytes", "pooler": "avg"}, "one of cls, cls_before_pooler"),
        ({"pretrained": "/no/such/model"}, "There is no folder /no/such/model"),
    ],
)
def test_wrong_text_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        huggingface(side="text", **options)


def test_wrong_sentence_options_are_named(tmp_path):
    with pytest.raises(UserError, match=r"needs model\.text\.pretrained"):
        sentences(side="text")
    with pytest.raises(UserError, match="There is no folder /no/such/model"):
        sentences(side="text", pretrained="/no/such/model")


def timm_folder(folder: Path, seed: int) -> torch.nn.Module:
    """A model as timm writes it for the hub, with its classifier."""
    import timm
    from timm.models import save_for_hf

    torch.manual_seed(seed)
    model = timm.create_model("test_vit", img_size=32)
    save_for_hf(model, folder, model_args={"img_size": 32}, safe_serialization=True)
    return model.eval()


def test_a_timm_folder_loads_and_its_file_too(tmp_path):
    source = timm_folder(tmp_path, 3)
    model = load_model(f"timm:local-dir:{tmp_path}?image_size=32")
    tower = model.side("image").tower
    assert tower.preprocess.size == (32, 32)
    x = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = source.forward_head(source.forward_features(tower.pixels(x)), pre_logits=True)
        torch.testing.assert_close(model(image=x)["image"], expected)
    file = str(tmp_path / "model.safetensors")
    again = timm_tower(side="image", name="test_vit", image_size=32, pretrained=file)
    for a, b in zip(again.parameters(), tower.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(UserError, match=r"do not fit.*Of another shape: pos_embed is"):
        timm_tower(side="image", name="test_vit", pretrained=file)


def test_timm_preprocess_follows_the_weights():
    """Mean, deviation, crop and size of test_vit.r160_in1k, which timm states without weights."""
    preprocess = timm_tower(side="image", name="test_vit").preprocess
    assert preprocess.size == (160, 160)
    assert preprocess.mean == preprocess.std == (0.5, 0.5, 0.5)
    assert preprocess.crop_fraction == 0.95
    own = timm_tower(side="image", name="test_vit", preprocess={"crop_fraction": 1.0})
    assert own.preprocess.crop_fraction == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "test_vid"}, "timm has no model 'test_vid'. Did you mean 'test_vit'"),
        ({"name": "test_vit", "pretrained": "r161"}, "no weights 'r161'.* Known: default, r160"),
        ({"name": "test_vit", "pretrained": "default"}, "timm cannot make test_vit with the wei"),
        ({"name": "local-dir:/nowhere"}, "there is no /nowhere/config.json"),
        ({"name": "test_vit", "model_options": {"deep": 3}}, "timm cannot make test_vit"),
    ],
)
def test_wrong_timm_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        timm_tower(side="image", **options)
