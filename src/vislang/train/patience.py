"""Which of a run's models is the best on its valid source, and when to wait no longer.

All of it is read from the log, so that a run that is resumed decides as one left alone.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vislang.config import RunConfig
from vislang.errors import UserError
from vislang.lookup import nearest
from vislang.train.log import read_log
from vislang.train.stop import largest_anywhere


class Watched(NamedTuple):
    """A value that an evaluation found.

    Args:
        step: of the model.
        name: evaluation.metric.
        value: as it was found.
        sign: 1 where more is better, -1 where less is.
        found: the whole entry of the log, with its interval.
    """

    step: int
    name: str
    value: float
    sign: int
    found: Mapping[str, Any]


def watched(lines: Iterable[Mapping[str, Any]], watch: str = "") -> list[Watched]:
    """The values of `run.watch`, one for each evaluated step, in the order of the log.

    Raises:
        UserError: evaluations were made, but none gives that value.
    """
    sign = -1 if watch.startswith("-") else 1
    name = watch.removeprefix("-")
    found: dict[int, Watched] = {}
    known: dict[str, None] = {}
    for line in lines:
        if line.get("kind") != "eval":
            continue
        for metric, entry in line["values"].items():
            full = f"{line['evaluation']}.{metric}"
            known[full] = None
            name = name or full
            value = entry.get("value") if isinstance(entry, Mapping) else None
            if full == name and isinstance(value, int | float) and math.isfinite(value):
                found[line["step"]] = Watched(line["step"], name, float(value), sign, entry)
    if known and not found:
        raise UserError(
            f"run.watch is {watch!r}, which no evaluation gives.{nearest(name, known)}"
            f" There are {', '.join(known)}."
        )
    return list(found.values())


def best(values: Iterable[Watched]) -> Watched | None:
    """The best value; of equals the earliest."""
    return max(values, key=lambda one: (one.sign * one.value, -one.step), default=None)


class Patience:
    """Ends a run that does not become better (`run.patience`).

    Args:
        config: the run's.
        folder: the run folder, in whose log the evaluations lie.
        judged: whether there is anything that evaluates the model.
        device: of this process.
    """

    def __init__(self, config: RunConfig, folder: Path, judged: bool, device: torch.device):
        if config.patience < 0:
            raise UserError(f"run.patience must not be negative, got {config.patience}.")
        if config.patience and not judged:
            raise UserError(
                f"run.patience={config.patience} waits for evaluations to become better, but there"
                " are none: give data.valid and run.evaluations, or set run.patience to 0."
            )
        self.most, self.watch = config.patience, config.watch
        self.folder, self.device = folder, device

    def __bool__(self) -> bool:
        return self.most > 0

    def best_step(self) -> set[int]:
        """The step of the best model so far, if any."""
        top = best(watched(read_log(self.folder), self.watch)) if self else None
        return {top.step} if top else set()

    def is_over(self) -> bool:
        """Whether so many evaluations in a row were not better; the same on all processes."""
        if not self:
            return False
        over = False
        values = watched(read_log(self.folder), self.watch)  # the first process has the log
        if top := best(values):
            over = sum(one.step > top.step for one in values) >= self.most
        return bool(largest_anywhere(int(over), self.device))
