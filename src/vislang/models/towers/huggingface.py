"""Text towers of the transformers library.

B: texts, L: tokens, D: width.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vislang.config import from_dict, to_dict
from vislang.errors import UserError
from vislang.files import read_json
from vislang.models.file_tokenizer import FileTokenizer
from vislang.models.foreign import guarded
from vislang.models.tokenizers import build_tokenizer, trim
from vislang.models.towers.sides import check_side, choose

POOLERS = ("cls", "cls_before_pooler", "mean", "max", "last", "promptbert")


@dataclass(frozen=True)
class HuggingfaceOptions:
    """Options of `huggingface`.

    Args:
        pooler: cls (the model's pooler_output), cls_before_pooler (the first token), mean, max
            or last (token), over the tokens that are not padding; promptbert (the mask of a
            template around the text, for BERT and RoBERTa).
        context: longest text in tokens.
        tokenizer: bytes, clip or file:PATH, instead of the one beside the weights.
        config: architecture for a random start: fields of the model's config with model_type,
            or a config.json, or its folder.
        template: of promptbert: a sentence with {} for the text and a mask; empty takes
            'The sentence of "{}" means [MASK].' or RoBERTa's.
    """

    pooler: str = "mean"
    context: int = 77
    tokenizer: str = ""
    config: dict[str, Any] | str = field(default_factory=dict)
    template: str = ""


class HuggingfaceText(nn.Module):
    """A transformers model and a pooler: tokens int64 [B, L] -> [B, D]."""

    def __init__(self, model: Any, tokenizer: Any, pooler: str, settings: dict[str, Any]):
        super().__init__()
        self.model, self.tokenizer, self.pooler = model, tokenizer, pooler
        self.settings = settings
        self.width: int = model.config.hidden_size
        self.pad: int = tokenizer.pad
        if pooler != "cls" and getattr(model, "pooler", None) is not None:
            model.pooler = None  # its weights would be trained by nothing

    def files(self) -> dict[str, bytes]:
        """What `settings` refers to as "{here}/name"."""
        return self.tokenizer.files()

    def prepare(self, texts: Sequence[str]) -> Tensor:
        """Texts -> tokens int64 [n, context]."""
        return self.tokenizer(texts)

    def set_grad_checkpointing(self, on: bool = True) -> None:
        """Recompute activations in the backward pass."""
        recompute(self.model, on)

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 [B, L] -> [B, D]; columns that are padding throughout are left out."""
        tokens = trim(tokens, self.pad)
        mask = (tokens != self.pad).long()
        out = self.model(input_ids=tokens.clamp_min(0), attention_mask=mask)
        if self.pooler == "cls":
            return out.pooler_output
        return pool(out.last_hidden_state, mask, self.pooler)


def recompute(model: Any, on: bool) -> None:
    """Switch a transformers model's recomputation of activations, whatever it is called there."""
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    if on:
        getattr(model, f"{kind}_checkpointing_enable")({"use_reentrant": False})
    else:
        getattr(model, f"{kind}_checkpointing_disable")()


def pool(hidden: Tensor, mask: Tensor, pooler: str) -> Tensor:
    """One row a text out of its tokens: [B, L, D] and mask [B, L] -> [B, D].

    mean: Σ mask·hidden / max(Σ mask, 1e-9), as sentence-transformers' mean pooling.
    """
    if pooler == "cls_before_pooler":
        return hidden[:, 0]
    if pooler == "last":
        position = torch.arange(mask.shape[1], device=mask.device)
        last = (position * mask).amax(1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    if pooler == "max":
        return hidden.masked_fill(mask[..., None] == 0, -torch.inf).amax(1)
    weight = mask[..., None].to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1).clamp_min(1e-9)


def build(
    *, side: str, pretrained: str = "", weights: bool = True, **options: Any
) -> HuggingfaceText:
    """Text models of transformers, with a choice of poolers (text).

    `pretrained` is a folder, a name on the hub, or an installed package that holds a model; it
    brings its tokenizer. Without it, options.config gives the architecture of a random start.
    """
    check_side(side, ("text",), "huggingface")
    settings = from_dict(HuggingfaceOptions, options, f"model.{side}.options")
    choose("pooler of huggingface", settings.pooler, POOLERS)
    source = find_model(pretrained) if pretrained else ""
    config = _config(settings, source)
    model = _model(config, source if weights else "", settings.pooler)
    tokenizer = _tokenizer(settings, source)
    _check(model, tokenizer, settings)
    full = replace(settings, config=_plain(model.config), tokenizer=tokenizer.portable)
    kind = HuggingfaceText
    if settings.pooler == "promptbert":
        from vislang.models.towers.prompt_bert import PromptBertText as kind
    return kind(model, tokenizer, settings.pooler, to_dict(full))


def find_model(name: str) -> str:
    """A folder, the model folder of an installed package, or (as it is) a name on the hub.

    A package is found without importing it: what a config names must not run code.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    module = name.replace("-", "_")
    if module.isidentifier():
        spec = find_spec(module)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if (Path(folder) / "model" / "config.json").is_file():
                return str(Path(folder) / "model")
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise UserError(f"There is no folder {name}. Check model.text.pretrained.")
    return name


def _config(settings: HuggingfaceOptions, source: str) -> Any:
    from transformers import AutoConfig

    try:
        if source:
            return AutoConfig.from_pretrained(source)
        if isinstance(settings.config, str) and settings.config:
            path = Path(settings.config).expanduser()
            values = read_json(path / "config.json" if path.is_dir() else path)
        else:
            values = dict(settings.config or {})
        if "model_type" not in values:
            raise UserError(
                "huggingface needs weights (model.text.pretrained: a folder or a name on the hub),"
                " or options.config with a model_type for a random start."
            )
        # These make transformers fetch and run code; no architecture needs them.
        unsafe = (
            "auto_map",
            "attn_implementation",
            "experts_implementation",
            "quantization_config",
        )
        kept = {k: v for k, v in values.items() if k[0] != "_" and k not in unsafe}
        return AutoConfig.for_model(**kept)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"transformers cannot read the config of {source or settings.config!r}: {error}"
        ) from error


def _model(config: Any, source: str, pooler: str) -> Any:
    from transformers import AutoModel

    try:
        with guarded(), quiet():
            if not source:
                model = AutoModel.from_config(config, dtype=torch.float32)
                told: Mapping[str, Any] = {}
            else:
                model, told = AutoModel.from_pretrained(
                    source, config=config, dtype=torch.float32, output_loading_info=True
                )
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"transformers cannot load {source or config.model_type}: {error}"
        ) from error
    spare = "pooler." if pooler != "cls" else "\0"
    missing = sorted(k for k in told.get("missing_keys", ()) if not k.startswith(spare))
    missing += [str(item) for item in told.get("mismatched_keys", ())]
    if missing:
        raise UserError(
            f"The weights of {source} lack {', '.join(missing[:3])}"
            f"{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}."
            " Choose another pooler, or weights of this architecture."
        )
    return model.get_encoder() if config.is_encoder_decoder else model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and load reports."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _tokenizer(settings: HuggingfaceOptions, source: str) -> Any:
    if settings.tokenizer:
        return build_tokenizer(settings.tokenizer, settings.context)
    if not source:
        raise UserError(
            "huggingface with options.config needs options.tokenizer: bytes, clip or"
            " file:PATH of a tokenizer.json."
        )
    from transformers import AutoTokenizer

    try:
        found: Any = AutoTokenizer.from_pretrained(source)
        return from_transformers(found, settings.context)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"transformers cannot load the tokenizer of {source}: {error}"
            " Give options.tokenizer as file:PATH of a tokenizer.json."
        ) from error


def from_transformers(tokenizer: Any, context: int) -> FileTokenizer:
    """The same tokenizer without transformers: quick to pickle, no library in loader workers."""
    pad = tokenizer.pad_token_id
    return FileTokenizer(
        tokenizer.backend_tokenizer.to_str(), context, pad=-1 if pad is None else pad
    )


def _check(model: Any, tokenizer: Any, settings: HuggingfaceOptions) -> None:
    config = model.config
    rows = model.get_input_embeddings().num_embeddings
    if tokenizer.vocab > rows:
        raise UserError(
            f"The tokenizer has {tokenizer.vocab} tokens, the model only {rows}."
            " Use the model's own tokenizer, or set vocab_size in options.config."
        )
    most = getattr(config, "max_position_embeddings", None)
    if most and settings.context > most:
        raise UserError(
            f"options.context is {settings.context} tokens, but the model has {most} positions."
            f" Set options.context to {most} or less."
        )
    if settings.pooler == "cls" and getattr(model, "pooler", None) is None:
        raise UserError(
            f"{type(model).__name__} has no pooler, so it gives no pooler_output."
            " Set options.pooler to cls_before_pooler, mean, max or last."
        )


def _plain(config: Any) -> dict[str, Any]:
    """The config as JSON, without notes on where it came from."""
    skip = ("transformers_version", "dtype", "torch_dtype", "architectures")
    return {k: v for k, v in config.to_dict().items() if k[0] != "_" and k not in skip}
