"""Fetching rows: threads that ask, processes that decode, and what is known of sites meanwhile."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vislang.curate.fetch.client import Caps, get
from vislang.curate.fetch.decoding import DecodeWorkers
from vislang.curate.fetch.manners import Hosts, check_headers, host_name
from vislang.curate.fetch.network import Network, Refused
from vislang.curate.fetch.pace import Pace
from vislang.curate.fetch.picture import Making
from vislang.curate.fetch.robots import Robots
from vislang.data.decode import Limits
from vislang.files import cores

_SILENT = ("timeout", "cannot resolve", "cannot connect")
_BUSY = ("http 429", "http 503")
_REST_S = 2.0  # for a host that is too busy and does not say for how long
# What changes how fast pictures come, and not what is written.
SPEED = ("threads", "per_host", "pause_s", "decode_workers")


@dataclass(frozen=True)
class Fetching:
    """How pictures are fetched.

    Args:
        layout: tar (webdataset) or folder.
        side: pixels of the shorter side of what is written.
        quality: of the JPEG.
        shard: rows of a unit.
        threads: requests at a time in one process, at most; fewer when more bring no more.
        per_host: of these, to one host.
        pause_s: seconds between the starts of two requests to one host.
        robots: respect robots.txt.
        opt_out: respect X-Robots-Tag and TDM-Reservation.
        caps: bytes, seconds and redirects of one picture.
        limits: pixels of one picture.
        max_side: pixels of the longer side of one picture.
        animated: of several frames take the "first", or "refuse" the picture.
        max_frames: a picture with more is refused in any case.
        decode_s: seconds of computing that one picture may take to decode.
        decode_workers: processes that decode; 0: one for each core.
    """

    layout: str = "tar"
    side: int = 224
    quality: int = 95
    shard: int = 1000
    threads: int = 32
    per_host: int = 2
    pause_s: float = 0.0
    robots: bool = True
    opt_out: bool = True
    caps: Caps = Caps()  # noqa: RUF009  frozen
    limits: Limits = Limits()  # noqa: RUF009  frozen
    max_side: int = 30_000
    animated: str = "first"
    max_frames: int = 1000
    decode_s: float = 10.0
    decode_workers: int = 0

    @property
    def making(self) -> Making:
        """What becomes of one picture."""
        return Making(
            self.side, self.quality, self.max_side, self.animated, self.max_frames, self.decode_s
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What the files depend on."""
        return {name: value for name, value in asdict(self).items() if name not in SPEED}


class Session:
    """What lasts from unit to unit in one process: decoders, pace, and sites' robots.txt."""

    def __init__(self, how: Fetching, network: Network):
        self.how, self.network = how, network
        self.robots = Robots(network, how.caps) if how.robots else None
        self.workers = DecodeWorkers(how.decode_workers or cores(), how.making, how.limits)
        self.pace = Pace(how.threads)

    def fetch(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[dict[str, Any], bytes | None]]:
        """(ledger row, JPEG or None) of each row."""
        urls = [str(row.get("url") or "") for row in rows]
        hosts = Hosts(urls, self.how.per_host, self.how.pause_s)
        out: list[Any] = [None] * len(rows)
        threads = [
            threading.Thread(target=self._work, args=(urls, hosts, out), daemon=True, name="fetch")
            for _ in range(min(self.how.threads, max(1, len(rows))))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return out

    def _work(self, urls: Sequence[str], hosts: Hosts, out: list[Any]) -> None:
        while True:
            self.pace.enter()
            answered: bool | None = None
            try:
                taken = hosts.take()
                if taken is None:
                    return
                place, host, silent = taken
                out[place], answered = self._row(urls[place], hosts, host, silent)
            finally:
                self.pace.leave(answered)

    def _row(
        self, url: str, hosts: Hosts, host: str, silent: bool
    ) -> tuple[tuple[dict[str, Any], bytes | None], bool | None]:
        """The ledger's row and JPEG, and whether the host answered (None: it was not asked)."""
        visit = _Visit(self, hosts, host)
        answered: bool | None = True
        try:
            if silent:
                raise Refused("timeout", "the host gave no answer several times in a row")
            return visit.fetch(url), True
        except Refused as refused:
            if refused.kind in _BUSY:
                hosts.rest(visit.host, _seconds(refused.detail))
            answered = refused.kind not in _SILENT
            row = {"status": refused.kind, "detail": refused.detail}
            return (row, None), (None if silent else answered)
        except Exception as error:  # whatever a hostile answer sets off is a row as well
            detail = f"{type(error).__name__}: {error}"[:200]
            return ({"status": "failed", "detail": detail}, None), True
        finally:
            hosts.done(visit.host, answered)

    def close(self) -> None:
        """End the decoding processes."""
        self.workers.close()


class _Visit:
    """One row on its way from hop to hop; `host` is the one whose turn it holds."""

    def __init__(self, session: Session, hosts: Hosts, host: str):
        self.session, self.hosts, self.host = session, hosts, host

    def fetch(self, url: str) -> tuple[dict[str, Any], bytes]:
        how = self.session.how
        look = (lambda headers: check_headers(headers, how.caps.agent)) if how.opt_out else None
        answer = get(url, self.session.network, how.caps, self._may, look)
        picture = self.session.workers.make(answer.body)
        made = {name: value for name, value in picture._asdict().items() if name != "jpeg"}
        note = {
            "status": "ok",
            "bytes": len(answer.body),
            "sha256": hashlib.sha256(answer.body).hexdigest(),
            "hops": answer.hops,
        }
        return note | made, picture.jpeg

    def _may(self, url: str) -> None:
        to = host_name(url)
        if to != self.host:
            began, self.host = self.host, to
            self.hosts.move(began, to, self.session.how.caps.seconds)
        if self.session.robots:
            delay = self.session.robots.check(url)
            if delay:
                self.hosts.slower(to, delay)


def _seconds(detail: str) -> float:
    found = re.search(r"retry after (\d{1,6})\b", detail)
    return float(found[1]) if found else _REST_S


_open: dict[int, Session] = {}  # process -> its session; a forked child makes its own


def session(how: Fetching, network: Network) -> Session:
    """The session of this process: the same one as long as it is asked for in the same way."""
    mine = _open.get(os.getpid())
    if mine is None or (mine.how, mine.network) != (how, network):
        close_session()
        mine = _open[os.getpid()] = Session(how, network)
    return mine


def close_session() -> None:
    """End what this process has open."""
    mine = _open.pop(os.getpid(), None)
    if mine is not None:
        mine.close()
