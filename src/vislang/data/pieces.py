"""Samples to rows of a batch: the pure part, the same in every worker and process.

n: samples asked for, b: samples that were usable, m: captions, L: tokens of a text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.data.decode import Limits, decode_sample
from vislang.data.order import sample_rng
from vislang.data.sample import BadSample, Rejected, Sample, Source

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Batch = dict[str, Any]


def views(needs: Iterable[str], kind: str) -> list[str]:
    """The keys of one kind that are needed, in the order of their views.

    >>> views(("text", "image_2", "image"), "image")
    ['image', 'image_2']
    """
    return sorted(key for key in needs if key == kind or key.startswith(kind + "_"))


class Pieces:
    """Makes a piece of a batch from indices; a function of (epoch, index) and nothing else.

    Args:
        source: where samples come from.
        needs: keys to make: image, image_2 ..., text, text_2 ..., label.
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
        self.label_needed = "label" in needs
        self.augments = dict(zip(self.images, augments))
        sides = [augment.min_side for augment in augments]  # type: ignore[attr-defined]
        self.min_side = None if not sides or None in sides else max(sides)

    def __getitem__(self, key: tuple[int, np.ndarray]) -> Batch:
        """A piece as a DataLoader asks for it; an error for the user travels as a value.

        DataLoader would wrap the exception's text in the worker's traceback.
        """
        from vislang.errors import UserError

        try:
            return self.make(*key)
        except UserError as error:
            return {"error": str(error)}

    def make(self, epoch: int, indices: Sequence[int] | np.ndarray) -> Batch:
        """The batch of these samples in this order; unusable ones become rows of `rejected`."""
        import torch

        rows: list[tuple[int, Sample, list[list[str]]]] = []
        rejected = []
        images = {
            key: torch.empty(len(indices), 3, *self.augments[key].size, dtype=torch.uint8)  # type: ignore[attr-defined]
            for key in self.images
        }
        for index in map(int, indices):
            sample = None
            try:
                sample = self.source[index]
                rows.append((index, sample, self._fill(images, len(rows), epoch, index, sample)))
            except BadSample as bad:
                origin = bad.origin or (sample.origin if sample else "")
                rejected.append(Rejected(bad.id or str(index), bad.reason, origin))
        return self._batch(rows, images, rejected)

    def _fill(
        self, images: dict[str, Tensor], row: int, epoch: int, index: int, sample: Sample
    ) -> list[list[str]]:
        """Write the views of a sample into `row`; returns its captions for each text key."""
        if self.label_needed and not sample.labels:
            raise BadSample(sample.id, "no label: the sample has none", sample.origin)
        rng = sample_rng(self.seed, epoch, index)
        chosen = self._captions(sample, rng)
        if images:
            decoded = decode_sample(sample, self.limits, self.min_side)
            for key, buffer in images.items():
                buffer[row] = self.augments[key](decoded.pixels, rng, decoded.full_size)
        return chosen

    def _captions(self, sample: Sample, rng: np.random.Generator) -> list[list[str]]:
        if not self.texts:
            return []
        texts = [text for text in sample.texts if text.strip()]
        if not texts:
            raise BadSample(sample.id, "no caption: the sample has none", sample.origin)
        if self.caption == "all":
            return [texts] * len(self.texts)
        start = 0 if self.caption == "first" else int(rng.integers(len(texts)))
        # Further text keys get further captions, starting anew where there are too few.
        return [[texts[(start + k) % len(texts)]] for k in range(len(self.texts))]

    def _batch(
        self,
        rows: list[tuple[int, Sample, list[list[str]]]],
        images: dict[str, Tensor],
        rejected: list[Rejected],
    ) -> Batch:
        import torch

        batch: Batch = {key: buffer[: len(rows)] for key, buffer in images.items()}
        for k, key in enumerate(self.texts):
            strings = [text for _, _, chosen in rows for text in chosen[k]]
            batch[key] = self._tokens(strings)
            if self.caption == "all":
                counts = torch.tensor([len(chosen[k]) for _, _, chosen in rows], dtype=torch.int64)
                batch["captions"] = strings
                batch["image_row"] = torch.repeat_interleave(torch.arange(len(rows)), counts)
        labels = [sample.labels[0] if sample.labels else -1 for _, sample, _ in rows]
        batch["label"] = torch.tensor(labels, dtype=torch.int64)
        batch["index"] = torch.tensor([index for index, _, _ in rows], dtype=torch.int64)
        batch["id"] = [sample.id for _, sample, _ in rows]
        if self.caption == "all":
            batch["labels"] = [sample.labels for _, sample, _ in rows]
        batch["rejected"] = rejected
        return batch

    def _tokens(self, strings: list[str]) -> Tensor:
        import torch

        if self.tokenizer is None:
            raise TypeError("texts are needed but there is no tokenizer")
        tokens = self.tokenizer(strings or ["-"])  # tokenizers dislike an empty list
        return torch.as_tensor(tokens, dtype=torch.int64)[: len(strings)]


def join(pieces: list[Batch]) -> Batch:
    """One batch from consecutive pieces of it."""
    import torch

    if len(pieces) == 1:
        return pieces[0]
    joined: Batch = {}
    for key, value in pieces[0].items():
        parts = [piece[key] for piece in pieces]
        if key == "image_row":
            starts = np.cumsum([0] + [len(piece["id"]) for piece in pieces[:-1]])
            joined[key] = torch.cat([part + int(start) for part, start in zip(parts, starts)])
        elif isinstance(value, list):
            joined[key] = [item for part in parts for item in part]
        else:
            joined[key] = _cat(parts)
    return joined


def _cat(parts: list[torch.Tensor]) -> torch.Tensor:
    """Rows of all parts; token lists of unequal length (an adaptive tokenizer) are an error."""
    import torch

    return torch.cat(parts)
