"""robots.txt as RFC 9309 reads it: groups by name, * and $ in paths, the longest rule counts."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from urllib.parse import quote, urlsplit

from vislang.curate.fetch.client import Caps, get
from vislang.curate.fetch.network import Network, Refused, request_target

_MOST_BYTES = 512_000  # of robots.txt to read at least: section 2.5
_MOST_RULES, _MOST_LINE = 5_000, 2_048  # what more there is would only cost time
_MOST_SITES = 10_000  # remembered at a time
MOST_DELAY_S = 10.0  # a longer Crawl-delay is taken as this: a host could else hold up a job
_PLAIN = re.compile(rb"[A-Za-z0-9._~-]")


@dataclass(frozen=True)
class Rules:
    """What a site asks of one program.

    Args:
        paths: (pattern, whether it opens).
        delay_s: between two requests.
    """

    paths: tuple[tuple[str, bool], ...] = ()
    delay_s: float = 0.0

    def open_to(self, target: str) -> bool:
        """Whether a path with its query may be asked for; of equally long rules one that opens.

        >>> rules = read_rules("User-agent: *\\nDisallow: /*.jpg$\\nAllow: /a/", "us")
        >>> [rules.open_to(path) for path in ("/b.jpg", "/b.jpg?x", "/a/b.jpg", "/")]
        [False, True, False, True]
        """
        target = same_spelling(target)
        found = max(
            ((len(pattern), opens) for pattern, opens in self.paths if _fits(pattern, target)),
            default=(0, True),
        )
        return found[1] or target == "/robots.txt"


def product(agent: str) -> str:
    """The name by which sites address a program: 'Us/1.0 (+https://...)' is 'us'."""
    return re.split(r"[/\s(]", agent.strip(), maxsplit=1)[0].lower()


def read_rules(text: str, agent: str) -> Rules:
    """The rules of all groups that name us, else of those for everyone."""
    ours: dict[bool, list[tuple[str, bool]]] = {True: [], False: []}
    delay = {True: 0.0, False: 0.0}
    named = {True: False, False: False}  # by us: True, by everyone: False
    current: set[bool] = set()
    in_names, me = False, product(agent)
    for line in text.removeprefix("\ufeff").splitlines():
        key, colon, value = line[:_MOST_LINE].partition("#")[0].partition(":")
        key, value = key.strip().lower(), value.strip()
        if not colon:
            continue
        if key == "user-agent":
            if not in_names:
                current = set()
            in_names = True
            if value == "*" or product(value) == me:
                current.add(value != "*")
                named[value != "*"] = True
            continue
        if key in ("allow", "disallow", "crawl-delay"):  # others, as Sitemap, are of no group
            in_names = False
        for group in current:
            if key in ("allow", "disallow") and value and len(ours[group]) < _MOST_RULES:
                ours[group].append((same_spelling(value), key == "allow"))
            elif key == "crawl-delay":
                delay[group] = _seconds(value)
    us = named[True]
    return Rules(tuple(ours[us]), delay[us])


def _seconds(value: str) -> float:
    return min(MOST_DELAY_S, float(value)) if re.fullmatch(r"\d{1,9}(\.\d+)?", value) else 0.0


def same_spelling(path: str) -> str:
    """Escapes of plain characters undone, other escapes in capitals, anything else escaped.

    >>> same_spelling("/%61%2f\\u00e9*$")
    '/a%2F%C3%A9*$'
    """
    path = quote(path, safe="/%:=&?~+!$,;'@()*[]", errors="replace")

    def plain(match: re.Match[str]) -> str:
        byte = bytes.fromhex(match[1])
        return byte.decode() if _PLAIN.fullmatch(byte) else match[0].upper()

    return re.sub("%([0-9A-Fa-f]{2})", plain, path)


def _fits(pattern: str, target: str) -> bool:
    """Whether the target begins with the pattern; by pieces between stars, so in linear time."""
    ends = pattern.endswith("$")
    first, *rest = pattern.removesuffix("$").split("*")
    if not target.startswith(first):
        return False
    at = len(first)
    if ends:
        if not rest:
            return at == len(target)
        last = rest.pop()
    for piece in rest:
        at = target.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return not ends or (target.endswith(last) and len(target) - len(last) >= at)


class Robots:
    """robots.txt of each site, read once. RFC 9309: 4xx allows everything, no answer nothing."""

    def __init__(self, network: Network, caps: Caps):
        self.network = network
        self.caps = replace(caps, max_bytes=_MOST_BYTES)
        self._known: OrderedDict[str, _Site] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, url: str) -> float:
        """Refuse a URL that robots.txt closes to us; else the seconds that it asks between two."""
        parts, host, port = self.network.split(url)
        name = f"[{host}]" if ":" in host else host
        site = f"{parts.scheme}://{name}:{port}"
        with self._lock:
            known = self._known.setdefault(site, _Site())
            self._known.move_to_end(site)
            if len(self._known) > _MOST_SITES:
                self._known.popitem(last=False)
        with known.lock:
            if known.rules is None:
                known.rules = self._read(site)
        if isinstance(known.rules, str):
            raise Refused("robots.txt", known.rules)
        if not known.rules.open_to(request_target(urlsplit(url))):
            raise Refused("robots.txt", "closed to us")
        return known.rules.delay_s

    def _read(self, site: str) -> Rules | str:
        try:
            answer = get(f"{site}/robots.txt", self.network, self.caps, cut=True)
        except Refused as refused:
            gone = refused.kind.startswith("http 4") and refused.kind != "http 429"
            return Rules() if gone else f"no answer ({refused.kind})"
        return read_rules(answer.body.decode("utf-8", "replace"), self.caps.agent)


class _Site:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.rules: Rules | str | None = None
