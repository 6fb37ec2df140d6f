"""Workers that count spans side by side; one that a page kills is replaced, the page left out."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vislang.curate.words.rules import Rules
from vislang.curate.words.worker import NO_MEMORY, write_span
from vislang.errors import UserError
from vislang.files import plain

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(2));"
    "from vislang.curate.words.worker import main; main()"
)


class Crew:
    """Some processes; a span is given to an idle one, and its note comes back.

    Args:
        workers: processes.
        rules: what counts.
        folder: of the job.
        seconds: of processor time that a page may take.
        memory: bytes that a process may have for its data.
        on_done: called with (span's name, note) when a span is finished.
    """

    def __init__(self, workers: int, rules: Rules, folder: Path, seconds: float, memory: int,
                 on_done: Callable[[str, Mapping[str, Any]], None]):  # fmt: skip
        settings = {"rules": asdict(rules), "folder": str(folder), "seconds": seconds}
        self._settings = json.dumps(plain(settings | {"memory": memory}))
        self._on_done = on_done
        self._select = selectors.DefaultSelector()
        self._most, self._workers = max(1, workers), 0
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self.failed = ""

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in [*self._idle, *self._busy]:
            worker.end()
        self._select.close()

    def submit(self, span: dict[str, Any], texts: list[str]) -> None:
        """Give a span to a worker, waiting for one.

        Raises:
            UserError: a worker could not write; what was finished before stays.
        """
        while not self._idle and self._workers == self._most:
            self._wait()
        worker = self._idle.pop() if self._idle else self._new()
        self._give(worker, span, texts)

    def finish(self) -> None:
        """Wait for all spans."""
        while self._busy:
            self._wait()

    def _new(self) -> _Worker:
        self._workers += 1
        worker = _Worker(self._settings)
        self._select.register(worker.answers, selectors.EVENT_READ, worker)
        return worker

    def _give(self, worker: _Worker, span: dict[str, Any], texts: list[str]) -> None:
        worker.span, worker.texts, worker.place = span, texts, -1
        self._busy.add(worker)
        with contextlib.suppress(BrokenPipeError):  # it died; _wait sees its end
            write_span(worker.questions, span, texts)

    def _wait(self) -> None:
        for key, _ in self._select.select():
            worker: _Worker = key.data
            lines = worker.read()
            if lines is None:
                self._replace(worker)
                continue
            for kind, _, rest in (line.partition(b" ") for line in lines):
                if kind == b"p":
                    worker.place = int(rest)
                    continue
                self._busy.discard(worker)
                self._idle.append(worker)
                if kind == b"e":
                    raise UserError(json.loads(rest))
                self._on_done(worker.span["name"], json.loads(rest))
                worker.span, worker.texts = {}, []

    def _replace(self, dead: _Worker) -> None:
        """Count the span again without the page that ended its worker."""
        self._select.unregister(dead.answers)
        self._workers -= 1
        self._busy.discard(dead)
        status = dead.end()
        if dead in self._idle:  # it had nothing to do; another one will be started when needed
            self._idle.remove(dead)
            return
        if status == -signal.SIGKILL:
            raise UserError(
                "A process that counts words was killed from outside (by the system, for lack of"
                " memory?). Repeat the command to go on, perhaps with fewer --workers."
            )
        known = {-signal.SIGPROF: "takes too long", NO_MEMORY: "takes too much memory"}
        if dead.place < 0 or (status >= 0 and status not in known):
            raise UserError(
                f"A process that counts words ended with status {status}; what it said is above."
                " Repeat the command to go on."
            )
        reason = known.get(status, "ends the parser")
        span = dict(dead.span)
        span["without"] = span["without"] | {str(dead.place): reason}
        self._give(self._new(), span, dead.texts)


class _Worker:
    """A child process and what it is at."""

    def __init__(self, settings: str):
        environment = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, settings, json.dumps(sys.path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
        )  # fmt: skip
        self.questions: Any = self._process.stdin
        self.answers: Any = self._process.stdout
        self.span: dict[str, Any] = {}
        self.texts: list[str] = []
        self.place = -1
        self._rest = b""

    def read(self) -> list[bytes] | None:
        """Whole lines that came; None at its end."""
        data = os.read(self.answers.fileno(), 1 << 16)
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines

    def end(self) -> int:
        """Stop it if it still runs; returns its status."""
        with contextlib.suppress(BrokenPipeError):
            self.questions.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5 if self.span else 5)
        self._process.kill()
        status = self._process.wait()
        self.answers.close()
        return status
