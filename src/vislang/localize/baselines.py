"""What a localizer must beat: the middle of the picture, and any box at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vislang.errors import UserError
from vislang.localize.protocol import Located, checked
from vislang.metrics.boxes import centre_box, random_boxes


class Baseline:
    """A localizer that does not look."""

    def __init__(self, name: str, settings: dict[str, Any]):
        self.name, self.settings = name, settings

    def __call__(
        self, images: Sequence[np.ndarray], phrases: Sequence[Sequence[str]]
    ) -> list[list[Located]]:
        """For each picture and each of its phrases a box."""
        out = []
        for image, spoken in zip(checked(images, phrases), phrases):
            size = (image.shape[0], image.shape[1])
            out.append([self._one(size, f"{phrase}|{size}") for phrase in spoken])
        return out

    def _one(self, size: tuple[int, int], key: str) -> Located:
        if self.name == "centre":
            box = centre_box(size, self.settings["share"])
        else:
            import zlib

            # The same box for the same question, however pictures are batched.
            seed = zlib.crc32(f"{self.settings['seed']}|{key}".encode())
            box = random_boxes(np.array([size], np.float64), seed)[0]
        return Located(box[None].astype(np.float32), np.full(1, 0.5, np.float32))


def centre(spec: Any = None, device: str = "cpu", *, share: float = 0.5) -> Baseline:
    """A box in the middle with a share of the area (baseline)."""
    if not 0 < share <= 1:
        raise UserError(f"share of the centre box must be in (0, 1], got {share}.")
    return Baseline("centre", {"share": share})


def random(spec: Any = None, device: str = "cpu", *, seed: int = 0) -> Baseline:
    """A box with uniform corners (baseline)."""
    return Baseline("random", {"seed": seed})
