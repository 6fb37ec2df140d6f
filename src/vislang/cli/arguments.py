"""From a function's signature and docstring to the flags of a command.

Parameters before `*` are positional arguments, those after it are flags, and those without a
default are required. A parameter `config: TrainConfig` becomes one typed dotted flag for each
field (`--optim.lr`), whose defaults are those of the recipe that the positional `recipe` names.
"""

import argparse
import difflib
import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

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
    "objective.name": {"objective.options": {}},
    "data.train": {"data.train_options": {}, "data.valid": "", "data.valid_options": {}},
    "data.valid": {"data.valid_options": {}},
    "data.augment": {"data.augment_options": {}},
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
        values = nested(parser.parse_args(list(argv)).as_dict())
    except SystemExit as end:  # argparse ends the process after --help
        if end.code in (0, None):
            return None
        raise
    except argparse.ArgumentError as error:
        raise UserError(_explain(parser, str(error), prog)) from error
    if base is not None:
        fields = {key: values.pop(key) for key in to_dict(base) if key != "recipe"}
        values["config"] = from_dict(TrainConfig, {"recipe": base.recipe} | fields)
    return values


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys within dicts as dicts: `--options.columns.image path` sets one key of one.

    >>> nested({"options": {"columns.image": "path", "split": "test"}})
    {'options': {'columns': {'image': 'path'}, 'split': 'test'}}
    """
    made: dict[str, Any] = {}
    for key, value in values.items():
        *parents, last = key.split(".")
        inner = made
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = nested(value) if isinstance(value, dict) else value
    return made


def make_parser(
    function: Callable[..., Any], prog: str, base: TrainConfig | None = None
) -> ArgumentParser:
    """The parser for `function`; `base` gives the defaults of its `config` parameter."""
    parser = ArgumentParser(
        prog=prog,
        exit_on_error=False,
        allow_abbrev=False,
        description=(inspect.getdoc(function) or "").split("\nArgs:")[0].strip(),
        formatter_class=_Help,
    )
    hints = typing.get_type_hints(function)
    helps = argument_helps(function)
    for name, parameter in inspect.signature(function).parameters.items():
        kind = hints[name]
        if kind is TrainConfig:
            parser.add_class_arguments(TrainConfig, skip={"recipe"})
            defaults = dict(flat_fields(base or TrainConfig()))
            parser.set_defaults({k: v for k, v in defaults.items() if k != "recipe"})
            _name_values(parser, dict(flat_fields(TrainConfig())))
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            required = parameter.default is inspect.Parameter.empty
            default = {} if required else {"default": parameter.default}
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
        parser.add_argument(name, type=typing.get_args(kind)[0], nargs="+", help=help)
    elif parameter.default is inspect.Parameter.empty:
        parser.add_argument(name, type=kind, help=help)
    else:
        parser.add_argument(name, type=kind, nargs="?", default=parameter.default, help=help)


def _name_values(parser: ArgumentParser, fields: Mapping[str, Any]) -> None:
    """Say what a flag's value is: `--optim.lr NUMBER` instead of `--optim.lr OPTIM.LR`."""
    for action in parser._actions:
        if action.dest in fields:
            action.metavar = value_word(type(fields[action.dest]), fields[action.dest])
        elif action.metavar == "CONFIG":
            action.help = "a YAML file, or YAML text, with any of the fields below."


def value_word(kind: Any, value: Any = None) -> str:
    """The word for a flag's value in the help.

    >>> value_word(float), value_word(bool), value_word(tuple[str, ...])
    ('NUMBER', '{true,false}', 'A,B,...')
    """
    if kind is tuple and value:
        return (
            "[" + ",".join("XYZ"[: len(value)]) + "]" if isinstance(value[0], float) else "A,B,..."
        )
    words = {bool: "{true,false}", int: "N", float: "NUMBER", str: "TEXT", Path: "PATH"}
    words |= {dict: "{...}", tuple: "A,B,..."}
    options = [k for k in typing.get_args(kind) if k is not type(None)]
    optional = type(None) in typing.get_args(kind)
    kind = options[0] if optional else kind
    return words.get(typing.get_origin(kind) or kind, "VALUE")


class _Help(argparse.RawDescriptionHelpFormatter):
    """One line of usage instead of twenty: the flags are listed below it anyway."""

    def add_usage(self, usage, actions, groups, prefix=None):
        names = [
            a.dest.upper() + " ..." * (a.nargs == "+") for a in actions if not a.option_strings
        ]
        flags = [a for a in actions if a.option_strings and a.required]
        needed = [f"{a.option_strings[0]} {a.metavar}" for a in flags]
        line = " ".join([str(self._prog), *map(str, names), *needed, "[flags]"])
        super().add_usage(line.replace("%", "%%"), actions, groups, prefix)

    def _get_help_string(self, action):
        text = action.help or ""
        empty = action.default in (None, "", [], {}, (), argparse.SUPPRESS)
        if not action.option_strings or empty or "%(default)" in text:
            return text
        return f"{text} (default: {str(action.default).replace('%', '%%')})"


def argument_helps(function: Callable[..., Any]) -> dict[str, str]:
    """Argument name -> its text in the docstring's "Args:" section."""
    section = (inspect.getdoc(function) or "").partition("Args:\n")[2]
    helps: dict[str, str] = {}
    name = ""
    for line in section.split("\n"):
        if found := re.match(r"    (\w+): (.*)", line):
            name = found[1]
            helps[name] = found[2].strip()
        elif name and line.startswith("        "):
            helps[name] += " " + line.strip()
        else:
            name = ""
    return helps


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
    return with_changes(base, changes) if changes else base


def _explain(parser: ArgumentParser, message: str, prog: str) -> str:
    """jsonargparse's message in our words: what was wrong, the nearest flag, what to do."""
    known = sorted(flag for flag in parser._option_string_actions if flag.startswith("--"))
    if found := re.search(r"unrecognized arguments: (\S+)", message, re.IGNORECASE):
        flag = found[1].partition("=")[0]
        if not flag.startswith("-"):
            return f"{prog} has no use for the argument {flag!r}. See `{prog} --help`."
        # A field named without its group (--lr for --optim.lr) comes before a similar spelling.
        near = [name for name in known if name.endswith("." + flag.lstrip("-"))]
        near = near or difflib.get_close_matches(flag, known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        return f"{prog} has no flag {flag}.{hint} See `{prog} --help`."
    if found := re.search(r"arguments are required: (.*)", message):
        names = ", ".join(
            f"--{name}" if f"--{name}" in known else name.upper() for name in found[1].split(", ")
        )
        return f"{prog} needs {names}. See `{prog} --help`."
    if found := re.search(r'Parser key "([\w.]+)":\s*(.*)', message, re.DOTALL):
        flag = f"--{found[1]}" if f"--{found[1]}" in known else found[1].upper()
        what = re.sub(r"<class '(\w+)'>", r"\1", " ".join(found[2].split()))
        return f"{flag}: {what}. See `{prog} --help`."
    return f"{message}. See `{prog} --help`."
