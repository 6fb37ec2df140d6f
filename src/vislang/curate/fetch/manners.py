"""What a site asks of programs: opt-out headers, few requests at a time."""

from __future__ import annotations

import http.client
import threading
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from urllib.parse import urlsplit

from vislang.curate.fetch.network import Refused, host_of
from vislang.curate.fetch.robots import product

_NOT_WANTED = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
MOST_REST_S = 30.0  # a longer Retry-After is taken as this


def check_headers(headers: http.client.HTTPMessage, agent: str) -> None:
    """Refuse a picture whose site reserves it from being collected.

    X-Robots-Tag with noai, noimageai, noindex, noimageindex or none, for all or for us by name,
    and TDM-Reservation: 1 (W3C's TDM protocol).
    """
    for line in headers.get_all("TDM-Reservation") or ():
        if line.strip() == "1":
            raise Refused("opted out", "TDM-Reservation")
    for line in headers.get_all("X-Robots-Tag") or ():
        words = line.lower()
        name, colon, rest = words.partition(":")
        # "unavailable_after: 25 Jun" is a directive, and no agent's name either way.
        if colon and "," not in name and name.strip() not in (product(agent), "*"):
            continue
        for word in (rest if colon and "," not in name else words).split(","):
            if word.strip() in _NOT_WANTED:
                raise Refused("opted out", f"X-Robots-Tag: {word.strip()}")


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
        self._pauses: dict[str, float] = {}  # of hosts that asked for longer ones
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
        self._begin(host, now)
        return row, host, self._silent[host] >= self.give_up

    def _begin(self, host: str, now: float) -> None:
        self._busy[host] += 1
        self._next[host] = max(self._next[host], now + self._pauses.get(host, self.pause_s))

    def move(self, host: str, to: str, seconds: float) -> None:
        """A row that `take` gave out was led to another host, whose turn is waited for.

        No turn is kept while waiting, so rows that lead to one another's hosts cannot block.

        Raises:
            Refused: the other host was given up, or its turn does not come in time; the row
                then belongs to the other host all the same.
        """
        until = time.monotonic() + seconds
        with self._condition:
            self._busy[host] -= 1
            self._condition.notify_all()
            while True:
                now = time.monotonic()
                wait = self._next[to] - now
                if self._busy[to] < self.at_once and wait <= 0:
                    break
                if now >= until or self._silent[to] >= self.give_up:
                    self._busy[to] += 1
                    raise Refused("timeout", f"waiting for a turn at {to[:80]}")
                left = until - now
                self._condition.wait(min(left, wait) if wait > 0 else left)
            self._begin(to, now)

    def slower(self, host: str, pause_s: float) -> None:
        """A host asks for longer pauses than everyone gets."""
        with self._condition:
            if pause_s > self._pauses.get(host, self.pause_s):
                self._pauses[host] = pause_s
                self._next[host] = max(self._next[host], time.monotonic() + pause_s)

    def rest(self, host: str, seconds: float) -> None:
        """A host asks to be left alone for a while."""
        with self._condition:
            self._next[host] = max(self._next[host], time.monotonic() + min(seconds, MOST_REST_S))

    def done(self, host: str, answered: bool) -> None:
        """A row that `take` gave out is finished."""
        with self._condition:
            self._busy[host] -= 1
            self._silent[host] = 0 if answered else self._silent[host] + 1
            self._condition.notify_all()


def host_name(url: str) -> str:
    """Host of a URL as it is looked up; empty for what is none."""
    try:
        return host_of(urlsplit(url.strip(" ")))
    except (ValueError, Refused):
        return ""
