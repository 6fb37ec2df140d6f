"""Which tests `make check` leaves out: those listed in tests/slow.txt, measured, not guessed.

`make slow` runs the tests that have no mark `slow` of their own and writes the list anew, from
pytest's durations: functions that take more than 0.4 s, all their cases together.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

LIST = Path(__file__).parent / "slow.txt"
LONGEST_S = 0.4


def read_slow() -> set[str]:
    """Listed tests as "tests/test_x.py::test_y"."""
    return set(LIST.read_text().split()) if LIST.exists() else set()


def slow_of(lines: Iterable[str]) -> list[str]:
    """Tests that take too long, from the lines of `pytest --durations 0`.

    >>> slow_of(["0.50s call     tests/a.py::b[1]", "0.40s setup    tests/a.py::b[2]"])
    ['tests/a.py::b']
    """
    seconds: Counter[str] = Counter()
    for line in lines:
        if found := re.match(r"([\d.]+)s (?:call|setup|teardown)\s+(\S+?)(?:\[|$|\s)", line):
            seconds[found[2]] += float(found[1])  # type: ignore[assignment]
    return sorted(name for name, total in seconds.items() if total > LONGEST_S)


if __name__ == "__main__":
    slow = slow_of(sys.stdin)
    LIST.write_text("\n".join(slow) + "\n")
    print(f"{len(slow)} slow tests in {LIST}")
