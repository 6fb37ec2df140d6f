"""How many requests run at a time: more while that brings more, fewer when it does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LEAST = 4
_SPAN_S = 0.5  # over which a rate is measured at least
_STEP = 1.25
_BETTER = 1.03  # a rate that is so much higher is higher
_BROKEN = 0.5  # share of silent failures at which the net itself seems to be at its end


class Pace:
    """A number of requests between LEAST and `most` that climbs to the best rate and stays near.

    After each span in which as many requests ended as may run, and at least half a second, the
    rate is compared with that of the span before: a better one goes on in the same direction, any
    other turns round. The number doubles until that happens first, then it changes by a quarter.
    When more than half of the requests of a span get no answer at all, it is halved.

    Args:
        most: threads that there are.
        clock: seconds.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic):
        self.most, self._clock = most, clock
        self.limit = min(most, max(LEAST, 8))
        self._running = 0
        self._condition = threading.Condition()
        self._direction, self._rate, self._step = 1, 0.0, 2.0
        self._restart()

    def _restart(self) -> None:
        self._ended = self._silent = 0
        self._since = self._clock()

    def enter(self) -> None:
        """Wait until one more may run."""
        with self._condition:
            while self._running >= self.limit:
                self._condition.wait()
            self._running += 1

    def leave(self, answered: bool | None) -> None:
        """One has ended; None: it did nothing and does not count."""
        with self._condition:
            self._running -= 1
            if answered is not None:
                self._ended += 1
                self._silent += not answered
                self._adapt()
            self._condition.notify_all()

    def _adapt(self) -> None:
        seconds = self._clock() - self._since
        if seconds < _SPAN_S or self._ended < max(8, self.limit):
            return
        rate = (self._ended - self._silent) / seconds
        if self._silent > _BROKEN * self._ended:
            self.limit = max(min(LEAST, self.most), self.limit // 2)
            self._direction, self._step = 1, _STEP
        else:
            if rate <= self._rate * _BETTER:
                self._direction, self._step = -self._direction, _STEP
            step = max(1, round(self.limit * (self._step - 1)))
            wanted = self.limit + self._direction * step
            self.limit = min(self.most, max(min(LEAST, self.most), wanted))
        self._rate = rate
        self._restart()
