"""How long `vislang --help` and `vislang list` take, beside a bare Python.

Gate: both print what they should and end with 0.
"""

import json
import statistics
import subprocess
import sys
import time


def seconds(arguments: list[str], repeats: int) -> list[float]:
    """Wall-clock seconds of each of `repeats` runs of this Python with `arguments`."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return times


def main(repeats: int = 15) -> list[dict]:
    """Median seconds of each command, and how many times that of `python -c pass`."""
    for arguments, expected in ((["--help"], "commands:"), (["list"], "recipes\n  clip")):
        text = subprocess.run(
            [sys.executable, "-m", "vislang", *arguments],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert expected in text, text
    cases = {
        "python -c pass": ["-c", "pass"],
        "vislang --help": ["-m", "vislang", "--help"],
        "vislang list": ["-m", "vislang", "list"],
    }
    found: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):  # in turn, so that a busy moment hits all of them
        for name, arguments in cases.items():
            found[name] += seconds(arguments, 1)
    median = {name: statistics.median(times) for name, times in found.items()}
    bare = median.pop("python -c pass")
    return [
        {
            "benchmark": "startup",
            "case": name,
            "value": round(value, 4),
            "unit": "s",
            "reference": round(bare, 4),
            "reference_is": "python -c pass",
            "ratio": round(value / bare, 2),
            "target": "< 0.4 s",
            "met": value < 0.4,
        }
        for name, value in median.items()
    ]


if __name__ == "__main__":
    for line in main():
        print(json.dumps(line))
