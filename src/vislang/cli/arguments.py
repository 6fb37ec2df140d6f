"""From a function's signature and docstring to the flags of a command.

Parameters before `*` are positional arguments, those after it are flags, and those without a
default are required. A parameter `config: TrainConfig` becomes one typed dotted flag for each
field (`--optim.lr`), whose defaults are those of the recipe that the positional `recipe` names.
"""

import argparse
import inspect
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentParser

from vislang.cli.wording import Help, argument_helps, explain, name_values, value_word
from vislang.config import TrainConfig, from_dict, to_dict, with_changes
from vislang.errors import UserError

# When the flag on the left names something else than the recipe does, the recipe's arguments for
# it (on the right) make no sense any more and go back to their defaults.
BELONGS: dict[str, dict[str, Any]] = {
    "model.image.name": {
        "model.image.options": {},
        "model.image.pretrained": "",
        "model.image.lock": (),
        "model.image.unlock": (),
    },
    "model.image.adapter": {"model.image.adapter_options": {}},
    "model.image.head": {"model.image.head_options": {}},
    "model.text.name": {
        "model.text.options": {},
        "model.text.pretrained": "",
        "model.text.lock": (),
        "model.text.unlock": (),
    },
    "model.text.adapter": {"model.text.adapter_options": {}},
    "model.text.head": {"model.text.head_options": {}},
    "model.decoder.name": {"model.decoder.options": {}},
    "objective.name": {"objective.options": {}},
    "data.train": {"data.train_options": {}},
    "data.valid": {"data.valid_options": {}},
    "data.augment": {"data.augment_options": {}},
    "data.crop_augment": {"data.crop_augment_options": {}},
}


def read_arguments(
    function: Callable[..., Any], argv: Sequence[str], prog: str
) -> dict[str, Any] | None:
    """The keyword arguments for `function` that a command line asks for; None after --help.

    Raises:
        UserError: an unknown flag (with the nearest known one), a missing argument, a value of
            the wrong type.
    """
    argv = in_order(function, argv)
    base = None
    if _config_parameter(function):
        base = _base_config(function, argv)
    parser = make_parser(function, prog, base)
    try:
        values = parser.parse_args(list(argv)).as_dict()
        read_deep_values(values, given_flags(argv), dict_flags(function))
    except SystemExit as end:  # argparse ends the process after --help
        if end.code in (0, None):
            return None
        raise
    except argparse.ArgumentError as error:
        raise UserError(explain(parser, str(error), prog)) from error
    if base is not None:
        fields = {key: values.pop(key) for key in to_dict(base) if key != "recipe"}
        values["config"] = from_dict(TrainConfig, {"recipe": base.recipe} | fields)
    return values


def read_deep_values(
    values: dict[str, Any], given: Mapping[str, str], dicts: Iterable[str]
) -> None:
    """Set `--options.knn.k 3` in place, as a number.

    jsonargparse leaves deep values as text, and of several deep ones below one key, or of a whole
    dict and a deep one, it keeps the last alone.

    >>> values = {"options": {"knn": {"metric": "dot"}}}
    >>> read_deep_values(values, {"options.knn.k": "3", "options.knn.metric": "dot"}, ["options"])
    >>> values
    {'options': {'knn': {'metric': 'dot', 'k': 3}}}
    """
    for name in dicts:
        start = name + "."
        deep = [
            (flag.removeprefix(start).split("."), text)
            for flag, text in given.items()
            if flag.startswith(start) and "." in flag.removeprefix(start)
        ]
        if not deep:
            continue
        *parents, last = name.split(".")
        place: Any = values
        for parent in parents:
            place = place[parent]
        whole = _yaml(given[name]) if name in given else {}
        for path, text in deep:
            key = path[0]
            if not isinstance(place[last].get(key), dict):
                continue  # of another kind: jsonargparse has said, or will say, what is wrong
            if isinstance(whole, dict) and isinstance(whole.get(key), dict):
                place[last][key] = whole[key] | place[last][key]
            inner = place[last]
            for part in path[:-1]:
                inner = inner.setdefault(part, {}) if isinstance(inner, dict) else None
            if isinstance(inner, dict):
                inner[path[-1]] = _yaml(text)


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def dict_flags(function: Callable[..., Any]) -> list[str]:
    """Dotted names of the flags whose value is a dict."""
    found = []
    for name, kind in typing.get_type_hints(function).items():
        if kind is TrainConfig:
            found += [k for k, value in flat_fields(TrainConfig()) if isinstance(value, dict)]
        elif "dict" in str(kind):
            found.append(name)
    return found


