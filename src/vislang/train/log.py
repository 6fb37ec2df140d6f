"""The log of a run: JSON lines (canonical), TensorBoard (a copy), and a progress bar."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vislang.files import plain, write_whole

LOG = "log.jsonl"


def read_log(folder: Path) -> list[dict[str, Any]]:
    """All whole lines of a run's log; a line torn by a kill is left out."""
    path = Path(folder) / LOG
    lines = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
    return lines


class Log:
    """Append-only JSON lines; on resuming at a step, later lines (which will be run anew) go.

    Args:
        folder: the run folder.
        resume_step: steps already done; lines of later steps are dropped.
        active: whether this process writes (the first one does).
        tensorboard: also write event files.
    """

    def __init__(self, folder: Path, resume_step: int, active: bool, tensorboard: bool):
        self.file = self.writer = None
        if not active:
            return
        path = Path(folder) / LOG
        if path.exists():
            kept = [line for line in read_log(folder) if line.get("step", 0) <= resume_step]
            write_whole(path, "".join(json.dumps(line) + "\n" for line in kept))
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("a", encoding="utf-8")
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(Path(folder) / "tensorboard"), purge_step=resume_step)

    def add(self, kind: str, **fields: Any) -> None:
        """Append one line and flush it."""
        if self.file is None:
            return
        line = {"time": round(time.time(), 3), "kind": kind, **fields}
        self.file.write(json.dumps(plain(line), ensure_ascii=False) + "\n")
        self.file.flush()
        if self.writer is not None:
            self._scalars(kind, fields)

    def _scalars(self, kind: str, fields: Mapping[str, Any]) -> None:
        step = fields.get("step", 0)
        if kind == "train":
            flat = {k: v for k, v in fields.items() if isinstance(v, int | float) and k != "step"}
            flat |= {f"part/{k}": v for k, v in fields.get("parts", {}).items()}
            for name, value in flat.items():
                self.writer.add_scalar(f"train/{name}", value, step)  # type: ignore[union-attr]
        elif kind == "eval":
            for name, value in fields["values"].items():
                self.writer.add_scalar(  # type: ignore[union-attr]
                    f"{fields['evaluation']}/{name}", value["value"], step
                )

    def close(self) -> None:
        """Flush and close files."""
        if self.file is not None:
            self.file.close()
        if self.writer is not None:
            self.writer.close()


class Progress:
    """A bar with loss, samples/s and time left; on a plain stream, a line now and then."""

    def __init__(self, total: int, done: int, active: bool, every_s: float = 30.0):
        self.active, self.total, self.every_s = active, total, every_s
        self.last = self.start = time.monotonic()
        self.first = done
        self.bar = None
        if active and sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=done, unit="step", dynamic_ncols=True)

    def update(self, step: int, loss: float, rate: float) -> None:
        """`step` steps are done; `rate` in samples/s."""
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {loss:.4f}, {rate:,.0f} samples/s", refresh=False)
            self.bar.update(step - self.bar.n)
        elif self.active and time.monotonic() - self.last >= self.every_s:
            self.last = time.monotonic()
            left = (self.last - self.start) / max(1, step - self.first) * (self.total - step)
            print(
                f"step {step:,} of {self.total:,}, loss {loss:.4f}, {rate:,.0f} samples/s,"
                f" {left / 60:.1f} min left",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        """Leave the bar where it is."""
        if self.bar is not None:
            self.bar.close()


class Meter:
    """Samples per second and the share of the time spent waiting for data, since last read."""

    def __init__(self) -> None:
        self.samples, self.waited, self.rate = 0, 0.0, 0.0
        self.since = time.monotonic()

    def watch(self, batches: Iterator) -> Iterator:
        """Pass batches on, timing the wait for each."""
        while True:
            start = time.monotonic()
            batch = next(batches, None)
            self.waited += time.monotonic() - start
            if batch is None:
                return
            yield batch

    def count(self, rows: int) -> None:
        """Note that a step over `rows` samples is done."""
        self.samples += rows

    def read(self) -> dict[str, float]:
        """Rates since the last call."""
        now = time.monotonic()
        elapsed = max(now - self.since, 1e-9)
        self.rate = self.samples / elapsed
        share = self.waited / elapsed
        self.samples, self.waited, self.since = 0, 0.0, now
        return {"samples_per_s": round(self.rate, 2), "data_wait": round(share, 4)}
