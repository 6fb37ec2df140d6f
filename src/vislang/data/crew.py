"""Loader processes: they make pieces of batches ahead of time and in order."""

from __future__ import annotations

import contextlib
import os
import signal
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from vislang.data.pieces import Batch, Joint, Pieces
from vislang.errors import UserError

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

# Samples handed to a worker at a time. A whole batch a worker would keep the first step waiting
# for the slowest of them, and shared memory would hold 2 x workers whole batches.
PIECE = 64
# Pieces that a worker may be ahead: of 224 x 224 pixels they are 300 MB of shared memory.
_MOST_AHEAD = 32

Part = tuple[int, np.ndarray]  # epoch, and indices of a batch or of a piece of it


class Crew:
    """Workers that live as long as this object; torch's DataLoader moves the tensors.

    Args:
        pieces: what they do.
        workers: how many processes.
        rows: samples of a batch on this process, for how far to work ahead (two batches).
    """

    def __init__(self, pieces: Pieces, workers: int, rows: int):
        self._pieces, self._workers = pieces, workers
        self._ahead = min(max(2, -(-2 * rows // (min(PIECE, rows) * workers))), _MOST_AHEAD)
        self._plan = _Plan()
        self._loader: DataLoader | None = None
        self._turn = 0

    def run(self, parts: Iterable[Part]) -> Iterator[Batch]:
        """The batches of `parts` in order; starting anew ends what was started before."""
        self._turn += 1
        return self._run(parts, self._turn)

    def close(self) -> None:
        """End the processes."""
        self._turn += 1
        self._loader = None

    def _run(self, parts: Iterable[Part], turn: int) -> Iterator[Batch]:
        self._check(turn)
        self._plan.begin(parts)
        joint, left = None, 0
        with _explained_death():
            for piece in self._open():
                self._check(turn)
                if "error" in piece:
                    raise UserError(piece["error"])
                if joint is None:
                    rows, left = self._plan.coming.popleft()
                    joint = Joint(rows)
                joint.add(piece)
                left -= 1
                if not left:
                    batch, joint = joint.batch(), None
                    del piece
                    yield batch
                    self._check(turn)

    def _check(self, turn: int) -> None:
        if turn != self._turn:
            raise RuntimeError("these batches were started again or closed; use the newer ones")

    def _open(self) -> Iterator[Batch]:
        from torch import Generator
        from torch.utils.data import DataLoader

        with _no_tokenizer_threads(), warnings.catch_warnings():
            # More workers than cores make sense where they wait for a disk or a network.
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            if self._loader is None:
                self._loader = DataLoader(
                    self._pieces,  # type: ignore[arg-type]
                    batch_size=None,
                    sampler=self._plan,
                    num_workers=self._workers,
                    collate_fn=_as_it_is,  # type: ignore[arg-type]
                    prefetch_factor=self._ahead,
                    persistent_workers=True,
                    worker_init_fn=_start_worker,
                    # Without its own generator it would draw a seed from torch's global one at each
                    # start, and a resumed run would see other dropout than an uninterrupted one.
                    generator=Generator(),
                )
            return iter(self._loader)


class _Plan:
    """The sampler of the DataLoader: cuts the parts of batches into pieces as it is asked."""

    def __init__(self) -> None:
        # (samples, pieces) of each batch that is on its way
        self.coming: deque[tuple[int, int]] = deque()
        self._parts: Iterable[Part] = ()

    def begin(self, parts: Iterable[Part]) -> None:
        self._parts = parts
        self.coming.clear()

    def __iter__(self) -> Iterator[Part]:
        for epoch, chosen in self._parts:
            count = max(1, -(-len(chosen) // PIECE))
            self.coming.append((len(chosen), count))
            for piece in np.array_split(chosen, count):
                yield epoch, piece


def _as_it_is(piece: Batch) -> Batch:
    return piece


def _start_worker(_: int) -> None:
    """Signals are the main process's to handle; torch itself gives a worker one thread."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def _no_tokenizer_threads() -> Iterator[None]:
    """While workers are forked: Hugging Face's tokenizers else warn in each of them."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


@contextlib.contextmanager
def _explained_death() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "exited unexpectedly" not in str(error) and "killed by signal" not in str(error):
            raise
        raise UserError(
            f"A loader process died: {str(error).splitlines()[0]} Mostly that is memory, or"
            " the shared memory of a container (/dev/shm): use fewer data.workers, or 0 to load in"
            " the training process and see the error itself."
        ) from error
