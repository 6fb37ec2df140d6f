"""One offline page about a run, or about several side by side."""

from vislang.report.page import write_report

__all__ = ["write_report"]
