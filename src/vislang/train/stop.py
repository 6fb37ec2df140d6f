"""A clean stop on SIGINT or SIGTERM: finish the step, save, say how to go on."""

import signal
import threading
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist

from vislang.devices import processes

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """Training stopped because of a signal, after saving everything.

    Attributes:
        signal: the signal's number (exit code 128 + signal by convention).
        step: optimizer steps done and saved.
    """

    def __init__(self, signal_number: int, step: int, steps: int, checkpoint: Path):
        super().__init__(
            f"Stopped after step {step:,} of {steps:,}; it is saved in {checkpoint}."
            " Repeat the same command to go on."
        )
        self.signal, self.step = signal_number, step


class StopFlag:
    """Context in which SIGINT and SIGTERM set a flag instead of ending the process.

    A second SIGINT falls through to Python's own handler, for those in a hurry.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._old: dict[int, object] = {}

    def __enter__(self) -> "StopFlag":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.signal = number

    def anywhere(self, device: torch.device) -> int:
        """The signal that any process got, the same answer on all of them; 0 for none."""
        return largest_anywhere(self.signal, device)


def largest_anywhere(value: int, device: torch.device) -> int:
    """The largest of all processes' values, the same on all of them."""
    if processes().world == 1:
        return value
    flag = torch.tensor([value], dtype=torch.int64, device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return int(flag)
