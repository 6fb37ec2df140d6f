"""Export to open_clip: a folder that `open_clip.create_model_from_pretrained` loads.

open_clip composes a model out of one description for each side (`vision_cfg`, `text_cfg`), so a
side exports if it is one that such a description can state, whatever the other side is.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vislang.errors import UserError
from vislang.files import sha256_file, write_json, write_whole
from vislang.models.dual import DualEncoder, Side
from vislang.preprocess import Preprocess

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
INSTEAD = " Export it in our own format instead (save_model, `vislang export --format vislang`)."


@dataclass(frozen=True)
class Part:
    """One side as open_clip states it: its description, its weights, whether it uses quick GELU."""

    config: dict[str, Any]
    state: dict[str, Tensor]
    quick_gelu: bool | None = None


def export_open_clip(
    model: DualEncoder,
    folder: Path | str,
    log_scale: float | None = None,
    bias: float | None = None,
) -> Path:
    """Write open_clip_config.json and open_clip_model.safetensors (the config last).

    Load it with `open_clip.create_model_from_pretrained("local-dir:FOLDER")`. A text decoder is
    left out, which the folder's config notes: open_clip's are of another architecture.

    Args:
        model: both sides must be scratch, timm (image) or open_clip towers with a head none, or
            linear without bias.
        folder: where.
        log_scale: log of the learned scale of similarities, for open_clip's `logit_scale`;
            by default that of the open_clip model it came from, else log(1 / 0.07).
        bias: SigLIP's learned bias; None writes none.

    Raises:
        UserError: the model has a part that open_clip cannot state; the message says which.
    """
    folder = Path(folder)
    _refuse_added(model)
    image, text = _image(model.side("image")), _text(model.side("text"))
    kinds = {part.quick_gelu for part in (image, text)} - {None}
    if len(kinds) > 1:
        raise UserError(
            "open_clip has one activation for both sides, but here one side has the exact GELU and"
            " the other the quick one." + INSTEAD
        )
    own = getattr(model.side("image").tower, "scale", None) or (math.log(1 / 0.07), None)
    log_scale, bias = (own[0] if log_scale is None else log_scale), own[1] if bias is None else bias
    config = {
        "embed_dim": model.width,
        "quick_gelu": kinds == {True},
        "custom_text": True,  # its text side is a module of its own, as ours
        "vision_cfg": image.config,
        "text_cfg": text.config,
    }
    state = {f"visual.{k}": v for k, v in image.state.items()}
    state |= {f"text.{k}": v for k, v in text.state.items()}
    state["logit_scale"] = torch.tensor(log_scale)
    if bias is not None:
        state["logit_bias"] = torch.tensor(bias)
        config["init_logit_bias"] = bias
    (folder / CONFIG).unlink(missing_ok=True)
    preprocess: Preprocess = model.side("image").tower.preprocess  # type: ignore[assignment]
    _write(folder, {"model_cfg": config, "preprocess_cfg": _preprocess(preprocess)}, state, model)
    return folder


def _refuse_added(model: DualEncoder) -> None:
    for name in ("image", "text"):
        tower = model.side(name).tower
        if hasattr(tower, "adapters") or hasattr(tower, "prompt"):
            raise UserError(
                f"The {name} tower has adapters or a learned prompt, which open_clip does not know."
                " lora and ia3 fold into the weights first (merge_adapters, `vislang export"
                " --merge`)." + INSTEAD
            )


def _write(folder: Path, about: Any, state: Mapping[str, Tensor], model: DualEncoder) -> None:
    from safetensors.torch import save

    copies = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
    write_whole(folder / WEIGHTS, save(copies))
    for name, content in _tokenizer_files(model.side("text").tower.tokenizer).items():
        write_whole(folder / name, content)
    note: dict[str, Any] = {"sha256": {WEIGHTS: sha256_file(folder / WEIGHTS)}}
    if model.decoder is not None:
        note["left_out"] = ["decoder"]
    write_json(folder / CONFIG, about | {"vislang": note})


def _tokenizer_files(tokenizer: Any) -> dict[str, bytes]:
    """What transformers needs to read the tokenizer in the folder; nothing for CLIP's own."""
    files = tokenizer.files()
    if files:
        kept = {"pad_token": tokenizer.pad, "sep_token": tokenizer.hide}
        about: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
        for key, token in kept.items():
            if token is not None and token >= 0:
                about[key] = tokenizer.tokenizer.id_to_token(token)
        if tokenizer.inert:  # else transformers would look for the padding's name in captions
            about["split_special_tokens"] = True
        files["tokenizer_config.json"] = json.dumps(about, indent=2).encode()
    return files


