"""Registries are plain dicts of name -> "module:Name"; this module reads them.

A name that is not in the dict may be "package.module:Name", but only where the caller says
that the user typed it (`trusted`); a config that came with a downloaded checkpoint never may.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from vislang.errors import UserError


def nearest(name: str, known: Iterable[str]) -> str:
    """A "did you mean" sentence with a leading space, or nothing.

    >>> nearest("infonc", ["infonce", "siglip"])
    " Did you mean 'infonce'?"
    >>> nearest("zzz", ["infonce", "siglip"])
    ''
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def lookup(kind: str, table: Mapping[str, str], name: str, *, trusted: bool = True) -> Any:
    """The object that `name` stands for in the registry `table`.

    Args:
        kind: what the table holds, in one word, for the error message ("tower").
        table: name -> "module:Name".
        name: a key of the table, or (if `trusted`) "package.module:Name".
        trusted: whether the user typed the name; only then may it name any import.

    Raises:
        UserError: the name is unknown, or points at nothing that can be imported.
    """
    if name in table:
        target = table[name]
    elif ":" in name and trusted:
        target = name
    else:
        own = " Your own: give 'package.module:Name'." if trusted else ""
        why = (
            " Names of a config that came with a checkpoint must be registered."
            if (":" in name and not trusted)
            else ""
        )
        raise UserError(
            f"No {kind} is called {name!r}.{nearest(name, table)}"
            f" Known: {', '.join(sorted(table))}.{own}{why}"
        )
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if name in table and error.name and not error.name.startswith("vislang"):
            raise UserError(
                f"The {kind} {name!r} needs the package {error.name!r}, which is not installed."
                " Install vislang with its extras:"
                " pip install 'vislang[towers,data,search,images]'."
            ) from error
        if name in table:
            raise
        raise UserError(f"{kind} {name!r}: cannot import {module!r}: {error}.") from error
    except AttributeError as error:
        raise UserError(f"{kind} {name!r}: {module!r} has no {attribute!r}.") from error


def build_one(
    kind: str, table: Mapping[str, str], name: str, options: Mapping[str, Any] | None = None
) -> Any:
    """What `name` stands for, called with options; those it does not take are an error.

    Raises:
        UserError: the name or an option is unknown; the message names the known ones.
    """
    made = lookup(kind, table, name)
    known = [key for key in inspect.signature(made).parameters if key != "self"]
    check_options(f"The {kind} {name!r}", options or {}, known)
    return made(**(options or {}))


def check_options(what: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Refuse options that `what` does not take; the message names those that it does."""
    for key in given:
        if key not in known:
            raise UserError(
                f"{what} has no option {key!r}.{nearest(key, known)}"
                f" Known: {', '.join(known) or 'none'}."
            )


def build_several(
    kind: str,
    table: Mapping[str, str],
    names: Sequence[str],
    options: Mapping[str, Mapping[str, Any]],
) -> list[Any]:
    """Each name once, built with its options; options for one not asked for are an error."""
    if not names:
        raise UserError(f"Name at least one {kind}: {', '.join(table)}.")
    for name in options:
        if name not in names:
            raise UserError(
                f"There are options for {name!r}, which is no {kind} that was asked for:"
                f" {', '.join(names)}.{nearest(name, names)}"
            )
    return [build_one(kind, table, name, options.get(name)) for name in dict.fromkeys(names)]


def one_line(table: Mapping[str, str], name: str) -> str:
    """First line of the docstring of an entry, read without importing the module.

    Parsing the source instead of importing it keeps `vislang list` instant although most
    entries import torch.
    """
    import ast
    import re
    from importlib.util import find_spec

    module, _, attribute = table[name].partition(":")
    spec = find_spec(module)
    if spec is None or not spec.origin:
        return ""
    with open(spec.origin, encoding="utf-8") as file:
        source = file.read()
    # Parsing 64 whole modules would take 0.15 s: the definition's first lines are enough.
    found = re.search(
        rf"^(def|class) {attribute}\b.*?(?=\n    def |\n    @|\n[^\s)#]|\Z)", source, re.M | re.S
    )
    try:
        tree = ast.parse(found[0] if found else source)
    except SyntaxError:  # a docstring with lines at the margin
        tree = ast.parse(source)
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name != attribute:
            continue
        if text := ast.get_docstring(node):
            return text.strip().split("\n")[0]
    return (ast.get_docstring(ast.parse(source)) or "").strip().split("\n")[0]


def lazily(package: str, where: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose names load with the modules that hold them (PEP 562).

    >>> lazily("vislang.embed", {"embed_source": "vislang.embed.source"})("Embedder")
    Traceback (most recent call last):
    AttributeError: module 'vislang.embed' has no attribute 'Embedder'

    Args:
        package: the `__name__` of the package.
        where: name -> module.
    """

    def find(name: str) -> Any:
        if name in where:
            return getattr(importlib.import_module(where[name]), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
