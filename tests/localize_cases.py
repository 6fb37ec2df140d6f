"""Models, pictures and numbers that the tests of localization share."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

GOLDEN = Path(__file__).parent / "golden"
NUMBERS = json.loads((GOLDEN / "localize.json").read_text())
PROMPTS = {
    "astronaut_tall": ["a woman in an orange suit", "the space shuttle"],
    "coffee_wide": ["a cup of coffee", "spoon on a wooden table"],
}


@cache
def picture(name: str) -> np.ndarray:
    """Pictures that come with scikit-image, cut as the golden numbers want them."""
    from skimage import data

    return data.coffee() if name == "coffee_wide" else data.astronaut()[:400, 60:360].copy()


def open_clip_config(**vision) -> dict:
    """An open_clip_config.json with the golden text side."""
    return {
        "model_cfg": {
            "embed_dim": 64,
            "quick_gelu": True,
            "vision_cfg": {"image_size": 224, **vision},
            "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1,
                         "layers": 2},
        },
        "preprocess_cfg": {},
    }  # fmt: skip


def weights(golden, prefix: str) -> dict[str, torch.Tensor]:
    """A state dict in OpenAI's names, as the golden file holds it."""
    state = {
        key.removeprefix(prefix): torch.from_numpy(golden[key].astype(np.float32))
        for key in golden.files
        if key.startswith(prefix)
    }
    words = torch.zeros(49408, 64)
    words[torch.from_numpy(golden[prefix + "token_rows"])] = state.pop("token_values")
    state.pop("token_rows")
    return state | {"token_embedding.weight": words}


def golden_model(folder: Path, golden, prefix: str, **vision) -> str:
    """A MODEL in open_clip's own format, made from golden weights."""
    from safetensors.torch import save_file

    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps(open_clip_config(**vision)))
    save_file(weights(golden, prefix), folder / "open_clip_model.safetensors")
    return f"open_clip:local-dir:{folder}"


@cache
def small_model(image: str = "scratch_vit", **options):
    """A tiny dual encoder with random weights, always the same."""
    from vislang.config import ModelConfig, TowerConfig
    from vislang.models.build import build_model

    torch.manual_seed(0)
    options = options or {"image_size": 32, "patch": 8, "width": 32, "depth": 2, "heads": 2}
    text = {"width": 32, "depth": 1, "heads": 2, "context": 16}
    config = ModelConfig(
        image=TowerConfig(name=image, options=options, head="linear"),
        text=TowerConfig(name="scratch_text", options=text, head="linear"),
        width=16,
    )
    return build_model(config).eval()


@pytest.fixture
def photos(tmp_path) -> Path:
    """Pictures of 30 x 20: plain, greyscale, turned by EXIF, one pixel high, not a picture."""
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.ascontiguousarray(picture("coffee_wide")[::20, ::20])
    Image.fromarray(pixels).save(folder / "123.jpg")
    Image.fromarray(pixels).convert("L").save(folder / "124_abc.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels).save(folder / "125.jpg", exif=turned)
    Image.fromarray(pixels[:1]).save(folder / "126.png")
    (folder / "127.jpg").write_bytes(b"no picture")
    return folder


def save_dino(folder: Path) -> str:
    """A Grounding DINO with random weights and a few words, as transformers saves one."""
    import transformers as t

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, ".", "a", "cup", "spoon", "of", "coffee", "red", "line"]
    (folder / "vocab.txt").write_text("\n".join(words))
    t.BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    t.GroundingDinoImageProcessor(size={"shortest_edge": 48, "longest_edge": 96}).save_pretrained(
        folder
    )
    vision = {"image_size": 64, "embed_dim": 12, "depths": [1] * 4, "num_heads": [1, 1, 2, 2],
              "window_size": 4, "out_indices": [2, 3, 4]}  # fmt: skip
    text = {"model_type": "bert", "vocab_size": len(words), "hidden_size": 64,
            "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
            "max_position_embeddings": 64}  # fmt: skip
    torch.manual_seed(0)
    config = t.GroundingDinoConfig(
        backbone_config=t.SwinConfig(**vision), text_config=text, d_model=64, encoder_layers=1,
        decoder_layers=2, encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_attention_heads=2,
        decoder_attention_heads=2, num_queries=12, max_text_len=32,
    )  # fmt: skip
    t.GroundingDinoForObjectDetection(config).save_pretrained(folder)
    return str(folder)


SAMPLE = {"example_id": "a", "image_id": "123.jpg", "task_name": "localization",
          "task_query": "cup", "task_bbox": None, "output_options": None}  # fmt: skip


def samples_file(folder: Path, rows) -> Path:
    """A GRIT file of samples."""
    file = folder / "samples.json"
    file.write_text(json.dumps(rows))
    return file


def model_for(name: str, resnet, owls, folder):
    """What a localizer takes: a small model of the kind that it needs."""
    if name in ("resnet", "regionclip"):
        return resnet
    if name in ("owlvit", "owlv2"):
        return str(owls[name])
    return save_dino(folder) if name == "grounding_dino" else small_model()
