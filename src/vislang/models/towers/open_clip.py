"""One side of any model of open_clip: by name, by folder, or by its own configuration."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from vislang.config import from_dict, to_dict
from vislang.errors import UserError
from vislang.files import read_json
from vislang.lookup import nearest
from vislang.models.foreign import guarded
from vislang.models.tokenizers import build_tokenizer, trim
from vislang.models.towers.sides import check_side
from vislang.models.towers.sizes import patch_grid, resize_positions
from vislang.models.towers.wrapped import WrappedImage, output_width
from vislang.preprocess import Preprocess

LOCAL, HUB = "local-dir:", "hf-hub:"
CONFIG = "open_clip_config.json"
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "pytorch_model.bin",
)


@dataclass(frozen=True)
class OpenClipOptions:
    """Options of `open_clip`.

    Args:
        name: an architecture (ViT-B-32), hf-hub:OWNER/NAME, or local-dir:FOLDER with an
            open_clip_config.json; the last two bring their own weights.
        project: end in the joint space; false gives the features before the projection.
        config: the content of an open_clip_config.json, instead of a name.
        tokenizer: of the text side, instead of the architecture's own.
    """

    name: str = ""
    project: bool = True
    config: dict[str, Any] = field(default_factory=dict)
    tokenizer: str = ""


class OpenClipImage(WrappedImage):
    """The image side of an open_clip model.

    `scale` is the model's (log scale, bias) of similarities, kept for exports.
    """

    scale: tuple[float, float | None] | None = None

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] uint8, or float in [0, 1] -> [B, width].

        open_clip's vision transformers know one size; for others they get resized positions.
        """
        size = (images.shape[-2], images.shape[-1])
        grid, patch = (getattr(self.model, name, None) for name in ("grid_size", "patch_size"))
        if size == tuple(self.preprocess.size) or grid is None or patch is None:
            return super().forward(images)
        positions: Tensor = self.model.positional_embedding  # type: ignore[assignment]
        resized = resize_positions(positions, tuple(grid), patch_grid(size, tuple(patch)))  # type: ignore[arg-type]
        changed = {"positional_embedding": resized}
        out = functional_call(self.model, changed, (self.pixels(images),))
        out = out if isinstance(out, Tensor) else out[0]
        return out.flatten(1)

    def dense(self, images: Tensor) -> Tensor:
        """Features of each patch: [B, 3, H, W] -> [B, h, w, width], for vision transformers."""
        return self.with_dense(images)[1]

    def with_dense(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` and `dense` give, in one pass."""
        norm = getattr(self.model, "ln_post", None)
        if norm is None or getattr(self.model, "attn_pool", None) is not None:
            raise UserError(f"{self.settings['name']} of open_clip has no dense output.")
        out = self.model.forward_intermediates(  # type: ignore[operator]
            self.pixels(images), indices=1, normalize_intermediates=True
        )
        maps = out["image_intermediates"][-1].permute(0, 2, 3, 1)
        projection = self.model.proj
        maps = maps if projection is None else maps @ projection  # type: ignore[operator]
        return out["image_features"], maps


class OpenClipText(nn.Module):
    """The text side of an open_clip model: tokens int64 [B, context] -> [B, width]."""

    def __init__(self, model: Any, width: int, tokenizer: Any, settings: dict[str, Any]):
        super().__init__()
        self.model, self.width, self.tokenizer, self.settings = model, width, tokenizer, settings
        self.pad: int = tokenizer.pad
        # Under a causal mask the end token does not see the padding behind it.
        self.shortens = (
            getattr(model, "attn_mask", None) is not None
            and getattr(model, "pool_type", "") == "argmax"
            and getattr(model, "cls_emb", None) is None
        )

    def files(self) -> dict[str, bytes]:
        """What `settings` refers to as "{here}/name"."""
        return self.tokenizer.files()

    def prepare(self, texts: Sequence[str]) -> Tensor:
        """Texts -> tokens int64 [n, context]."""
        return self.tokenizer(texts)

    def set_grad_checkpointing(self, on: bool = True) -> None:
        """Recompute activations in the backward pass."""
        self.model.set_grad_checkpointing(on)

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 [B, context] -> [B, width]; padding is left out where it changes nothing."""
        short = trim(tokens, self.pad) if self.shortens else tokens
        if short.shape[1] < tokens.shape[1]:
            n = short.shape[1]
            mask: Tensor = self.model.attn_mask[:n, :n]  # type: ignore[index]
            out = functional_call(self.model, {"attn_mask": mask}, (short,))
        else:
            out = self.model(tokens)
        return out if isinstance(out, Tensor) else out[0]


def build(*, side: str, pretrained: str = "", weights: bool = True, **options: Any) -> nn.Module:
    """Any architecture and pretrained tag of open_clip, or its local folder (image, text).

    `pretrained` is a tag such as laion2b_s34b_b79k, or a local file of the whole model.
    """
    check_side(side, ("image", "text"), "open_clip")
    settings = from_dict(OpenClipOptions, options, f"model.{side}.options")
    config, file = _resolve(settings, pretrained, weights)
    model = _make(settings.name or "the given config", config, file)
    settings = replace(settings, config=config)
    tower = _image(model, settings) if side == "image" else _text(model, settings)
    if settings.name.startswith(LOCAL):
        # A path says nothing about the model: two copies are the same tower.
        tower.settings["name"] = ""
    return tower


def _resolve(
    settings: OpenClipOptions, pretrained: str, weights: bool
) -> tuple[dict[str, Any], Path | None]:
    """The full configuration, and the file of weights (None: random)."""
    name, file = settings.name, None
    if settings.config:
        config = copy.deepcopy(settings.config)
        if "model_cfg" not in config:
            raise UserError("options.config must be an open_clip_config.json, with a model_cfg.")
    elif name.startswith(LOCAL):
        folder = Path(name.removeprefix(LOCAL)).expanduser()
        if not (folder / CONFIG).is_file():
            raise UserError(f"{name}: {folder} holds no {CONFIG}. Check the path.")
        config = read_json(folder / CONFIG)
        file = next((folder / f for f in WEIGHTS if (folder / f).is_file()), None)
        if weights and file is None:
            raise UserError(f"{folder} holds none of {', '.join(WEIGHTS)}.")
    elif name.startswith(HUB):
        config, file = _from_hub(name.removeprefix(HUB), weights)
    else:
        config, file = _by_name(name, pretrained, weights)
    if pretrained and Path(pretrained).expanduser().is_file():
        file = Path(pretrained).expanduser()
    return config, file if weights else None


def _by_name(name: str, tag: str, weights: bool) -> tuple[dict[str, Any], Path | None]:
    import open_clip

    model = open_clip.get_model_config(name.replace("/", "-"))
    if model is None:
        known = open_clip.list_models()
        raise UserError(
            f"open_clip has no architecture {name!r}.{nearest(name, known)}"
            f" Known: {', '.join(known)}; or local-dir:FOLDER, hf-hub:OWNER/NAME."
        )
    if not tag or Path(tag).expanduser().is_file():
        return {"model_cfg": model, "preprocess_cfg": {}}, None
    told = open_clip.get_pretrained_cfg(name.replace("/", "-"), tag)
    if not told:
        tags = open_clip.list_pretrained_tags_by_model(name)
        raise UserError(
            f"open_clip's {name} has no weights {tag!r}, and there is no such file."
            f"{nearest(tag, tags)} Known: {', '.join(tags)}."
        )
    # The tag knows whether it was trained with the quick GELU; the architecture's name may not.
    model["quick_gelu"] = bool(told.get("quick_gelu", model.get("quick_gelu", False)))
    file = None
    if weights:
        file = Path(_download(f"{name}/{tag}", open_clip.download_pretrained, told))
    return {"model_cfg": model, "preprocess_cfg": _preprocess_part(told)}, file


def _from_hub(name: str, weights: bool) -> tuple[dict[str, Any], Path | None]:
    from open_clip.pretrained import download_pretrained_from_hf

    config = read_json(_download(name, download_pretrained_from_hf, name, filename=CONFIG))
    return config, Path(_download(name, download_pretrained_from_hf, name)) if weights else None


def _download(what: str, fetch: Any, *arguments: Any, **named: Any) -> str:
    try:
        return fetch(*arguments, **named)
    except Exception as error:
        raise UserError(
            f"Cannot download {what}: {error} Connect, or fetch it elsewhere and give its folder"
            " as local-dir:PATH."
        ) from error


def _preprocess_part(told: dict[str, Any]) -> dict[str, Any]:
    keys = ("size", "mean", "std", "interpolation", "resize_mode", "fill_color")
    return {k: told[k] for k in keys if told.get(k) is not None}


def _make(name: str, config: dict[str, Any], file: Path | None) -> Any:
    """The whole model, with its text tower as a module of its own."""
    import open_clip

    arguments = copy.deepcopy(config["model_cfg"])
    arguments.pop("custom_text", None)
    arguments["vision_cfg"]["timm_model_pretrained"] = False
    arguments["text_cfg"]["hf_model_pretrained"] = False
    kind = open_clip.CoCa if "multimodal_cfg" in arguments else open_clip.CustomTextCLIP
    try:
        with guarded():
            model: Any = kind(**arguments)
            if file is not None:
                open_clip.load_checkpoint(model, str(file))
    except UserError:
        raise
    except RuntimeError as error:
        lines = "; ".join(line.strip() for line in str(error).splitlines()[:4])
        raise UserError(f"The weights {file} do not fit open_clip's {name}: {lines}") from error
    except Exception as error:
        raise UserError(f"open_clip cannot make {name}: {error}") from error
    return model


def _image(model: Any, settings: OpenClipOptions) -> OpenClipImage:
    visual = model.visual
    if not settings.project:
        _take_off_projection(visual, "image")
    size = visual.image_size
    size = (size, size) if isinstance(size, int) else tuple(size)
    told = _preprocess_part(settings.config.get("preprocess_cfg", {}))
    values = {
        "size": size,
        "fit": told.get("resize_mode", "shortest"),
        "fill": told.get("fill_color", 0),
        "interpolation": told.get("interpolation", "bicubic"),
    } | {k: tuple(told[k]) for k in ("mean", "std") if k in told}
    preprocess = from_dict(Preprocess, values, "preprocess_cfg")
    tower = OpenClipImage(visual, output_width(visual, size), preprocess, to_dict(settings))
    bias = model.logit_bias
    tower.scale = (model.logit_scale.item(), None if bias is None else bias.item())
    return tower


def _text(model: Any, settings: OpenClipOptions) -> OpenClipText:
    text, width = model.text, int(settings.config["model_cfg"]["embed_dim"])
    if not settings.project:
        width = _take_off_projection(text, "text")
    tokenizer = _tokenizer(settings)
    settings = replace(settings, tokenizer=tokenizer.portable)
    return OpenClipText(text, width, tokenizer, to_dict(settings))


def _take_off_projection(tower: Any, side: str) -> int:
    """Make the tower end before its projection into the joint space; its width then."""
    if getattr(tower, "text_projection", None) is not None:
        tower.text_projection = None
        return tower.width
    if isinstance(getattr(tower, "proj", None), nn.Parameter):
        tower.proj = None
        return tower.ln_post.normalized_shape[0]
    if hasattr(tower, "trunk") and hasattr(getattr(tower, "head", None), "proj"):
        tower.head = nn.Identity()
        return tower.trunk.num_features
    if hasattr(tower, "transformer") and isinstance(getattr(tower, "proj", None), nn.Module):
        tower.proj = nn.Identity()
        return tower.config.hidden_size
    raise UserError(
        f"The {side} side of this architecture has no projection of its own to leave out."
        " Set options.project to true."
    )


def _tokenizer(settings: OpenClipOptions) -> Any:
    """CLIP's own, or the tokenizer file of whatever transformers would load."""
    text = settings.config["model_cfg"]["text_cfg"]
    context = int(text.get("context_length", 77))
    if settings.tokenizer:
        return build_tokenizer(settings.tokenizer, context)
    extra = text.get("tokenizer_kwargs") or {}
    if not text.get("hf_tokenizer_name"):
        if extra:
            raise UserError(f"CLIP's tokenizer with {sorted(extra)} is not supported.")
        return build_tokenizer("clip", context)
    import open_clip

    from vislang.models.file_tokenizer import FileTokenizer, without_added

    # A local folder holds its own tokenizer; else the name says where it is.
    name = settings.name or f"{HUB}{text['hf_tokenizer_name']}"
    try:
        found: Any = open_clip.get_tokenizer(name)
        rust, pad = found.tokenizer.backend_tokenizer.to_str(), found.tokenizer.pad_token_id
    except Exception as error:
        raise UserError(
            f"Cannot load the tokenizer {text['hf_tokenizer_name']!r}: {error}"
            " Give options.tokenizer as file:PATH of its tokenizer.json."
        ) from error
    cleaning = extra.get("clean", "whitespace")
    drop = found.tokenizer.sep_token_id if extra.get("strip_sep_token") else None
    if getattr(found.tokenizer, "split_special_tokens", False):
        rust = without_added(rust)
    return FileTokenizer(rust, context, pad=pad, cleaning=cleaning, hide=drop)
