"""From a config to an objective: options checked, widths filled in, weighted sums."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Collection, Mapping
from typing import Any

from vislang.config import ObjectiveConfig, from_dict
from vislang.errors import UserError
from vislang.lookup import lookup, nearest
from vislang.objectives import OBJECTIVES
from vislang.objectives.objective import Objective
from vislang.objectives.weighted import WeightedSum


def build_objective(
    config: ObjectiveConfig,
    width: int,
    image_width: int = 0,
    steps: int = 0,
    trusted: bool = True,
) -> Objective:
    """The objective of a config.

    Args:
        config: its name, or a weighted sum 'infonce:1 + vicreg:0.1', its options (of a sum: a
            mapping for each name), and the teaching side for those that have the option.
        width: of the joint space, D; goes to the constructor's argument `width`.
        image_width: of the image tower's output before its head; for `image_width`.
        steps: optimizer steps of the whole run; for `steps`, which schedules read.
        trusted: whether the user typed the name, so that it may be 'package.module:Name'.

    Raises:
        UserError: an unknown name or option, or an option of the wrong type.
    """
    filled: dict[str, Any] = {"width": width, "image_width": image_width or width, "steps": steps}
    if config.teacher:
        if config.teacher not in ("image", "text"):
            raise UserError(
                f"objective.teacher must be image, text, or empty; got {config.teacher!r}."
            )
        filled["teacher"] = config.teacher
    terms = parse_sum(config.name)
    if len(terms) == 1 and next(iter(terms.values())) == 1.0:
        return _build_one(next(iter(terms)), config.options, filled, "objective.options", trusted)
    for name in config.options:
        if name not in terms:
            raise UserError(
                f"objective.options of a sum are a mapping for each name; {name!r} is none of"
                f" its names.{nearest(name, terms)} Names: {', '.join(terms)}."
            )
    built = {}
    for name in terms:
        where = f"objective.options.{name}"
        built[name] = _build_one(name, config.options.get(name, {}), filled, where, trusted)
    return WeightedSum(built, terms)


def parse_sum(text: str) -> dict[str, float]:
    """Names and weights of a weighted sum.

    >>> parse_sum("infonce + vicreg:0.1")
    {'infonce': 1.0, 'vicreg': 0.1}
    >>> parse_sum("my.module:Loss")
    {'my.module:Loss': 1.0}
    """
    terms: dict[str, float] = {}
    for term in text.split("+"):
        name, colon, weight = term.strip().rpartition(":")
        try:
            value = float(weight) if colon else 1.0
            name = name.strip() if colon else weight
        except ValueError:  # the colon belongs to 'package.module:Name'
            name, value = term.strip(), 1.0
        if not name:
            raise UserError(f"{text!r} is no sum of objectives. Write 'infonce:1 + vicreg:0.1'.")
        if name in terms:
            raise UserError(f"{text!r} names {name!r} twice; add up its weights instead.")
        terms[name] = value
    return terms


def check_needs(objective: Objective, given: Collection[str], source: str = "the source") -> None:
    """Refuse, before the first step, a batch that lacks what the objective needs."""
    missing = [key for key in objective.needs if key not in given]
    if missing:
        ways = [f"{key}: {GIVERS[key]}" for key in missing if key in GIVERS]
        raise UserError(
            f"The objective needs {', '.join(objective.needs)}; {source} gives"
            f" {', '.join(sorted(given))}, so {', '.join(missing)} is missing."
            + (f" What gives it: {'; '.join(ways)}." if ways else "")
        )


GIVERS = {
    "text": "a source with captions (table, coco, flickr, webdataset, digits) and a text tower",
    "text_2": "the same text embedded twice, or a source with several captions",
    "image": "a source with images and an image tower",
    "image_2": "an augmentation with two views, or a source of paired neighbours",
    "image_3": "an augmentation with three views",
    "label": "a source with classes (folder, imagenet, digits)",
    "index": "every source, through the training loader",
    "image_teacher": "an EMA of the model, which the trainer keeps for this objective",
    "image_2_teacher": "an EMA of the model, which the trainer keeps for this objective",
    "text_teacher": "an EMA of the model, which the trainer keeps for this objective",
    "image_2_features": "an augmentation with two views",
    "image_3_features": "an augmentation with three views",
    "caption_logits": "a model with a text decoder",
    "caption_ids": "a model with a text decoder",
}


def _build_one(
    name: str, options: Mapping[str, Any], filled: Mapping[str, Any], where: str, trusted: bool
) -> Objective:
    make = lookup("objective", OBJECTIVES, name, trusted=trusted)
    known, hints = _schema(make)
    options = _checked_options(known, hints, options, where)
    for key, value in filled.items():
        if key in known and key not in options:
            options[key] = value
    lacking = [
        key
        for key, parameter in known.items()
        if parameter.default is parameter.empty and key not in options
    ]
    if lacking:
        raise UserError(f"The objective {name!r} needs {where}.{lacking[0]}: give it a value.")
    return make(**options)


def _schema(make: Any) -> tuple[dict[str, inspect.Parameter], dict[str, Any]]:
    """Arguments of a constructor and their types; those that `**options` hands on included."""
    known: dict[str, inspect.Parameter] = {}
    hints: dict[str, Any] = {}
    for owner in inspect.getmro(make) if inspect.isclass(make) else (make,):
        function = owner.__dict__.get("__init__") if inspect.isclass(owner) else owner
        if function is None:
            continue
        parameters = inspect.signature(function).parameters
        passes_on = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        for key, parameter in parameters.items():
            if key != "self" and parameter.kind in (
                parameter.POSITIONAL_OR_KEYWORD,
                parameter.KEYWORD_ONLY,
            ):
                known.setdefault(key, parameter)
        hints = {**typing.get_type_hints(function), **hints}
        if not passes_on:
            break
    return known, hints


def _checked_options(
    known: Mapping[str, inspect.Parameter],
    hints: Mapping[str, Any],
    options: Mapping[str, Any],
    where: str,
) -> dict[str, Any]:
    """The options with the types of the constructor, refused where they do not fit."""
    for key in options:
        if key not in known:
            raise UserError(
                f"{where} has no {key!r}.{nearest(str(key), known)}"
                f" Known: {', '.join(sorted(known)) or 'none'}."
            )
    typed = [(key, hints[key]) for key in options if key in hints]
    schema = dataclasses.make_dataclass("Options", typed)
    checked = from_dict(schema, {key: options[key] for key, _ in typed}, where)
    return {**options, **{key: getattr(checked, key) for key, _ in typed}}
