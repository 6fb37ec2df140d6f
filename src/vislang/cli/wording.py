"""What the command line says: help texts, words for values, errors with the nearest flag."""

import argparse
import difflib
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser


def name_values(parser: ArgumentParser, fields: Mapping[str, Any]) -> None:
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


class Help(argparse.RawDescriptionHelpFormatter):
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


def explain(parser: ArgumentParser, message: str, prog: str) -> str:
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
