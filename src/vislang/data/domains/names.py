"""Names of domains, as a user gives them, to domains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from vislang.data.domains.corruptions import CIFAR, IMAGENET_C, SEVERITIES, corruption
from vislang.data.domains.domain import AXES, Domain
from vislang.data.domains.table import DOMAINS
from vislang.errors import UserError
from vislang.lookup import nearest

FAMILIES = {"cifar": (CIFAR, 4), "imagenet_c": (IMAGENET_C, 3)}  # with the usual severity


def open_domains(
    names: str | Iterable[str | Domain] = "described",
    *,
    sentences: Mapping[str, Sequence[str]] | None = None,
    axes: str = "corrected",
    trusted: bool = True,
) -> tuple[Domain, ...]:
    """Domains by name; "noop", which all others are compared with, comes in by itself.

    Args:
        names: each one a name of the 18 ("blur"), "described" for all of them, a family
            ("cifar", "imagenet_c", with "/3" at that severity), one corruption ("cifar/fog",
            "imagenet_c/snow/5"), your own "package.module:function", or a Domain.
        sentences: own operation -> its templates, each with {} for the class word.
        axes: of the background mask: "corrected", or "original" for the authors' swapped ones.
        trusted: whether the user typed the names; only then may they name any function.

    >>> [domain.name for domain in open_domains(["blur", "cifar/fog"])]
    ['noop', 'blur', 'cifar/fog/4']
    """
    if axes not in AXES:
        raise UserError(f"axes must be one of {', '.join(AXES)}, got {axes!r}.")
    given = names.split(",") if isinstance(names, str) else list(names)
    found: dict[str, Domain] = {}
    for name in given:
        for domain in (
            [name]
            if isinstance(name, Domain)
            else _named(name.strip(), dict(sentences or {}), trusted)
        ):
            if "axes" in domain.parameters and not isinstance(name, Domain):
                domain = replace(domain, parameters={**domain.parameters, "axes": axes})
            if found.get(domain.name, domain) != domain:
                raise UserError(f"Two different domains are called {domain.name!r}: rename one.")
            found[domain.name] = domain
    if "noop" not in found:
        found = {"noop": DOMAINS["noop"]} | found
    return tuple(found.values())


def own_domain(
    operation: str | Callable, sentences: Sequence[str], name: str = "", *, random: bool = False
) -> Domain:
    """A domain of your own: one function of pixels, and its sentences.

    Args:
        operation: "package.module:function", or the function where others can import it.
        sentences: templates with {} for the class word.
        name: by default the function's.
        random: whether the function takes `rng`.
    """
    if callable(operation):
        operation = f"{operation.__module__}:{operation.__qualname__}"
    made = (sentences,) if isinstance(sentences, str) else tuple(sentences)
    return Domain(name or operation.partition(":")[2], operation, made, random=random)


def domain_lines() -> list[tuple[str, str]]:
    """(name, what it does) of every domain, for `vislang list domains`."""
    found = [(name, domain.says) for name, domain in DOMAINS.items()]
    for family, (table, _) in FAMILIES.items():
        found += [(f"{family}/{name}", f"{row.says[:-1]}, severity 1 to 5.")
                  for name, row in table.items()]  # fmt: skip
    return found


def _named(name: str, sentences: Mapping[str, Sequence[str]], trusted: bool) -> list[Domain]:
    if name == "described":
        return list(DOMAINS.values())
    if name in DOMAINS:
        return [DOMAINS[name]]
    if ":" in name and trusted:
        if name not in sentences:
            raise UserError(
                f"The domain {name!r} has no sentences. Give them by its name, as in"
                f" {{{name}: ['a neon photo of a {{}}']}}."
            )
        return [own_domain(name, sentences[name])]
    family, *rest = name.split("/")
    if family in FAMILIES:
        return _corruptions(name, family, rest)
    known = [*DOMAINS, "described", *FAMILIES]
    own = " Your own: give 'package.module:function' and its sentences." if trusted else ""
    raise UserError(
        f"No domain is called {name!r}.{nearest(name, known)} Known: {', '.join(known)}"
        f" (cifar/fog, imagenet_c/snow/5).{own}"
    )


def _corruptions(name: str, family: str, rest: Sequence[str]) -> list[Domain]:
    table, severity = FAMILIES[family]
    if rest and rest[-1].isdigit():
        severity, rest = int(rest[-1]), rest[:-1]
    if severity not in SEVERITIES or len(rest) > 1 or (rest and rest[0] not in table):
        raise UserError(
            f"No domain is called {name!r}.{nearest(rest[0], table) if rest else ''} {family} has"
            f" {', '.join(table)}, with a severity of 1 to 5, as in {family}/fog/4."
        )
    return [corruption(family, one, severity) for one in (rest or table)]