def make_parser(
    function: Callable[..., Any], prog: str, base: TrainConfig | None = None
) -> ArgumentParser:
    """The parser for `function`; `base` gives the defaults of its `config` parameter."""
    parser = ArgumentParser(
        prog=prog,
        exit_on_error=False,
        allow_abbrev=False,
        description=(inspect.getdoc(function) or "").split("\nArgs:")[0].strip(),
        formatter_class=Help,
    )
    hints = typing.get_type_hints(function)
    helps = argument_helps(function)
    for name, parameter in inspect.signature(function).parameters.items():
        kind = hints[name]
        if kind is TrainConfig:
            parser.add_class_arguments(TrainConfig, skip={"recipe"})
            defaults = dict(flat_fields(base or TrainConfig()))
            parser.set_defaults({k: v for k, v in defaults.items() if k != "recipe"})
            name_values(parser, dict(flat_fields(TrainConfig())))
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            required = parameter.default is inspect.Parameter.empty
            default = {} if required else {"default": parameter.default}
            if parameter.default is None and "dict" in str(kind):
                default = {"default": {}}  # so that `--options.columns.image path` sets one key
            parser.add_argument(
                f"--{name}",
                type=kind,
                help=helps.get(name, ""),
                required=required,
                metavar=value_word(kind),
                **default,
            )
        else:
            _add_positional(parser, name, kind, parameter, helps.get(name, ""))
    return parser


def _add_positional(parser, name: str, kind: Any, parameter: inspect.Parameter, help: str) -> None:
    if typing.get_origin(kind) is list:  # RUN...
        given = {} if parameter.default is inspect.Parameter.empty else {"default": []}
        nargs = "*" if given else "+"
        parser.add_argument(name, type=typing.get_args(kind)[0], nargs=nargs, help=help, **given)
    elif parameter.default is inspect.Parameter.empty:
        parser.add_argument(name, type=kind, help=help)
    else:
        parser.add_argument(name, type=kind, nargs="?", default=parameter.default, help=help)


def flat_fields(config: Any) -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every field of a config; dict fields are not entered.

    >>> dict(flat_fields(TrainConfig()))["optim.betas"]
    (0.9, 0.98)
    """
    import dataclasses

    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            for inner, item in flat_fields(value):
                yield f"{field.name}.{inner}", item
        else:
            yield field.name, value


def in_order(function: Callable[..., Any], argv: Sequence[str]) -> list[str]:
    """A command line as the parser wants it.

    `--suite a,b` becomes a list for flags that take several names; dashes within a flag's name
    are taken for underscores.

    >>> def command(*, suite: tuple[str, ...] = ()): ...
    >>> in_order(command, ["--suite", "zeroshot,knn", "--batch-size=2"])
    ['--suite', '["zeroshot", "knn"]', '--batch_size=2']
    """
    import json

    takes_names = {"--" + name for name in _several_names(function)}
    changed: list[str] = []
    before = ""
    for token in argv:
        flag, equals, value = token.partition("=")
        if flag.startswith("--"):
            flag = "--" + flag[2:].replace("-", "_")
            token = flag + equals + value
        if flag in takes_names and equals and not value.startswith("["):
            token = f"{flag}={json.dumps([v for v in value.split(',') if v])}"
        elif before in takes_names and not token.startswith(("[", "--")):
            token = json.dumps([v for v in token.split(",") if v])
        changed.append(token)
        before = token
    return changed


def _several_names(function: Callable[..., Any]) -> Iterator[str]:
    for name, kind in typing.get_type_hints(function).items():
        if kind is TrainConfig:
            for dotted, value in flat_fields(TrainConfig()):
                if isinstance(value, tuple) and not any(isinstance(v, float) for v in value):
                    yield dotted
        elif kind == tuple[str, ...]:
            yield name


def given_flags(argv: Sequence[str]) -> dict[str, str]:
    """Flag -> value, where every flag takes one value; "" is the (first) positional argument.

    >>> given_flags(["--out", "runs/a", "clip", "--optim.lr=1"])
    {'out': 'runs/a', '': 'clip', 'optim.lr': '1'}
    """
    given: dict[str, str] = {}
    tokens = iter(argv)
    for token in tokens:
        if token in ("-h", "--help"):
            continue
        if token.startswith("--"):
            flag, equals, value = token[2:].partition("=")
            given[flag] = value if equals else next(tokens, "")
        else:
            given.setdefault("", token)
    return given


def _config_parameter(function: Callable[..., Any]) -> bool:
    return TrainConfig in typing.get_type_hints(function).values()


def _base_config(function: Callable[..., Any], argv: Sequence[str]) -> TrainConfig:
    """The config whose fields are the flags' defaults."""
    from vislang.recipes import find_config

    given = given_flags(argv)
    fallback = inspect.signature(function).parameters.get("recipe")
    name = given.get("") or (fallback.default if fallback else inspect.Parameter.empty)
    if fallback is None:  # a command with a recipe of its own
        name = function.__name__
    base = find_config(name) if isinstance(name, str) else TrainConfig()
    return without_stale(base, given)


def without_stale(base: TrainConfig, given: Mapping[str, str]) -> TrainConfig:
    """`base` without the arguments of parts that the flags in `given` replace.

    >>> from vislang.config import with_changes
    >>> base = with_changes(TrainConfig(), {"model.image.options.depth": 2})
    >>> without_stale(base, {"model.image.name": "timm"}).model.image.options
    {}
    """
    fields = dict(flat_fields(base))
    changes = {}
    for flag, belongings in BELONGS.items():
        if flag in given and given[flag] != fields[flag]:
            changes |= belongings
    if "data.train_options" in changes and fields["data.valid"] == fields["data.train"]:
        # The recipe's own data, in two parts; a valid source that was named for itself stays.
        changes |= {"data.valid": "", "data.valid_options": {}}
    return with_changes(base, changes) if changes else base
