"""What every localizer is: (images, phrases) -> boxes, scores, and a heat-map or none.

K: boxes, H, W: pixels of a picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vislang.errors import UserError

if TYPE_CHECKING:
    from vislang.models.dual import DualEncoder

PLAIN = ("{}",)
PHOTO = ("a photo of {}.", "a good photo of {}.", "{}.", "there is {} in the picture.")


@dataclass(frozen=True)
class Located:
    """Where a phrase is in a picture.

    Args:
        boxes: float32 [K, 4], x1 y1 x2 y2 in pixels of the picture, best first.
        scores: float32 [K]; comparable within one localizer only.
        heat: float32 [h, w], the picture's content stretched over it, or None.
        notes: what the caller should know, such as a phrase that was cut.
    """

    boxes: np.ndarray
    scores: np.ndarray
    heat: np.ndarray | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def best(self) -> np.ndarray | None:
        """The first box [4], or None."""
        return self.boxes[0] if len(self.boxes) else None


class Localizer(Protocol):
    """Anything that points at phrases in pictures."""

    name: str
    settings: dict[str, Any]

    def __call__(
        self, images: Sequence[np.ndarray], phrases: Sequence[Sequence[str]]
    ) -> list[list[Located]]:
        """For each uint8 picture [H, W, 3] and each of its phrases, where that is."""
        ...


def nothing(*notes: str) -> Located:
    """No box at all."""
    return Located(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), None, notes)


def checked(images: Sequence[np.ndarray], phrases: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """Pictures as uint8 [H, W, 3] (greyscale is repeated), each with its phrases, or an error."""
    if len(images) != len(phrases):
        raise UserError(
            f"Each picture needs a list of phrases: {len(images)} pictures, {len(phrases)} lists."
        )
    out = []
    for place, image in enumerate(images):
        image = np.asarray(image)
        if image.ndim == 2:
            image = np.repeat(image[..., None], 3, axis=2)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise UserError(
                f"Picture {place} must be uint8 [height, width, 3], got {image.dtype}"
                f" {list(image.shape)}. vislang.data.decode makes such from any file."
            )
        out.append(image)
    for spoken in phrases:
        for phrase in spoken:
            if not phrase.strip():
                raise UserError("A phrase is empty; say what to look for.")
    return out


def batches(items: int, size: int) -> Iterator[range]:
    """Ranges of at most `size` that cover 0 ... items - 1."""
    for start in range(0, items, max(1, size)):
        yield range(start, min(items, start + size))


def with_options(kind: Any, options: dict[str, Any], what: str) -> Any:
    """A frozen dataclass of options, lists as tuples; unknown names are refused."""
    from vislang.config import from_dict

    return from_dict(kind, options, what)


class Phrases:
    """Embeddings of phrases by a model's text side, each made once.

    With several templates the embedding is the mean of the normalised ones (Radford et al. 2021).

    Args:
        model: with a text side.
        templates: in which {} stands for the phrase.
    """

    def __init__(self, model: DualEncoder, templates: Sequence[str] = PLAIN):
        bad = [t for t in templates if "{}" not in t]
        if bad or not templates:
            raise UserError(f"Templates need a {{}} for the phrase, got {bad or 'none'}.")
        self.model, self.templates = model, tuple(templates)
        self._kept: dict[str, tuple[Any, tuple[str, ...]]] = {}

    def __call__(self, phrases: Sequence[str]) -> tuple[Any, list[tuple[str, ...]]]:
        """Tensor [P, D] of length-1 rows in float32, and notes for each phrase."""
        import torch

        for phrase in phrases:
            if phrase not in self._kept:
                self._kept[phrase] = self._embed(phrase)
        if len(self._kept) > 50_000:  # open vocabularies repeat, streams of captions do not
            self._kept = {phrase: self._kept[phrase] for phrase in phrases}
        rows = [self._kept[phrase][0] for phrase in phrases]
        return torch.stack(rows), [self._kept[phrase][1] for phrase in phrases]

    def _embed(self, phrase: str) -> tuple[Any, tuple[str, ...]]:
        import torch
        import torch.nn.functional as F

        side = self.model.side("text")
        tokens = side.tower.prepare([t.replace("{}", phrase) for t in self.templates])  # type: ignore[operator]
        pad: int = side.tower.pad  # type: ignore[assignment]
        parameter = next(side.parameters())
        with torch.no_grad():
            rows = F.normalize(side(tokens.to(parameter.device)).float(), dim=-1)
        notes = ()
        if bool((tokens[:, -1] != pad).any()):
            notes = (f"the phrase fills all {tokens.shape[1]} tokens: its end may be cut off",)
        return F.normalize(rows.mean(0), dim=-1), notes


def stretched(boxes: np.ndarray, size: tuple[int, int], map_size: tuple[int, int]) -> np.ndarray:
    """Boxes of inclusive pixel indices on a map -> edges in a picture of `size` (H, W)."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4) + np.array([0, 0, 1, 1])
    scale = np.array([size[1] / map_size[1], size[0] / map_size[0]] * 2)
    return (boxes * scale).astype(np.float32)


def noted(found: Located, notes: Sequence[str]) -> Located:
    """The same with further notes."""
    return replace(found, notes=(*found.notes, *notes)) if notes else found
