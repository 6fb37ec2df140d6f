"""Pictures of samples under domains, made by loader processes: decode once, share what can be.

T: domains, h, w: the size that a tower wants.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from vislang.data.decode import Limits, decode_sample
from vislang.data.domains import each_domain
from vislang.data.sample import BadSample, Source
from vislang.errors import UserError
from vislang.resize import prepare_image

if TYPE_CHECKING:
    from torch import Tensor

    from vislang.data.domains.domain import Domain
    from vislang.preprocess import Preprocess


class Views(NamedTuple):
    """One sample under all domains.

    Args:
        id, label, index, origin: of the sample; label -1 for none.
        pictures: for each preprocess uint8 [t, 3, h, w], the t domains that did not fail.
        domains: positions of these domains.
        reasons: (position of a domain, reason) of the others.
    """

    id: str
    label: int
    index: int
    origin: str
    pictures: list[Tensor]
    domains: list[int]
    reasons: list[tuple[int, str]]


class DomainPictures:
    """Makes the Views of a sample; a function of (seed, sample, domains), whichever process asks.

    Args:
        source: samples by position.
        domains: which.
        preprocesses: how the towers want their images, each different one once.
        seed: of random domains.
        limits: what an image may cost.
    """

    def __init__(
        self,
        source: Source,
        domains: Sequence[Domain],
        preprocesses: Sequence[Preprocess],
        seed: int,
        limits: Limits,
    ):
        self.source, self.domains, self.preprocesses = source, domains, preprocesses
        self.seed, self.limits = seed, limits
        self._plan: list[int] = []
        self._loader: Iterable[Any] | None = None

    def __getitem__(self, index: int) -> Views | str:
        """As a DataLoader asks: an error for the user travels as its text."""
        try:
            return self.make(int(index))
        except UserError as error:
            return str(error)

    def make(self, index: int) -> Views:
        """Decode, apply all domains, resize for every tower."""
        import torch

        id, label, origin = str(index), -1, ""
        sizes = [preprocess.size for preprocess in self.preprocesses]
        pictures = [torch.empty(len(self.domains), 3, *size, dtype=torch.uint8) for size in sizes]
        usable: list[int] = []
        reasons: list[tuple[int, str]] = []
        try:
            sample = self.source[index]
            id, origin = sample.id, sample.origin
            label = sample.labels[0] if sample.labels else -1
            pixels = decode_sample(sample, self.limits).pixels
            for d, made in enumerate(each_domain(pixels, self.domains, seed=self.seed, id=id)):
                if isinstance(made, BadSample):
                    reasons.append((d, made.reason))
                    continue
                for preprocess, rows in zip(self.preprocesses, pictures):
                    rows[len(usable)] = prepare_image(made, preprocess)
                usable.append(d)
        except BadSample as bad:
            id, origin = bad.id or id, bad.origin or origin
            reasons = [(d, bad.reason) for d in range(len(self.domains))]
        return Views(
            id, label, index, origin, [p[: len(usable)] for p in pictures], usable, reasons
        )

    def over(self, indices: Sequence[int] | range, workers: int) -> Iterator[Views]:
        """The Views of these samples in this order; the workers stay for the next call."""
        if workers == 0:
            yield from map(self.make, indices)
            return
        self._plan[:] = indices
        if self._loader is None:
            self._loader = self._started(workers)
        for views in self._loader:
            if isinstance(views, str):
                raise UserError(views)
            yield views

    def close(self) -> None:
        """End the workers."""
        self._loader = None

    def _started(self, workers: int) -> Iterable[Any]:
        from torch import Generator
        from torch.utils.data import DataLoader

        return DataLoader(
            self,  # type: ignore[arg-type]
            batch_size=None,
            sampler=self._plan,  # read anew at each start
            num_workers=workers,
            collate_fn=_as_it_is,  # type: ignore[arg-type]
            worker_init_fn=_start_worker,
            prefetch_factor=8,
            persistent_workers=True,
            generator=Generator(),  # or it would draw from torch's global one
        )

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_loader": None}


def _as_it_is(views: Views | str) -> Views | str:
    return views


def _start_worker(_: int) -> None:
    """One thread each; signals are the main process's to handle."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        import cv2
    except ModuleNotFoundError:  # domains of a user's own may do without
        return
    cv2.setNumThreads(0)
