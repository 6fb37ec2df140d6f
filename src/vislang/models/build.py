"""A dual encoder from its configuration."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from vislang.config import ModelConfig, TowerConfig
from vislang.errors import UserError
from vislang.lookup import lookup, nearest
from vislang.models import HEADS
from vislang.models.dual import DualEncoder, Side
from vislang.models.towers import TOWERS

NO_SIDE = ("", "none")


def build_model(config: ModelConfig, trusted: bool = True, weights: bool = True) -> DualEncoder:
    """The dual encoder that `config` describes; the same for the same torch seed.

    Args:
        config: both sides; a side whose name is "" or "none" is left out.
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
    model = DualEncoder(**sides)
    model.config = config
    return model


def build_side(
    name: str, config: TowerConfig, width: int, trusted: bool = True, weights: bool = True
) -> Side:
    """One side ("image" or "text") of a dual encoder of shared width `width`.

    A `width` of 0 takes the tower's own.
    """
    tower = build_tower(name, config, trusted, weights)
    features = int(tower.width)  # type: ignore[arg-type]
    width = width or features
    head = lookup("head", HEADS, config.head, trusted=trusted)
    options = config.head_options
    try:
        made = call(head, f"head {config.head!r}", options, features=features, width=width)
    except UserError as error:
        raise UserError(f"model.{name}: {error}") from error
    return Side(tower, made, width, config.frozen)


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
    for key in options:
        if key in fixed or not (open_ended or key in parameters):
            known = sorted(set(parameters) - set(fixed))
            raise UserError(
                f"The {what} has no option {key!r}.{nearest(key, known)}"
                f" Known: {', '.join(known) or 'none'}."
            )
    return builder(**fixed, **options)
