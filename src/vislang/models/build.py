"""A dual encoder from its configuration."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from vislang.config import ModelConfig, TowerConfig
from vislang.errors import UserError
from vislang.lookup import check_options, lookup
from vislang.models import DECODERS, HEADS
from vislang.models.decoder import Decoder
from vislang.models.dual import DualEncoder, Side
from vislang.models.towers import TOWERS

NO_SIDE = ("", "none")


def build_model(config: ModelConfig, trusted: bool = True, weights: bool = True) -> DualEncoder:
    """The dual encoder that `config` describes; the same for the same torch seed.

    Args:
        config: both sides and a decoder; one whose name is "" or "none" is left out.
        trusted: whether the user wrote the config; only then may it name any import.
        weights: False leaves pretrained weights unread, because a checkpoint will be loaded.

    Raises:
        UserError: an unknown name or option, a side that a tower does not have, or a head
            `none` between two different widths.
    """
    sides = {}
    for name in ("image", "text"):
        part: TowerConfig = getattr(config, name)
        sides[name] = (
            None if part.name in NO_SIDE else build_side(name, part, config.width, trusted, weights)
        )
    model = DualEncoder(**sides, decoder=build_decoder(config, sides, trusted))
    model.config = config
    return model


def build_decoder(
    config: ModelConfig, sides: Mapping[str, Side | None], trusted: bool = True
) -> Decoder | None:
    """The text decoder that `config` asks for, or None: it reads the image tower's patches and
    writes in the words of the text tower's tokenizer."""
    name, options = config.decoder.name, config.decoder.options
    if name in NO_SIDE:
        if options:
            raise UserError("model.decoder.options is given, but model.decoder.name is empty.")
        return None
    builder = lookup("decoder", DECODERS, name, trusted=trusted)
    image, text = sides["image"], sides["text"]
    if image is None or text is None:
        raise UserError(
            f"model.decoder {name!r} needs an image side to look at and a text side whose"
            " tokenizer it writes with; one of them is missing. Set both, or leave"
            " model.decoder.name empty."
        )
    if not hasattr(image.tower, "dense"):
        raise UserError(
            f"model.decoder {name!r} reads the patches of an image, and the tower"
            f" {config.image.name!r} gives none. Take scratch_vit, a model of timm, or a vision"
            " transformer of open_clip as model.image.name."
        )
    fixed = {"features": image.tower.width, "tokenizer": getattr(text.tower, "tokenizer", None)}
    return call(builder, f"decoder {name!r} (model.decoder.options)", options, **fixed)


def build_side(
    name: str, config: TowerConfig, width: int, trusted: bool = True, weights: bool = True
) -> Side:
    """One side ("image" or "text") of a dual encoder of joint width `width`.

    A `width` of 0 takes the tower's own.
    """
    tower = build_tower(name, config, trusted, weights)
    frozen = add_and_lock(name, tower, config, trusted)
    features = int(tower.width)  # type: ignore[arg-type]
    width = width or features
    head = lookup("head", HEADS, config.head, trusted=trusted)
    options = config.head_options
    try:
        made = call(head, f"head {config.head!r}", options, features=features, width=width)
    except UserError as error:
        raise UserError(f"model.{name}: {error}") from error
    return Side(tower, made, width, frozen)


def add_and_lock(name: str, tower: nn.Module, config: TowerConfig, trusted: bool) -> bool:
    """Put the prompt and the adapter that `config` asks for into a tower, and lock its weights.

    Returns:
        Whether nothing in the tower is left to train, so that it counts as frozen.
    """
    where = f"model.{name}"
    extra = [f for f in ("adapter", "prompt_tokens", "lock", "unlock") if getattr(config, f)]
    if config.frozen and extra:
        raise UserError(
            f"{where}.frozen keeps the whole tower as it is, so {where}.{extra[0]} has no use."
            f" Set {where}.frozen to false: adapters and prompts lock the tower's own weights."
        )
    if config.adapter_options and not config.adapter:
        raise UserError(f"{where}.adapter_options is given, but {where}.adapter is empty.")
    try:
        if config.prompt_tokens:
            from vislang.models.prompt_tuning import insert_prompt

            insert_prompt(tower, config.prompt_tokens)
        if config.adapter:
            from vislang.models.adapters.insert import insert_adapters

            insert_adapters(tower, config.adapter, config.adapter_options, trusted)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    if not extra:
        return config.frozen
    from vislang.models.locks import lock_tower

    return lock_tower(tower, config.lock, config.unlock, where)


def build_tower(
    name: str, config: TowerConfig, trusted: bool = True, weights: bool = True
) -> nn.Module:
    """The tower alone."""
    builder = lookup("tower", TOWERS, config.name, trusted=trusted)
    what = f"tower {config.name!r} (model.{name}.options)"
    fixed = {"side": name, "pretrained": config.pretrained, "weights": weights}
    return call(builder, what, config.options, **fixed)


def call(builder: Any, what: str, options: Mapping[str, Any], **fixed: Any) -> Any:
    """Call a builder with its fixed arguments and the user's options, which it must know."""
    parameters = inspect.signature(builder).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    doubtful = [key for key in options if key in fixed or not open_ended]
    check_options(f"The {what}", doubtful, sorted(set(parameters) - set(fixed)))
    return builder(**fixed, **options)
