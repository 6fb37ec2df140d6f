"""What a site asks of programs: robots.txt, opt-out headers, few requests at a time."""

from __future__ import annotations

import http.client
import threading
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import urlsplit
from urllib.robotparser import RobotFileParser

from vislang.curate.fetch.client import Caps, get
from vislang.curate.fetch.network import Network, Refused

_NOT_WANTED = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
_MOST_ROBOTS = 512_000  # bytes of robots.txt to read at least: RFC 9309, section 2.5


def check_headers(headers: http.client.HTTPMessage, agent: str) -> None:
    """Refuse a picture whose site reserves it from being collected.

    X-Robots-Tag with noai, noimageai, noindex, noimageindex or none, for all or for us by name,
    and TDM-Reservation: 1 (W3C's TDM protocol).
    """
    if headers.get("TDM-Reservation", "").strip() == "1":
        raise Refused("opted out", "TDM-Reservation")
    for line in headers.get_all("X-Robots-Tag") or ():
        words = line.lower()
        name, colon, rest = words.partition(":")
        # "unavailable_after: 25 Jun" is a directive, and no agent's name either way.
        if colon and "," not in name and name.strip() != agent.lower():
            continue
        for word in (rest if colon and "," not in name else words).split(","):
            if word.strip() in _NOT_WANTED:
                raise Refused("opted out", f"X-Robots-Tag: {word.strip()}")


class Robots:
    """robots.txt of each site, read once. RFC 9309: 4xx allows everything, no answer nothing."""

    def __init__(self, network: Network, caps: Caps):
        self.network = network
        self.caps = replace(caps, max_bytes=_MOST_ROBOTS)
        self._known: dict[str, RobotFileParser | str] = {}
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()

    def check(self, url: str) -> None:
        """Refuse a URL that robots.txt closes to us."""
        parts = urlsplit(url)
        site = f"{parts.scheme}://{parts.netloc}"
        with self._lock:
            lock = self._locks[site]
        with lock:
            if site not in self._known:
                self._known[site] = self._read(site)
            known = self._known[site]
        if isinstance(known, str):
            raise Refused("robots.txt", known)
        if not known.can_fetch(self.caps.agent, url):
            raise Refused("robots.txt", "closed to us")

    def _read(self, site: str) -> RobotFileParser | str:
        rules = RobotFileParser()
        try:
            answer = get(f"{site}/robots.txt", self.network, self.caps)
            rules.parse(answer.body.decode("utf-8", "replace").splitlines())
        except Refused as refused:
            if refused.kind == "too many bytes" or refused.kind.startswith("http 4"):
                rules.parse([])
                return rules
            return f"no answer ({refused.kind})"
        return rules


class Hosts:
    """Hands out rows so that no host gets more than a few requests at a time.

    Rows of hosts that are busy wait while others go on; a host that several times in a row did
    not answer is given up, so that one dead host with many pictures does not hold up the rest.

    Args:
        urls: of the rows.
        at_once: requests to one host at the same time.
        pause_s: seconds from the start of a request to the start of the host's next one.
        give_up: failures to answer in a row after which a host's other rows are refused.
    """

    def __init__(self, urls: Sequence[str], at_once: int = 2, pause_s: float = 0.0,
                 give_up: int = 5):  # fmt: skip
        self._rows: dict[str, deque[int]] = defaultdict(deque)
        for row, url in enumerate(urls):
            self._rows[host_name(url)].append(row)
        self.at_once, self.pause_s, self.give_up = at_once, pause_s, give_up
        self._turn: deque[str] = deque(self._rows)
        self._busy: dict[str, int] = defaultdict(int)
        self._next: dict[str, float] = defaultdict(float)
        self._silent: dict[str, int] = defaultdict(int)
        self._condition = threading.Condition()

    def take(self) -> tuple[int, str, bool] | None:
        """(row, host, whether the host was given up), waiting for one; None when all are out."""
        with self._condition:
            while self._turn:
                now, soonest = time.monotonic(), None
                for _ in range(len(self._turn)):
                    host = self._turn.popleft()
                    wait = self._next[host] - now
                    if self._busy[host] < self.at_once and wait <= 0:
                        return self._given(host, now)
                    self._turn.append(host)
                    if self._busy[host] < self.at_once:
                        soonest = wait if soonest is None else min(soonest, wait)
                self._condition.wait(soonest)
            return None

    def _given(self, host: str, now: float) -> tuple[int, str, bool]:
        row = self._rows[host].popleft()
        if self._rows[host]:
            self._turn.append(host)
        self._busy[host] += 1
        self._next[host] = now + self.pause_s
        return row, host, self._silent[host] >= self.give_up

    def done(self, host: str, answered: bool) -> None:
        """A row that `take` gave out is finished."""
        with self._condition:
            self._busy[host] -= 1
            self._silent[host] = 0 if answered else self._silent[host] + 1
            self._condition.notify_all()


def host_name(url: str) -> str:
    """Host of a URL, lower case; empty for what is none."""
    try:
        return (urlsplit(url.strip()).hostname or "").lower()
    except ValueError:
        return ""
