"""Batches of a source: any epoch from any step, the same for every number of workers.

    batches = Batches(open_source("digits"), 256, needs=("image", "text"), image=Preprocess(),
                      tokenizer=tokenize, augment="clip", workers=2)
    for batch in batches.start(epoch=3, step=17):      # the rest of epoch 3
        ...

n: samples of the source, B: samples of the global batch, W: processes.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.data.crew import Crew
from vislang.data.decode import Limits
from vislang.data.order import batch_indices, rank_part, steps_in_epoch
from vislang.data.pieces import Batch, Pieces, views
from vislang.data.sample import Source
from vislang.data.transforms import build_augment
from vislang.errors import UserError
from vislang.lookup import nearest
from vislang.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import Tensor

CAPTIONS = ("random", "first", "all")


class Batches:
    """The batches of a source, in an order that depends on (seed, epoch, step) alone.

    Global batch k of an epoch is `order(seed, epoch, n)[k*B:(k+1)*B]`; process r of W loads its
    W-th part. Caption and augmentation follow from (seed, epoch, index). So neither workers nor
    processes nor a restart change what is in a batch.

    A batch is a dict: `image`, `image_2` ... uint8 [b, 3, H, W], `text`, `text_2` ... int64
    [b, L] (as far as in `needs`), `caption`, `caption_2` ... int64 [b] (which of the sample's texts
    it is), `label` int64 [b] (-1: none), `index` int64 [b], `id` list of str, `rejected` list of
    Rejected. b may be smaller than B / W, even 0, by the rejected ones.
    With caption="all" a batch also has `captions` (list of m str), `text` int64 [m, L],
    `image_row` int64 [m] (the row of this batch that a caption describes) and `labels`
    (list of tuples: all labels of each row).

    Args:
        source: where samples come from.
        batch_size: B, over all processes.
        needs: what a batch must hold, as an objective declares it: image, image_2 ..., text,
            text_2 ..., label.
        seed: of order, captions and augmentation.
        image: how the tower wants its images; needed for images.
        tokenizer: list of str -> int64 [n, L]; needed for texts; runs in the workers.
        augment: a key of AUGMENTS, or one for each view, as in "global_crop,simclr,simclr".
        augment_options: changes to its parameters; those of several views are the same.
        caption: random (drawn anew each epoch), first, or all (evaluation).
        limits: what an image may cost.
        workers: loader processes; 0 loads in this process.
        rank: this process.
        world: W.
        drop_last: leave out the incomplete batch at an epoch's end.
        shuffle: False keeps the order of the source.
        pin: put batches into page-locked memory, for a faster copy to a CUDA device.

    Raises:
        UserError: the source does not give what is needed, is smaller than a batch, or the
            batch does not divide by the processes.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        *,
        needs: Sequence[str] = ("image", "text"),
        seed: int = 0,
        image: Preprocess | None = None,
        tokenizer: Callable[[list[str]], Tensor] | None = None,
        augment: str = "none",
        augment_options: Mapping[str, Any] | None = None,
        caption: str = "random",
        limits: Limits = Limits(),  # noqa: B008  frozen
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = True,
        shuffle: bool = True,
        pin: bool = False,
    ):
        check_needs(source, needs)
        _check_sizes(source, batch_size, workers, world, drop_last)
        if caption not in CAPTIONS:
            raise UserError(
                f"caption must be one of {', '.join(CAPTIONS)}, got {caption!r}."
                f"{nearest(caption, CAPTIONS)}"
            )
        augments = _augments(views(needs, "image"), image, augment, augment_options)
        if views(needs, "text") and tokenizer is None:
            raise UserError("Batches with text need a tokenizer: give that of the text tower.")
        self.source, self.batch_size, self.seed = source, batch_size, seed
        self.rank, self.world, self.workers = rank, world, workers
        self.drop_last, self.shuffle, self.pin = drop_last, shuffle, pin
        self._pieces = Pieces(source, needs, seed, augments, tokenizer, caption, limits)
        self._crew: Crew | None = None

    def __len__(self) -> int:
        """Global batches in an epoch."""
        return steps_in_epoch(len(self.source), self.batch_size, self.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        """Epoch 0 from its first batch; for evaluation, where there is but one."""
        return self.start()

    def start(self, epoch: int = 0, step: int = 0, epochs: int | None = 1) -> Iterator[Batch]:
        """Batches from `step` of `epoch` to the end of that epoch.

        Args:
            epoch: counted from 0.
            step: batches of this epoch to leave out, which costs nothing.
            epochs: epochs to run through, the started one included; None goes on for ever.
                Crossing into the next epoch here keeps the workers busy.
        """
        return self._run(self._indices(epoch, step, epochs))

    def over(self, indices: Sequence[int] | range, epoch: int = 0) -> Iterator[Batch]:
        """Batches of just these samples, in this order, the last one shorter; for a shard.

        With several processes each loads its part of every batch.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        parts = (
            (epoch, rank_part(chosen[at : at + self.batch_size], self.rank, self.world))
            for at in range(0, len(chosen), self.batch_size)
        )
        return self._run(parts)

    def without_tokens(self) -> Batches:
        """The same batches with `caption` but no `text`: for texts whose features are stored."""
        return self._changed(tokens=False)

    def without_pixels(self, unusable: Mapping[int, str] | None = None) -> Batches:
        """The same batches without images: for images whose features are stored.

        Args:
            unusable: index -> reason of the images that could not be decoded when the features
                were made; they are rejected here as they would have been with images.
        """
        return self._changed(pixels=False, unusable=dict(unusable or {}))

    def _changed(self, **attributes: Any) -> Batches:
        batches = copy.copy(self)
        batches._pieces, batches._crew = copy.copy(self._pieces), None
        for name, value in attributes.items():
            setattr(batches._pieces, name, value)
        return batches

    def close(self) -> None:
        """End the workers; a later `start` starts new ones."""
        if self._crew is not None:
            self._crew.close()
            self._crew = None

    def _indices(
        self, epoch: int, step: int, epochs: int | None
    ) -> Iterator[tuple[int, np.ndarray]]:
        n, last = len(self.source), None if epochs is None else epoch + epochs
        for current in itertools.count(epoch):
            if current == last:
                return
            for k in range(step if current == epoch else 0, len(self)):
                if self.shuffle:
                    chosen = batch_indices(
                        self.seed, current, n, self.batch_size, k, self.rank, self.world
                    )
                else:
                    whole = np.arange(k * self.batch_size, min(n, (k + 1) * self.batch_size))
                    chosen = rank_part(whole, self.rank, self.world)
                yield current, chosen

    def _run(self, parts: Iterable[tuple[int, np.ndarray]]) -> Iterator[Batch]:
        if self.workers == 0:
            made = (self._pieces.make(epoch, chosen) for epoch, chosen in parts)
        else:
            if self._crew is None:
                self._crew = Crew(self._pieces, self.workers, -(-self.batch_size // self.world))
            made = self._crew.run(parts)
        return map(_pinned, made) if self.pin else made


def _pinned(batch: Batch) -> Batch:
    return {
        key: value.pin_memory() if hasattr(value, "pin_memory") else value
        for key, value in batch.items()
    }


def check_needs(source: Source, needs: Sequence[str]) -> None:
    """Refuse a source that does not give what is needed, naming sources that do."""
    from vislang.data.sources import which_give

    kinds = {key.partition("_")[0] for key in needs}
    unknown = sorted(kinds - {"image", "text", "label"})
    if unknown:
        raise UserError(
            f"A batch cannot hold {', '.join(unknown)}. Known: image, image_2 ..., text,"
            " text_2 ..., label."
        )
    missing = sorted(kinds - set(source.gives))
    if missing:
        own = ""
        if missing == ["text"] and source.classes and hasattr(source, "templates"):
            own = " Its class names become captions by the option template 'a photo of a {}.'"
        raise UserError(
            f"The source {source.name!r} gives {', '.join(sorted(source.gives)) or 'nothing'},"
            f" but {', '.join(missing)} is needed too.{own}"
            f" Layouts that can give {', '.join(sorted(kinds))}: {which_give(kinds)};"
            " or choose an objective that does without."
        )


def _check_sizes(
    source: Source, batch_size: int, workers: int, world: int, drop_last: bool
) -> None:
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}.")
    if workers < 0:
        raise UserError(f"workers must be 0 or more, got {workers}.")
    if batch_size % world:
        raise UserError(
            f"The global batch of {batch_size} does not divide by {world} processes:"
            f" use {batch_size - batch_size % world or world} or another multiple of {world}."
        )
    if drop_last and batch_size > len(source):
        raise UserError(
            f"A batch of {batch_size:,} is larger than the source {source.name!r} with its"
            f" {len(source):,} samples: use a batch_size of at most {len(source):,}."
        )


def _augments(
    keys: list[str],
    image: Preprocess | None,
    augment: str,
    options: Mapping[str, Any] | None,
) -> list[Callable[..., Tensor]]:
    if not keys:
        return []
    if image is None:
        raise UserError("Batches with images need the image tower's Preprocess (image=...).")
    names = [name.strip() for name in augment.split(",")]
    names += names[-1:] * (len(keys) - len(names))
    return [build_augment(name, image, options) for _, name in zip(keys, names)]
