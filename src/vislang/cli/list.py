"""vislang list: what there is, one line each, without importing any of it."""

import argparse
import ast
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from vislang.errors import UserError
from vislang.lookup import nearest, one_line

# kind -> (module, name of the registry in it)
KINDS: dict[str, tuple[str, str]] = {
    "recipes": ("vislang.recipes", "RECIPES"),
    "towers": ("vislang.models.towers", "TOWERS"),
    "heads": ("vislang.models", "HEADS"),
    "decoders": ("vislang.models", "DECODERS"),
    "adapters": ("vislang.models.adapters", "ADAPTERS"),
    "tokenizers": ("vislang.models", "TOKENIZERS"),
    "objectives": ("vislang.objectives", "OBJECTIVES"),
    "sources": ("vislang.data.sources", "SOURCES"),
    "augments": ("vislang.data", "AUGMENTS"),
    "domains": ("vislang.data.domains.table", "DOMAINS"),
    "evaluations": ("vislang.evaluate", "EVALUATIONS"),
    "providers": ("vislang.curate.images", "PROVIDERS"),
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"vislang list: {message}. See `vislang list --help`.")


def list_parts(argv: Sequence[str] = ()) -> int:
    """Show what there is: recipes, towers, heads, adapters, objectives, sources, evaluations ...

    Args:
        argv: [KIND] [--json].
    """
    parser = _Parser("vislang list", description=(list_parts.__doc__ or "").split("\n")[0])
    parser.add_argument("kind", nargs="?", help=f"one of {', '.join(KINDS)}; default all")
    parser.add_argument("--json", action="store_true", help="as JSON: {kind: {name: line}}")
    try:
        arguments = parser.parse_args(list(argv))
    except SystemExit:  # after --help
        return 0
    kinds = [_known_kind(arguments.kind)] if arguments.kind else list(KINDS)
    found = {kind: dict(lines(kind)) for kind in kinds}
    if arguments.json:
        json.dump(found, sys.stdout, indent=2, ensure_ascii=False)
        print()
        return 0
    width = max((len(name) for parts in found.values() for name in parts), default=0) + 2
    for i, (kind, parts) in enumerate(found.items()):
        print(("\n" if i else "") + kind)
        for name, line in parts.items():
            print(f"  {name:<{width}}{line}")
    return 0


def lines(kind: str) -> list[tuple[str, str]]:
    """(name, first line of its docstring) of every entry of a kind."""
    if kind == "domains":  # records that say themselves what they are; they import nothing heavy
        from vislang.data.domains.names import domain_lines

        return domain_lines()
    table = registry(*KINDS[kind])
    return [(name, one_line(table, name)) for name in table]


def registry(module: str, name: str) -> dict[str, str]:
    """The literal dict `name` in a module's source, read without importing the module."""
    spec = find_spec(module)
    if spec is None or not spec.origin:
        return {}
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else (
            [node.target] if isinstance(node, ast.AnnAssign) else [])  # fmt: skip
        if any(isinstance(t, ast.Name) and t.id == name for t in targets):
            return ast.literal_eval(node.value)  # type: ignore[attr-defined]
    return {}


def _known_kind(kind: str) -> str:
    for known in KINDS:
        if kind in (known, known.removesuffix("s")):
            return known
    raise UserError(
        f"vislang list knows no {kind!r}.{nearest(kind, KINDS)} Known: {', '.join(KINDS)}."
    )
