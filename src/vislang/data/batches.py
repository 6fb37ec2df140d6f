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
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.data.crew import Crew
from vislang.data.decode import Limits
from vislang.data.episodes import check_episode, visits
from vislang.data.needs import check_needs, check_sizes, check_views
from vislang.data.order import rank_part, samples_in_epoch, steps_in_epoch
from vislang.data.pieces import Batch, Pieces, is_crop, is_paired, views
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
    processes nor a restart change what is in a batch. With `episode` an epoch visits that many
    samples, and of a mixture each part's share of them: `episodes.visits` in the order's place.

    A batch is a dict: `image`, `image_2` ... uint8 [b, 3, H, W], small crops `image_crop_1` ...
    uint8 [b, 3, c, c], `text`, `text_2` ... int64
    [b, L] (as far as in `needs`), `caption`, `caption_2` ... int64 [b] (which of the sample's texts
    it is), `label` int64 [b] (-1: none), `index` int64 [b], `id` list of str, `rejected` list of
    Rejected. b may be smaller than B / W, even 0, by the rejected ones.
    With caption="all" a batch also has `captions` (list of m str), `text` int64 [m, L],
    `image_row` int64 [m] (the row of this batch that a caption describes) and `labels`
    (list of tuples: all labels of each row).

    Args:
        source: where samples come from.
        batch_size: B, over all processes.
        needs: what a batch must hold, as an objective declares it: image, image_2 ...,
            image_crop_1 ..., text, text_2 ..., label.
        seed: of order, captions and augmentation.
        image: how the tower wants its images; needed for images.
        tokenizer: list of str -> int64 [n, L]; needed for texts; runs in the workers.
        augment: a key of AUGMENTS, or one for each view, as in "global_crop,simclr,simclr".
        augment_options: changes to its parameters; those of several views are the same.
        crop_augment: of the small crops image_crop_1 ..., likewise.
        crop_augment_options: changes to its parameters.
        crop_size: c, pixels of a small crop's side; 0 takes the tower's size.
        episode: samples of an epoch; 0 takes as many as the source has.
        episode_replace: draw each sample of an epoch from all, instead of exhausting the source
            before one is visited again.
        caption: random (drawn anew each epoch), first, or all (evaluation).
        limits: what an image may cost.
        workers: loader processes; 0 loads in this process.
        rank: this process.
        world: W.
        drop_last: leave out the incomplete batch at an epoch's end.
        shuffle: False keeps the order of the source (all of it, whatever a mixture's weights).
        pin: put batches into page-locked memory, for a faster copy to a CUDA device.

    Raises:
        UserError: the source does not give what is needed, is smaller than a batch, the batch
            does not divide by the processes, or two views would be the same picture.
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
        crop_augment: str = "local_crop",
        crop_augment_options: Mapping[str, Any] | None = None,
        crop_size: int = 0,
        episode: int = 0,
        episode_replace: bool = False,
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
        check_sizes(source, batch_size, workers, world, drop_last, episode)
        if caption not in CAPTIONS:
            raise UserError(
                f"caption must be one of {', '.join(CAPTIONS)}, got {caption!r}."
                f"{nearest(caption, CAPTIONS)}"
            )
        keys = views(needs, "image")
        whole, small = [k for k in keys if not is_crop(k)], [k for k in keys if is_crop(k)]
        paired = is_paired(source, caption)
        check_views(whole, _names(augment, whole), "augment", paired)
        check_views(small, _names(crop_augment, small), "crop_augment", paired)
        augments = _augments(whole, image, augment, augment_options)
        small_image = _of_size(image, crop_size)
        augments += _augments(small, small_image, crop_augment, crop_augment_options)
        if views(needs, "text") and tokenizer is None:
            raise UserError("Batches with text need a tokenizer: give that of the text tower.")
        self.source, self.batch_size, self.seed = source, batch_size, seed
        self.rank, self.world, self.workers = rank, world, workers
        self.drop_last, self.shuffle, self.pin = drop_last, shuffle, pin
        self.samples = samples_in_epoch(source, episode, batch_size) if shuffle else len(source)
        self._replace = episode_replace
        self._shares = getattr(source, "shares", ((len(source), 1.0),))
        if shuffle:
            check_episode(
                self._shares, self.samples, [p.name for p in getattr(source, "parts", ())]
            )
        elif episode:
            raise UserError("An episode is drawn at random: it needs shuffle=True.")
        self.image_sizes = sorted({augment.size for augment in augments})  # type: ignore[attr-defined]
        self._pieces = Pieces(source, needs, seed, augments, tokenizer, caption, limits)
        self._crew: Crew | None = None

    def __len__(self) -> int:
        """Global batches in an epoch (an episode)."""
        return steps_in_epoch(self.samples, self.batch_size, self.drop_last)

    def episode_indices(self, epoch: int) -> np.ndarray:
        """Positions in the source of the samples that an epoch visits, int64 [samples].

        In the order of their visits, the same in every process; those of an incomplete last
        batch included. What is drawn or weighted more than once is there as often; `np.unique`
        gives the distinct ones, sorted. Without episodes they are all samples.
        """
        return self._visits(epoch) % len(self.source)

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
        last = None if epochs is None else epoch + epochs
        for current in itertools.count(epoch):
            if current == last:
                return
            for k in range(step if current == epoch else 0, len(self)):
                whole = self._visits(current)[k * self.batch_size : (k + 1) * self.batch_size]
                yield current, rank_part(whole, self.rank, self.world)

    def _visits(self, epoch: int) -> np.ndarray:
        """The samples of an epoch in order, numbered as `Pieces` wants them."""
        if not self.shuffle:
            return np.arange(self.samples)
        own = getattr(self.source, "visits", None)
        if own is not None:
            return own(self.seed, epoch, self.batch_size)
        return visits(self.seed, epoch, self._shares, self.samples, self._replace)

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


def _augments(
    keys: list[str], image: Preprocess | None, augment: str, options: Mapping[str, Any] | None
) -> list[Callable[..., Tensor]]:
    if keys and image is None:
        raise UserError("Batches with images need the image tower's Preprocess (image=...).")
    return [build_augment(name, image, options) for name in _names(augment, keys) if image]


def _names(augment: str, keys: list[str]) -> list[str]:
    """The augment of each view; the last one named is also that of further views."""
    names = [name.strip() for name in augment.split(",")]
    return [*names, *names[-1:] * (len(keys) - len(names))][: len(keys)]


def _of_size(image: Preprocess | None, side: int) -> Preprocess | None:
    if side < 0:
        raise UserError(f"crop_size must be pixels, or 0 for the tower's own size; got {side}.")
    return replace(image, size=(side, side)) if image and side else image
