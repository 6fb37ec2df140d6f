"""Which parameters of a tower are trained: locks by name and by groups of layers.

A parameter is locked if a pattern of `lock` matches its dotted name in the tower and no pattern of
`unlock` does; the order of patterns does not matter.  A pattern is a glob in which `*` also spans
dots (`*.ln_*`, `*resblocks.1.*`), or a group of layers:

    embeddings              what lies before the blocks
    layers:0-5  layers:3    blocks by number, from 0, both ends counted
    first:4  last:2         the first or the last blocks
    final                   what lies behind the blocks

Adapters and prompts are never locked: they are there to be trained, and while a tower has some its
own weights are locked unless `unlock` says otherwise.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from glob import escape

from torch import nn

from vislang.errors import UserError
from vislang.lookup import nearest
from vislang.models.layers import ADDED, Layers, find_layers

GROUP = re.compile(r"(embeddings|final)$|(layers):(\d+)(?:-(\d+))?$|(first|last):(\d+)$")
GROUPS = "embeddings, layers:A-B, first:N, last:N, final"


def lock_tower(
    tower: nn.Module, lock: Sequence[str] = (), unlock: Sequence[str] = (), where: str = "model"
) -> bool:
    """Take the locked parameters of a tower out of training; whether nothing is left in it.

    Args:
        tower: its parameters' `requires_grad` is changed.
        lock: patterns of what is locked.
        unlock: patterns of what is trained all the same.
        where: dotted place of the fields, for error messages.

    Raises:
        UserError: a pattern that matches nothing, or `unlock` where nothing is locked.
    """
    added = any(name.startswith(ADDED) for name, _ in tower.named_parameters())
    if added:
        lock = ("*", *lock)
    if not lock:
        if unlock:
            raise UserError(
                f"{where}.unlock is {list(unlock)}, but nothing is locked."
                f" Set {where}.lock, for example to '*'."
            )
        return False
    locked = locked_names(tower, lock, unlock, where)
    # Tied weights have several names; locked by one is locked.
    for name, parameter in tower.named_parameters(remove_duplicate=False):
        if name in locked:
            parameter.requires_grad_(False)
    return not any(parameter.requires_grad for parameter in tower.parameters())


def locked_names(
    tower: nn.Module, lock: Sequence[str], unlock: Sequence[str] = (), where: str = "model"
) -> set[str]:
    """Names of the parameters that `lock` matches and `unlock` does not."""
    layers = find_layers(tower)
    names = [name for name in layers.number if not name.startswith(ADDED)]
    sets = {
        field: set().union(*(_matching(p, names, layers, f"{where}.{field}") for p in patterns))
        for field, patterns in (("lock", lock), ("unlock", unlock))
    }
    return sets["lock"] - sets["unlock"]


def _matching(pattern: str, names: Sequence[str], layers: Layers, where: str) -> set[str]:
    if found := GROUP.match(pattern):
        wanted = _group(pattern, found, layers, where)
        return {name for name in names if layers.number[name] in wanted}
    # With a dot before it, `*.ln_*` also finds the `ln_final` of a tower's first level.
    matched = {n for n in names if fnmatchcase(n, pattern) or fnmatchcase(f".{n}", pattern)}
    if not matched:
        some = ", ".join(list(names)[:3])
        raise UserError(
            f"{where}: {pattern!r} matches no parameter.{nearest(pattern, names)} Give a glob of"
            f" names such as {some}, or one of {GROUPS}."
        )
    return matched


def _group(pattern: str, found: re.Match[str], layers: Layers, where: str) -> range:
    """The numbers of the layers that a group names."""
    blocks = len(layers.blocks)
    if found[1]:
        return range(1) if found[1] == "embeddings" else range(blocks + 1, blocks + 2)
    if found[2]:
        first, last = int(found[3]), int(found[4] or found[3])
        if not first <= last < blocks:
            raise UserError(
                f"{where}: {pattern!r} must lie within the tower's {blocks} layers,"
                f" layers:0-{blocks - 1}."
            )
        return range(first + 1, last + 2)
    count = int(found[6])
    if not 0 < count <= blocks:
        raise UserError(f"{where}: {pattern!r}, but the tower has {blocks} layers.")
    return range(1, count + 1) if found[5] == "first" else range(blocks - count + 1, blocks + 1)


def hold_statistics(tower: nn.Module) -> None:
    """Put batch norms whose own weights are locked into eval mode: their statistics rest as well.

    Call it after `train()`, which would wake them.
    """
    for module in tower.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            own = list(module.parameters())
            if own and not any(parameter.requires_grad for parameter in own):
                module.eval()


def from_keywords(locked: bool, keywords: str = "") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Our (lock, unlock) for ITRA's `--lock-image-model` and `--lock-image-partial`.

    There, keywords are parts of names.  With the lock flag a parameter is trained if some
    `!keyword` is in its name, and plain keywords do nothing; without it a parameter is locked if
    some plain keyword is in its name, and `!keywords` do nothing.

    >>> from_keywords(True, "!bias,!ln")
    (('*',), ('*bias*', '*ln*'))
    >>> from_keywords(False, "token_embedding,!bn")
    (('*token_embedding*',), ())
    """
    words = [word for word in keywords.split(",") if word]
    plain = tuple(f"*{escape(word)}*" for word in words if "!" not in word)
    marked = tuple(f"*{escape(word.replace('!', ''))}*" for word in words if "!" in word)
    return (("*",), marked) if locked else (plain, ())
