"""Looking up names within a time limit, which the operating system's own call does not have.

A lookup runs in one of a few threads of this process; a caller waits for it as long as it likes.
A thread that hangs in the system's call cannot be ended, so there is a bounded number of them:
when all hang, further lookups wait for their time and fail, and nothing piles up.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

Resolver = Callable[[str, int], list[str]]

THREADS = 32
KEPT, KEPT_S = 10_000, 60.0  # names, and seconds, that an answer is used again


def ask_system(host: str, port: int) -> list[str]:
    """Addresses of a host as numbers, in the order in which the system would try them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Names:
    """Lookups of one process.

    Args:
        threads: lookups at the same time.
    """

    def __init__(self, threads: int = THREADS):
        self._most, self._started, self._idle = threads, 0, 0
        self._lock = threading.Lock()
        self._waiting: queue.SimpleQueue[_Question] = queue.SimpleQueue()
        self._known: OrderedDict[tuple[object, str, int], tuple[float, list[str]]] = OrderedDict()

    def find(self, resolver: Resolver, host: str, port: int, seconds: float) -> list[str]:
        """Addresses of a host; found ones are kept for a minute.

        Raises:
            TimeoutError: no answer in time.
            OSError: there is no such host.
        """
        key = (resolver, host, port)
        with self._lock:
            when, addresses = self._known.get(key, (0.0, []))
            if addresses and time.monotonic() - when < KEPT_S:
                return addresses
        question = _Question(resolver, host, port)
        with self._lock:
            if not self._idle and self._started < self._most:
                self._started += 1
                threading.Thread(target=self._work, daemon=True, name="names").start()
        self._waiting.put(question)
        if not question.answered.wait(max(seconds, 0.0)):
            question.given_up = True
            raise TimeoutError(f"no answer within {seconds:.3g} s")
        if question.error is not None:
            raise question.error
        with self._lock:
            self._known[key] = time.monotonic(), question.addresses
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return question.addresses

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            question = self._waiting.get()
            with self._lock:
                self._idle -= 1
            if question.given_up:  # nobody waits for it any more
                continue
            try:
                question.addresses = question.resolver(question.host, question.port)
            except Exception as error:
                question.error = error
            question.answered.set()


class _Question:
    def __init__(self, resolver: Resolver, host: str, port: int):
        self.resolver, self.host, self.port = resolver, host, port
        self.answered = threading.Event()
        self.given_up = False
        self.addresses: list[str] = []
        self.error: Exception | None = None
