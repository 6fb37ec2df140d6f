"""Any model by one word: `load_model("runs/a")`, `load_model("open_clip:ViT-B-32/openai")`.

    FOLDER                             a run folder (its newest whole checkpoint), one of its
                                       checkpoints, an exported folder, an open_clip folder
    open_clip:NAME/PRETRAINED          also open_clip:local-dir:PATH, open_clip:hf-hub:OWNER/NAME
    timm:NAME[.TAG]                    image side only; also timm:local-dir:PATH
    torchvision:NAME[/TAG]             image side only; TAG may be a file of weights, also one of
                                       SimCLR's, SimSiam's, SwAV's or MoCo v3's own; random gives
                                       random weights, always the same (also timm:NAME.random)
    huggingface:NAME|PATH              text side only, mean pooling
    sentence_transformers:NAME|PATH    text side only
    words:FILE                         text side only: the mean of word vectors

A spec of the last six kinds may end in options of the tower: timm:test_vit?image_size=64.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vislang.config import ModelConfig, TowerConfig
from vislang.errors import UserError
from vislang.lookup import nearest
from vislang.models.build import build_model, build_side
from vislang.models.dual import DualEncoder, count_parameters
from vislang.models.export import export_open_clip
from vislang.models.fingerprint import fingerprint_model, fingerprint_side
from vislang.models.saved import NOTE, load_export, load_run, run_of, save_model

__all__ = [
    "as_model",
    "build_model",
    "count_parameters",
    "export_open_clip",
    "fingerprint_model",
    "fingerprint_side",
    "load_model",
    "save_model",
]

LOCAL, HUB = "local-dir:", "hf-hub:"
ABSENT = TowerConfig(name="")


def load_model(
    spec: str | Path,
    device: torch.device | str = "cpu",
    ema: bool = False,
    trusted: bool = False,
) -> DualEncoder:
    """The model that `spec` names, on `device`, in eval mode.

    Args:
        spec: see the module.
        device: where to put it.
        ema: of a run, take the moving average of the weights.
        trusted: let a run's config name imports of your own ("package.module:Name"); only for
            runs that you made yourself.

    Raises:
        UserError: nothing is there, it is not whole, or its weights do not fit.
    """
    text = str(spec)
    kind, colon, rest = text.partition(":")
    if colon and kind in KINDS:
        name, _, options = rest.partition("?")
        model = KINDS[kind](name, _options(options))
    else:
        model = _from_folder(Path(text).expanduser(), ema, trusted)
    return model.to(device).eval()


def as_model(model: DualEncoder | str | Path) -> DualEncoder:
    """A model as it is, or the one that is named (see `load_model`)."""
    return load_model(model) if isinstance(model, str | Path) else model


def _options(text: str) -> dict[str, Any]:
    """ "a=1&b=x" as {"a": 1, "b": "x"}."""
    import yaml

    pairs = (pair.partition("=") for pair in text.split("&") if pair)
    return {key: yaml.safe_load(value) for key, _, value in pairs}


def _from_folder(path: Path, ema: bool, trusted: bool) -> DualEncoder:
    if (path / NOTE).is_file():
        return load_export(path, trusted)
    if of := run_of(path):
        return load_run(*of, ema, trusted)
    if (path / "open_clip_config.json").is_file():
        return _open_clip(f"{LOCAL}{path}", {})
    if (path / "modules.json").is_file():
        return _sentence_transformers(str(path), {})
    if path.exists():
        raise UserError(
            f"{path} is no model: it has neither {NOTE} (an export, written last), nor config.yaml"
            " with checkpoints (a run), nor open_clip_config.json. " + _forms()
        )
    known = [f"{kind}:" for kind in KINDS]
    raise UserError(f"There is no model {str(path)!r}.{nearest(str(path), known)} " + _forms())


def _forms() -> str:
    return (
        "A model is a run folder, one of its checkpoints, an exported folder,"
        " open_clip:NAME/PRETRAINED, open_clip:local-dir:PATH, timm:NAME, torchvision:NAME,"
        " huggingface:PATH, sentence_transformers:NAME or words:FILE."
    )


def _open_clip(name: str, options: dict[str, Any]) -> DualEncoder:
    tag = ""
    if not name.startswith((LOCAL, HUB)):
        name, slash, tag = name.partition("/")
        if not slash or not tag:
            import open_clip

            tags = open_clip.list_pretrained_tags_by_model(name)
            raise UserError(
                f"open_clip:{name} needs pretrained weights: open_clip:{name}/TAG."
                f" Known tags: {', '.join(tags) or 'none, is the name right?'}"
            )
    side = TowerConfig("open_clip", {"name": name, **options}, pretrained=tag, head="none")
    image = build_side("image", side, 0)
    config = ModelConfig(image=side, text=side, width=image.width)
    return _made(DualEncoder(image, build_side("text", side, image.width)), config)


def _image_only(tower: str) -> Callable[[str, dict[str, Any]], DualEncoder]:
    def load(name: str, options: dict[str, Any]) -> DualEncoder:
        tag = "default"
        if tower == "torchvision":
            name, _, given = name.partition("/")
            tag = given or tag
        elif "." in name and not name.startswith(LOCAL):
            name, _, tag = name.partition(".")
        random, tag = tag == "random", "" if tag == "random" else tag
        side = TowerConfig(tower, {"name": name, **options}, pretrained=tag, head="none")
        with torch.random.fork_rng(devices=[]):
            if random:
                torch.manual_seed(0)
            made = build_side("image", side, 0)
        return _made(DualEncoder(made, None), ModelConfig(side, ABSENT, made.width))

    return load


def _text_only(tower: str) -> Callable[[str, dict[str, Any]], DualEncoder]:
    def load(name: str, options: dict[str, Any]) -> DualEncoder:
        side = TowerConfig(tower, options, pretrained=name, head="none")
        made = build_side("text", side, 0)
        return _made(DualEncoder(None, made), ModelConfig(ABSENT, side, made.width))

    return load


def _made(model: DualEncoder, config: ModelConfig) -> DualEncoder:
    model.config = replace(config)
    return model


_sentence_transformers = _text_only("sentence_transformers")

KINDS: dict[str, Callable[[str, dict[str, Any]], DualEncoder]] = {
    "open_clip": _open_clip,
    "timm": _image_only("timm"),
    "torchvision": _image_only("torchvision"),
    "huggingface": _text_only("huggingface"),
    "sentence_transformers": _sentence_transformers,
    "words": _text_only("word_vectors"),
}
