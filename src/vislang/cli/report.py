"""vislang report: one offline page of a run, or of several side by side."""

from pathlib import Path


def report(runs: list[Path], *, out: Path | None = None) -> None:
    """Write one HTML page of a run, or of several compared; it opens offline.

    Args:
        runs: run folders, or one folder of a sweep.
        out: page to write; default report.html in the (first) run folder.
    """
    from vislang.report import write_report

    print(f"Report: {write_report(runs, out or runs[0] / 'report.html').resolve()}")
