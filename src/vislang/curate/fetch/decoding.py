"""A few processes that decode what came from outside, each replaced when it dies of it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict

from vislang.curate.fetch.child import ANSWER, MARK, QUESTION
from vislang.curate.fetch.network import Refused
from vislang.curate.fetch.picture import FORMATS, Making, Picture
from vislang.data.decode import Limits

_START = (
    "import json, sys; given = json.loads(sys.argv[1]); sys.path[:] = given.pop('path');"
    "from vislang.curate.fetch.child import main; main(given)"
)
# What a child may say of a picture that it could not make.
KINDS = (
    "not an image", "svg", "animated", "too many pixels", "too many frames", "too much memory",
    "cannot decode", "truncated image", "empty file", "file too large",
)  # fmt: skip
_WALL = 6.0  # times the seconds of computing that a picture may take: the machine may be busy
_START_S = 60.0


class DecodeWorkers:
    """Processes that make pictures; safe to be used by several threads.

    Args:
        count: of processes; one is started when it is first needed.
        how: what to make.
        limits: pixels and bytes of one picture.
    """

    def __init__(self, count: int, how: Making, limits: Limits):
        self.how, self.limits, self.crashes = how, limits, 0
        self._idle: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        for _ in range(max(1, count)):
            self._idle.put(None)
        self._all: set[_Child] = set()
        self._lock = threading.Lock()
        self._closed = False

    def make(self, data: bytes) -> Picture:
        """A picture of what came.

        Raises:
            Refused: it is none, or beyond a limit, or the process died of it.
        """
        if len(data) > self.limits.max_bytes:
            raise Refused("file too large", f"{len(data):,} bytes")
        child = self._idle.get()
        try:
            if child is None or not child.alive():
                child = self._start()
            return child.ask(data, _WALL * self.how.decode_s, self._most())
        except BaseException as error:
            if not isinstance(error, Refused) or getattr(error, "deadly", False):
                with self._lock:
                    self.crashes += 1
                    self._all.discard(child)  # type: ignore[arg-type]
                if child is not None:
                    child.end()
                child = None
            raise
        finally:
            self._idle.put(child)

    def _most(self) -> int:
        """Bytes of a JPEG that a child can have made honestly."""
        return 4 * self.limits.max_pixels + (1 << 20)

    def _start(self) -> _Child:
        child = _Child(self.how, self.limits)
        with self._lock:
            self._all.add(child)
        return child

    def close(self) -> None:
        """End the processes."""
        with self._lock:
            children, self._all = self._all, set()
        for child in children:
            child.end()


class _Child:
    def __init__(self, how: Making, limits: Limits):
        given = {"path": sys.path, "making": asdict(how), "limits": asdict(limits)}
        kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")  # no keys, no proxies
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[name] = "1"  # else each holds address space for every core
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _START, json.dumps(given)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=environment, bufsize=0, start_new_session=True, cwd=os.sep,
        )  # fmt: skip
        assert self._process.stdin and self._process.stdout
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        with contextlib.suppress(ImportError, AttributeError, OSError):  # Linux: fewer turns
            import fcntl

            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, 1 << 20)
        self._seconds_more = _START_S

    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, data: bytes, seconds: float, most: int) -> Picture:
        """Send bytes, wait for the answer, believe only what can be true of it."""
        deadline = time.monotonic() + seconds + self._seconds_more
        try:
            self._send(memoryview(QUESTION.pack(len(data)) + data), deadline)
            mark, ok, *numbers, form, size = ANSWER.unpack(self._receive(ANSWER.size, deadline))
            if mark != MARK or size > most or form >= len(FORMATS):
                raise _Dead("cannot decode", "the decoding process gave no sensible answer")
            body = self._receive(size, deadline)
        except TimeoutError as error:
            raise _Dead("decoding took too long", f"{seconds:g} s") from error
        except OSError as error:
            raise _Dead(*self._fate()) from error
        self._seconds_more = 0.0
        if not ok:
            kind, _, detail = body.decode("utf-8", "replace").partition("\0")
            raise Refused(kind if kind in KINDS else "cannot decode", detail[:200])
        if body[:3] != b"\xff\xd8\xff" or 0 in numbers:
            raise _Dead("cannot decode", "the decoding process gave no sensible answer")
        width, height, original_width, original_height, frames = numbers
        return Picture(body, width, height, original_width, original_height, frames, FORMATS[form])

    def _fate(self) -> tuple[str, str]:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.returncode or 0
        if code == -signal.SIGXCPU:
            return "decoding took too long", "of its time for computing"
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return "decoding crashed", name

    def _send(self, view: memoryview, deadline: float) -> None:
        while view:
            self._wait(self._in, select.POLLOUT, deadline)
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(self._in, view[: 1 << 20]) :]

    def _receive(self, size: int, deadline: float) -> bytes:
        got = bytearray()
        while len(got) < size:
            self._wait(self._out, select.POLLIN, deadline)
            part = os.read(self._out, min(1 << 20, size - len(got)))
            if not part:
                raise BrokenPipeError
            got += part
        return bytes(got)

    def _wait(self, fd: int, what: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(fd, what)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError

    def end(self) -> None:
        """Kill it; nothing that it holds is worth an orderly end."""
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()


class _Dead(Refused):
    """The process must be replaced."""

    deadly = True
