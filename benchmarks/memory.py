"""What processes hold in memory, and the most of it while something runs.

Not `ru_maxrss`: that of a new process begins with what its parent held.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path


def held() -> int:
    """Bytes that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def held_by_tree(left_out: int = 0) -> int:
    """Bytes of this process and those below it: theirs alone, or their share of what is shared.

    Args:
        left_out: a process that does not count, nor what is below it.
    """
    found, total = [os.getpid()], 0
    for process in found:
        for task in Path(f"/proc/{process}/task").glob("*"):
            try:
                children = (task / "children").read_text().split()
            except OSError:
                continue
            found += [int(c) for c in children if int(c) != left_out]
        try:
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:  # it has just ended
            continue
        total += 1024 * int(text.partition("\nPss:")[2].split()[0])
    return total


class Peak:
    """The most bytes that `look` has told while the block runs.

    Args:
        look: what to ask, `held` or `held_by_tree`.
        every: seconds between two looks, which take time themselves: some milliseconds a process
            for `held_by_tree`.
    """

    def __init__(self, look: Callable[[], int], every: float):
        self.look, self.every, self._ended = look, every, threading.Event()

    def __enter__(self) -> "Peak":
        self.first = self.bytes = self.look()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(self.every):
            self.bytes = max(self.bytes, self.look())