def _preprocess(preprocess: Preprocess) -> dict[str, Any]:
    if preprocess.crop_fraction != 1.0:
        raise UserError(
            f"The image tower wants the central {preprocess.crop_fraction:.3f} of its images, which"
            " open_clip cannot state. Train with options.preprocess {crop_fraction: 1.0}." + INSTEAD
        )
    height, width = preprocess.size
    return {
        "size": height if height == width else [height, width],
        "mode": "RGB",
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "interpolation": preprocess.interpolation,
        "resize_mode": preprocess.fit,
        "fill_color": preprocess.fill,
    }


def _projection(side: Side, name: str) -> Tensor | None:
    """The head as a matrix [F, D] that features are multiplied by; None for no head."""
    layers = list(side.head)  # type: ignore[call-overload]
    if getattr(side.head, "normalize", False):
        problem = "normalises its rows, which open_clip does only afterwards"
    elif not layers:
        return None
    elif len(layers) > 1 or not isinstance(layers[0], nn.Linear):
        problem = "has more than one layer"
    elif layers[0].bias is not None:
        problem = "has a bias"
    else:
        return layers[0].weight.T
    raise UserError(
        f"The {name} head {problem}; open_clip knows only one linear layer without bias"
        " (head linear) or none." + INSTEAD
    )


def _image(side: Side) -> Part:
    from vislang.models.towers.scratch_vit import ScratchVit

    tower: Any = side.tower
    kind = type(tower).__name__
    projection = _projection(side, "image")
    if isinstance(tower, ScratchVit):
        return _scratch_image(tower, projection)
    if kind == "OpenClipImage":
        return _open_clip_part(tower, "vision_cfg", "proj", projection, "image")
    if kind == "TimmImage":
        return _timm_image(tower, projection)
    raise UserError(f"open_clip cannot hold the image tower {kind}." + INSTEAD)


def _text(side: Side) -> Part:
    from vislang.models.towers.scratch_text import ScratchText

    tower: Any = side.tower
    kind = type(tower).__name__
    projection = _projection(side, "text")
    if isinstance(tower, ScratchText):
        return _scratch_text(tower, projection)
    if kind == "OpenClipText":
        return _open_clip_part(tower, "text_cfg", "text_projection", projection, "text")
    raise UserError(f"open_clip cannot hold the text tower {kind}." + INSTEAD)


def _scratch_image(tower: Any, projection: Tensor | None) -> Part:
    told = tower.options
    if told.channels != 3:
        raise UserError(
            "open_clip's image towers see three channels, this one luminance." + INSTEAD
        )
    height, width = tower.preprocess.size
    square_sincos = told.positions == "sincos" and height == width
    config = {
        "image_size": height if height == width else [height, width],
        "patch_size": told.patch,
        "width": told.width,
        "layers": told.depth,
        "head_width": told.width // (told.heads or max(1, told.width // 64)),
        "mlp_ratio": told.mlp_ratio,
        "pool_type": {"cls": "tok", "mean": "avg"}[told.pool],
        "pos_embed_type": "sin_cos_2d" if square_sincos else "learnable",
    }
    state = dict(tower.state_dict())
    state["proj"] = torch.eye(told.width) if projection is None else projection
    return Part(config, state, quick_gelu=False)


