"""Samples to rows of a batch: the pure part, the same in every worker and process.

n: samples asked for, b: samples that were usable, m: captions, L: tokens of a text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vislang.data.decode import Limits, decode_sample
from vislang.data.order import partner_rng, sample_rng
from vislang.data.sample import BadSample, Rejected, Sample, Source

if TYPE_CHECKING:
    from torch import Tensor

Batch = dict[str, Any]
CROP = "image_crop_"


def views(needs: Iterable[str], kind: str) -> list[str]:
    """The keys of one kind that are needed, in the order of their views; small crops last.

    >>> views(("text", "image_crop_2", "image_10", "image_2", "image_crop_10", "image"), "image")
    ['image', 'image_2', 'image_10', 'image_crop_2', 'image_crop_10']
    """

    def place(key: str) -> tuple[str, int]:
        words, _, number = key.rpartition("_")
        return (words, int(number)) if number.isdigit() else (key, 0)

    return sorted((k for k in needs if k == kind or k.startswith(kind + "_")), key=place)


def is_crop(key: str) -> bool:
    """Whether a key is one of the small crops, image_crop_1 ..., of an objective with many."""
    return key.startswith(CROP)


def of_partner(key: str) -> bool:
    """Whether a view is the partner's in a source of pairs: those with an even number.

    >>> [of_partner(key) for key in ("image", "image_2", "image_3", "text_2", "image_crop_4")]
    [False, True, False, True, True]
    """
    number = key.rpartition("_")[2]
    return number.isdigit() and int(number) % 2 == 0


def is_paired(source: Source, caption: str) -> bool:
    """Whether views with even numbers show a partner; an evaluation looks at samples alone."""
    return hasattr(source, "partner") and caption != "all"


class _Row(NamedTuple):
    index: int
    sample: Sample
    captions: list[list[int]]  # for each text key: positions in the texts of whose it is
    partner: Sample | None = None

    def whose(self, key: str) -> Sample:
        """The sample that a view shows."""
        return self.sample if self.partner is None or not of_partner(key) else self.partner


class Pieces:
    """Makes a piece of a batch from indices; a function of (epoch, index) and nothing else.

    An index is a position in the source, plus len(source) for each time that the epoch visited
    the sample before: such a visit has randomness of its own.

    Args:
        source: where samples come from.
        needs: keys to make: image, image_2 ..., image_crop_1 ..., text, text_2 ..., label.
        seed: of captions and augmentation.
        augments: one `augment(pixels, rng, full_size)` for each image key.
        tokenizer: list of str -> int64 [n, L].
        caption: random, first or all.
        limits: what an image may cost.
    """

    def __init__(
        self,
        source: Source,
        needs: Sequence[str],
        seed: int,
        augments: Sequence[Callable[..., Tensor]],
        tokenizer: Callable[[list[str]], Tensor] | None,
        caption: str,
        limits: Limits,
    ):
        self.source, self.seed, self.tokenizer = source, seed, tokenizer
        self.caption, self.limits = caption, limits
        self.images, self.texts = views(needs, "image"), views(needs, "text")
        # A mixture may have parts without classes on purpose; their label is -1.
        self.label_needed = "label" in needs and not getattr(source, "partly_labelled", False)
        self.tokens, self.pixels = True, True
        self.unusable: Mapping[int, str] = {}
        self.paired = is_paired(source, caption) and any(
            map(of_partner, (*self.images, *self.texts))
        )
        self.augments = dict(zip(self.images, augments))
        sides = [augment.min_side for augment in augments]  # type: ignore[attr-defined]
        self.min_side = None if not sides or None in sides else max(sides)

    def __getitem__(self, key: tuple[int, np.ndarray]) -> Batch:
        """A piece as a DataLoader asks for it; an error for the user travels as a value.

        DataLoader would wrap the exception's text in the worker's traceback.
        """
        from vislang.errors import UserError

        try:
            return lightened(self.make(*key))
        except UserError as error:
            return {"error": str(error)}

    def make(self, epoch: int, indices: Sequence[int] | np.ndarray) -> Batch:
        """The batch of these samples in this order; unusable ones become rows of `rejected`."""
        import torch

        rows: list[_Row] = []
        rejected = []
        images = {
            key: torch.empty(len(indices), 3, *self.augments[key].size, dtype=torch.uint8)  # type: ignore[attr-defined]
            for key in (self.images if self.pixels else ())
        }
        for number in map(int, indices):
            times, index = divmod(number, len(self.source))
            sample = None
            try:
                sample = self.source[index]
                rng = sample_rng(self.seed, epoch, index, times)
                row = _Row(index, sample, [], self._partner(epoch, index, times))
                row = row._replace(captions=self._captions(row, rng))
                self._draw(images, len(rows), row, rng)
                rows.append(row)
            except BadSample as bad:
                origin = bad.origin or (sample.origin if sample else "")
                rejected.append(Rejected(bad.id or str(index), bad.reason, origin))
        return self._batch(rows, images, rejected)

    def _partner(self, epoch: int, index: int, times: int) -> Sample | None:
        """The sample whose views have even numbers, drawn anew each epoch; None without pairs."""
        if not self.paired:
            return None
        rng = partner_rng(self.seed, epoch, index, times)
        return self.source.partner(index, rng)  # type: ignore[attr-defined]

    def _captions(self, row: _Row, rng: np.random.Generator) -> list[list[int]]:
        """Which texts go under each text key; checks text and label."""
        sample = row.sample
        if self.label_needed and not sample.labels:
            raise BadSample(sample.id, "no label: the sample has none", sample.origin)
        if row.index in self.unusable:
            raise BadSample(sample.id, self.unusable[row.index], sample.origin)
        found: list[list[int]] = []
        next_: dict[bool, int] = {}  # of the sample and of its partner
        for key in self.texts:
            whose = row.whose(key)
            usable = [i for i, text in enumerate(whose.texts) if text.strip()]
            if not usable:
                raise BadSample(whose.id, "no caption: the sample has none", whose.origin)
            if self.caption == "all":
                found.append(usable)
                continue
            other = whose is not sample
            if other not in next_:
                next_[other] = 0 if self.caption == "first" else int(rng.integers(len(usable)))
            # Further text keys get further captions, starting anew where there are too few.
            found.append([usable[next_[other] % len(usable)]])
            next_[other] += 1
        return found

    def _draw(
        self, images: dict[str, Tensor], place: int, row: _Row, rng: np.random.Generator
    ) -> None:
        """Write the views of a sample, and of its partner, into row `place` of the images."""
        for other in (False, True):
            shown = [key for key in images if (row.whose(key) is not row.sample) == other]
            if not shown:
                continue
            decoded = decode_sample(row.whose(shown[0]), self.limits, self.min_side)
            for key in shown:
                images[key][place] = self.augments[key](decoded.pixels, rng, decoded.full_size)

    def _batch(
        self, rows: list[_Row], images: dict[str, Tensor], rejected: list[Rejected]
    ) -> Batch:
        import torch

        batch: Batch = {key: buffer[: len(rows)] for key, buffer in images.items()}
        for k, key in enumerate(self.texts):
            chosen = [row.captions[k] for row in rows]
            strings = [row.whose(key).texts[c] for row, some in zip(rows, chosen) for c in some]
            if self.tokens:
                batch[key] = self._tokens(strings)
            flat = [c for some in chosen for c in some]
            batch[key.replace("text", "caption")] = torch.tensor(flat, dtype=torch.int64)
            if self.caption == "all":
                counts = torch.tensor([len(some) for some in chosen], dtype=torch.int64)
                batch["captions"] = strings
                batch["image_row"] = torch.repeat_interleave(torch.arange(len(rows)), counts)
        labels = [row.sample.labels[0] if row.sample.labels else -1 for row in rows]
        batch["label"] = torch.tensor(labels, dtype=torch.int64)
        batch["index"] = torch.tensor([row.index for row in rows], dtype=torch.int64)
        batch["id"] = [row.sample.id for row in rows]
        if self.caption == "all":
            batch["labels"] = [row.sample.labels for row in rows]
        batch["rejected"] = rejected
        return batch

    def _tokens(self, strings: list[str]) -> Tensor:
        import torch

        if self.tokenizer is None:
            raise TypeError("texts are needed but there is no tokenizer")
        tokens = self.tokenizer(strings or ["-"])  # tokenizers dislike an empty list
        return torch.as_tensor(tokens, dtype=torch.int64)[: len(strings)]


class Joint:
    """One batch from consecutive pieces of it, each let go of as soon as it is copied.

    Args:
        rows: samples of the whole batch, usable or not.
    """

    def __init__(self, rows: int):
        self._rows, self._taken, self._done = rows, 0, 0
        self._images: dict[str, Tensor] = {}
        self._parts: list[Batch] = []

    def add(self, piece: Batch) -> None:
        """The next piece, with rows as torch tensors or (small ones) numpy arrays."""
        small = {}
        for key, value in piece.items():
            if key.startswith("image") and key != "image_row":
                if self._taken == 0 and len(piece["id"]) == self._rows:
                    self._images[key] = value  # the only piece, and nothing is missing
                else:
                    if key not in self._images:
                        self._images[key] = value.new_empty(self._rows, *value.shape[1:])
                    self._images[key][self._done : self._done + len(value)] = value
            elif key == "image_row":
                small[key] = value + self._done
            else:
                small[key] = value
        self._parts.append(small)
        self._taken += 1
        self._done += len(piece["id"])

    def batch(self) -> Batch:
        """All rows."""
        import torch

        joined: Batch = {key: rows[: self._done] for key, rows in self._images.items()}
        for key, value in self._parts[0].items():
            parts = [part[key] for part in self._parts]
            if isinstance(value, list):
                joined[key] = [item for part in parts for item in part]
            else:
                joined[key] = torch.cat([torch.as_tensor(part) for part in parts])
        return joined


def lightened(piece: Batch) -> Batch:
    """Small tensors as numpy arrays: each tensor costs a file handle on its way to another process.

    A batch of 16,384 in pieces of 64 would else hold over a thousand of them, the usual limit.
    """
    return {
        key: value.numpy()
        if hasattr(value, "numpy") and (not key.startswith("image") or key == "image_row")
        else value
        for key, value in piece.items()
    }
