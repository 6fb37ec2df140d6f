"""Embeddings of frozen towers, computed once and looked up in every epoch.

A frozen text tower gives each caption the same features for ever; a frozen image tower gives each
image the same features as long as it is not augmented.  They are made before the first step, kept
in `frozen/<side>/` of the run folder (interrupted work goes on where it stopped), and take the
tower's place in the batch as `text_features` / `image_features`; the loader then neither tokenises
nor decodes for that side.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vislang.data.batches import Batches
from vislang.data.sample import BadSample, Source
from vislang.devices import autocast, barrier
from vislang.files import fingerprint, run_units, whole_file
from vislang.models.dual import DualEncoder, Side
from vislang.models.fingerprint import fingerprint_side
from vislang.train.setup import Place

PART = 4096  # captions or images in one unit of work
ROWS = 64  # texts embedded at a time

# Feature rows of a part [start, stop), and what else its note should say.
Make = Callable[[range], tuple[np.ndarray, dict[str, Any]]]


class FrozenFeatures:
    """What the frozen towers of a run say about its source; nothing where none is frozen.

    Args:
        model: its frozen sides are taken.
        source: what they look at.
        batches: the run's loader.
        augmented: whether images change from epoch to epoch, so that they cannot be stored.
        folder: the run folder.
        place: where to compute; the first process does.
    """

    def __init__(
        self,
        model: DualEncoder,
        source: Source,
        batches: Batches,
        augmented: bool,
        folder: Path,
        place: Place,
    ):
        self.tables: dict[str, _Table] = {}
        self.batches = batches
        if model.decoder is not None:
            return  # it reads the tokens and the pixels themselves
        if model.text is not None and model.text.frozen and "text" in source.gives:
            self.captions = _Captions(source)
            texts = self.captions.texts
            self.tables["text"] = _Table(
                folder / "frozen" / "text",
                len(texts),
                _settings(model.text, place, fingerprint(texts)),
                lambda part: (_embed_texts(model.text, texts, part, place), {}),  # type: ignore[arg-type]
                place,
            )
            self.batches = self.batches.without_tokens()
        if model.image is not None and model.image.frozen and not augmented:
            self.tables["image"] = _Table(
                folder / "frozen" / "image",
                len(source),
                _settings(model.image, place, source.fingerprint),
                lambda part: _embed_images(model.image, batches, part, place),  # type: ignore[arg-type]
                place,
            )
            unusable = {
                int(index): reason
                for note in self.tables["image"].notes
                for index, reason in note["unusable"].items()
            }
            self.batches = self.batches.without_pixels(unusable)

    def fill(self, batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
        """The batch on the device, with features in the place of what frozen towers would read."""
        full = {
            key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for key, value in batch.items()
        }
        if "text" in self.tables:
            rows = self.captions.rows(batch["index"].numpy(), batch["caption"].numpy())
            full["text_features"] = self.tables["text"].take(rows).to(device)
        if "image" in self.tables:
            full["image_features"] = self.tables["image"].take(batch["index"].numpy()).to(device)
        return full


class _Captions:
    """The distinct captions of a source, and which of them each sample has."""

    def __init__(self, source: Source):
        known: dict[str, int] = {}
        rows: list[int] = []
        self._starts = np.zeros(len(source) + 1, np.int64)
        for index in range(len(source)):
            try:
                texts = source[index].texts
            except BadSample:
                texts = ()
            rows += [known.setdefault(text, len(known)) for text in texts]
            self._starts[index + 1] = len(rows)
        self.texts = list(known)
        self._rows = np.array(rows, np.int64)

    def rows(self, index: np.ndarray, caption: np.ndarray) -> np.ndarray:
        """Rows of the table for the drawn caption of each sample."""
        return self._rows[self._starts[index] + caption]


class _Table:
    """Feature rows on disk, made in parts on the first process, read by all through mmap."""

    def __init__(
        self, folder: Path, rows: int, settings: Mapping[str, Any], make: Make, place: Place
    ):
        units = [f"{start:09d}" for start in range(0, rows, PART)]

        def work(unit: str, folder: Path) -> dict[str, Any]:
            start = int(unit)
            values, note = make(range(start, min(start + PART, rows)))
            with whole_file(folder / f"{unit}.npy") as file:
                np.save(file, values, allow_pickle=False)
            return note

        if place.group.first:
            run_units(folder, units, work, settings)
        barrier()
        # On the other processes every unit is done by now, so this only reads the notes.
        self.notes = list(run_units(folder, units, work, settings).values())
        self._parts = [np.load(folder / f"{unit}.npy", mmap_mode="r") for unit in units]

    def take(self, rows: np.ndarray) -> Tensor:
        """Rows in the given order, fp32."""
        out = np.empty((len(rows), self._parts[0].shape[1]), np.float32)
        part, at = np.divmod(rows, PART)
        for number in np.unique(part):
            chosen = part == number
            out[chosen] = self._parts[number][at[chosen]]
        return torch.from_numpy(out)


def _settings(side: Side, place: Place, content: str) -> dict[str, Any]:
    return {
        "tower": fingerprint_side(side),
        "content": content,
        "precision": place.precision,
        "part": PART,
    }


def _features(side: Side, rows: Tensor, place: Place) -> np.ndarray:
    with autocast(place.device, place.precision), torch.no_grad():
        return side.features(rows.to(place.device)).float().cpu().numpy()


def _embed_texts(side: Side, texts: list[str], part: range, place: Place) -> np.ndarray:
    chosen = texts[part.start : part.stop]
    # Texts of like length together: less padding. The rows go back to their places.
    order = sorted(range(len(chosen)), key=lambda i: len(chosen[i]))
    out = np.empty((len(chosen), int(side.tower.width)), np.float32)  # type: ignore[arg-type]
    for start in range(0, len(order), ROWS):
        rows = order[start : start + ROWS]
        tokens = side.tower.tokenizer([chosen[i] for i in rows])  # type: ignore[operator]
        out[rows] = _features(side, tokens, place)
    return out


def _embed_images(
    side: Side, batches: Batches, part: range, place: Place
) -> tuple[np.ndarray, dict[str, Any]]:
    out = np.zeros((len(part), int(side.tower.width)), np.float32)  # type: ignore[arg-type]
    reasons: list[str] = []
    left = set(part)
    for batch in batches.over(part):
        index = batch["index"].tolist()
        left -= set(index)
        reasons += [row.reason for row in batch["rejected"]]  # in the order of their indices
        if index:
            out[np.array(index) - part.start] = _features(side, batch["image"], place)
    return out, {"unusable": dict(zip(sorted(left), reasons))}