def _scratch_text(tower: Any, projection: Tensor | None) -> Part:
    told = tower.options
    if told.pool not in ("eot", "last") or not told.causal:
        raise UserError(
            f"open_clip's text tower takes the end token under causal attention; this one has pool"
            f" {told.pool!r} and causal {told.causal}." + INSTEAD
        )
    config = {
        "context_length": told.context,
        "vocab_size": tower.tokenizer.vocab,
        "width": told.width,
        "heads": told.heads or max(1, told.width // 64),
        "layers": told.depth,
        "mlp_ratio": told.mlp_ratio,
        "pool_type": "argmax",
        "proj_type": "none" if projection is None else "linear",
    } | _reader(tower.tokenizer, told.tokenizer)
    state = dict(tower.state_dict())
    if projection is not None:
        state["text_projection"] = projection
    return Part(config, state, quick_gelu=False)


def _reader(tokenizer: Any, spec: str) -> dict[str, Any]:
    """How open_clip is to read texts: nothing for CLIP's own tokenizer, else by transformers."""
    if spec == "clip":
        return {}
    if not spec.startswith(("file:", "{")) or tokenizer.pad < 0 or tokenizer.hide is not None:
        raise UserError(
            f"open_clip cannot read texts as this tower does, with {spec.partition('?')[0]!r}. The"
            " tokenizers clip and file: (with a token for padding, and none hidden) export."
            + INSTEAD
        )
    end = tokenizer.end
    if end is None:
        raise UserError(
            "The tokenizer's file closes texts with no end token, which open_clip's text tower"
            " takes its features from." + INSTEAD
        )
    return {
        "hf_tokenizer_name": "tokenizer.json",  # of a local folder it takes the folder itself
        # open_clip knows no "as it is": where texts hold entities (&amp;) the two differ.
        "tokenizer_kwargs": {"clean": tokenizer.cleaning or "whitespace"},
        "pad_id": tokenizer.pad,
        "eos_id": end,
        "pool_type": "argmax" if end == tokenizer.vocab - 1 else "eos",
    }


def _open_clip_part(tower: Any, key: str, own: str, projection: Tensor | None, name: str) -> Part:
    told = tower.settings["config"]["model_cfg"]
    if "multimodal_cfg" in told:
        raise UserError("A CoCa model's text decoder is not kept, so it cannot go back." + INSTEAD)
    state = dict(tower.model.state_dict())
    if tower.settings["project"] is False or projection is not None:
        # The head follows, or takes the place of, the projection: two matrices are one.
        before = state.get(own)
        plain = isinstance(getattr(tower.model, own, False), nn.Parameter | None)
        if not plain or (before is None and projection is None):
            raise UserError(
                f"The {name} tower's head does not fold into its projection in open_clip." + INSTEAD
            )
        state[own] = projection if before is None else before @ projection  # type: ignore[operator]
    return Part(dict(told[key]), state, quick_gelu=bool(told.get("quick_gelu", False)))


def _timm_image(tower: Any, projection: Tensor | None) -> Part:
    told, trunk = tower.settings, tower.model
    size = trunk.pretrained_cfg.get("input_size", (3, 0, 0))[1:]
    if projection is None or trunk.num_features != tower.width or told["model_options"]:
        raise UserError(
            "A timm tower exports to open_clip with a linear head and without model_options, if it"
            " has no hidden layer before its classifier." + INSTEAD
        )
    if trunk.pretrained_cfg.get("fixed_input_size") and tuple(size) != tower.preprocess.size:
        raise UserError(
            f"open_clip builds this timm tower for {size[0]} pixels; this one is for"
            f" {tower.preprocess.size[0]}." + INSTEAD
        )
    config = {
        "timm_model_name": told["name"],
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
        "image_size": tower.preprocess.size[0],
    }
    state = {f"trunk.{k}": v for k, v in trunk.state_dict().items()}
    return Part(config, state | {"head.proj.weight": projection.T})
