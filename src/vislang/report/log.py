"""log.jsonl as curves, sessions and counts; torn or foreign lines are counted, never fatal."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vislang.report.values import Value, finite, read_values

FIRST_IDS = 8  # ids shown for each reason of rejection
NOT_CURVES = {"time", "step", "epoch", "kind", "parts"}


@dataclass
class Reason:
    """Samples rejected for one reason: their ids (a sample is met anew each epoch), and the first
    few with their origin.
    """

    ids: set[str] = field(default_factory=set)
    first: list[tuple[str, str]] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many different samples."""
        return len(self.ids)


@dataclass
class Log:
    """What the log of a run says.

    Args:
        curves: name -> {step: value}; losses of named parts are called "parts.<name>".
        not_finite: name -> first step at which it was NaN or infinite.
        evaluations: evaluation -> metric -> {step: Value}.
        rejected: reason -> Reason.
        episodes: lines about episodes, in order.
        flags: (step, text) of warnings that training wrote while it ran (collapse, for example).
        start: the last "start" line.
        sessions: [first, last] Unix time of each start, in order.
        end: the "end" line, if the run ended.
        stop: the last "stop" line that no later start followed.
        last_step: the last step that a line names.
        lines: how many lines could be read.
        notes: what could not be read, in sentences.
    """

    curves: dict[str, dict[int, float]] = field(default_factory=dict)
    not_finite: dict[str, int] = field(default_factory=dict)
    evaluations: dict[str, dict[str, dict[int, Value]]] = field(default_factory=dict)
    rejected: dict[str, Reason] = field(default_factory=dict)
    episodes: list[Mapping[str, Any]] = field(default_factory=list)
    flags: list[tuple[int, str]] = field(default_factory=list)
    start: Mapping[str, Any] = field(default_factory=dict)
    sessions: list[list[float]] = field(default_factory=list)
    end: Mapping[str, Any] | None = None
    stop: Mapping[str, Any] | None = None
    last_step: int = 0
    lines: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float | None:
        """Time spent in all sessions: from each start to the last line before the next one."""
        if not self.sessions:
            return finite(self.end.get("seconds")) if self.end else None
        return sum(last - first for first, last in self.sessions)

    def curve(self, name: str) -> list[tuple[int, float]]:
        """(step, value) in the order of steps."""
        return sorted(self.curves.get(name, {}).items())


def read_log(path: Path) -> Log:
    """Read log.jsonl; a missing file is an empty log with a note."""
    log = Log()
    try:
        file = path.open(encoding="utf-8", errors="replace")
    except OSError:
        log.notes.append(f"There is no {path.name}: no curves, no time, no rejected samples.")
        return log
    broken: list[int] = []
    last = 0
    with file:
        for last, text in enumerate(file, 1):
            line = _parse(text)
            if line is not None:
                log.lines += 1
                _take(log, line)
            elif text.strip():
                broken.append(last)
    _note_broken(log, broken, last, path.name)
    return log


def _parse(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None


def _note_broken(log: Log, broken: list[int], last: int, name: str) -> None:
    if not log.lines and not broken:
        log.notes.append(f"{name} is empty: no curves, no time, no rejected samples.")
    if broken and broken[-1] == last:
        log.notes.append(
            f"The last line of {name} is torn (the run was killed while writing, or is still"
            " writing); it is left out."
        )
        broken = broken[:-1]
    if broken:
        log.notes.append(
            f"{len(broken):,} line{'s' * (len(broken) > 1)} of {name} could not be read and"
            f" {'are' if len(broken) > 1 else 'is'} left out (first: line {broken[0]:,})."
        )


def _take(log: Log, line: Mapping[str, Any]) -> None:
    kind = line.get("kind")
    step = int(finite(line.get("step")) or 0)
    log.last_step = max(log.last_step, step)
    time = finite(line.get("time"))
    if kind == "start" or (not log.sessions and time is not None):
        log.sessions += [[time, time]] if time is not None else []
    elif time is not None:
        log.sessions[-1][1] = max(log.sessions[-1][1], time)
    if kind == "start":
        log.start, log.stop, log.end = line, None, None
    elif kind == "end":
        log.end = line
    elif kind == "stop":
        log.stop = line
    elif kind in ("train", "diagnostics"):
        _take_curves(log, line, step)
    elif kind == "eval":
        metrics = log.evaluations.setdefault(str(line.get("evaluation", "evaluation")), {})
        for name, value in read_values(line.get("values")).items():
            metrics.setdefault(name, {})[step] = value
    elif kind == "episode":
        log.episodes.append(line)
    elif kind == "rejected":
        reason = log.rejected.setdefault(str(line.get("reason") or "no reason given"), Reason())
        id_ = str(line.get("id", ""))
        if id_ not in reason.ids and len(reason.first) < FIRST_IDS:
            reason.first.append((id_, str(line.get("origin") or "")))
        reason.ids.add(id_)


def _take_curves(log: Log, line: Mapping[str, Any], step: int) -> None:
    flat = {key: item for key, item in line.items() if key not in NOT_CURVES}
    for prefix in ("parts", "values"):
        inner = line.get(prefix)
        if isinstance(inner, Mapping):
            dotted = "parts." if prefix == "parts" else ""
            flat |= {f"{dotted}{key}": item for key, item in inner.items()}
    for name, item in flat.items():
        value = finite(item)
        if value is not None:
            log.curves.setdefault(str(name), {})[step] = value
        elif isinstance(item, float):
            log.not_finite.setdefault(str(name), step)
    for text in line.get("flags") or ():
        log.flags.append((step, str(text)))
