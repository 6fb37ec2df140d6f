"""The work on one unit: some samples of a source through a model.

n: usable samples, m: their captions, D: shared width, F: width of the image tower.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vislang.data.batches import Batches
from vislang.data.decode import Limits
from vislang.data.sample import BadSample, Source
from vislang.devices import autocast, pick_device, pick_precision
from vislang.embed.texts import embed_texts, evaluating
from vislang.errors import UserError

if TYPE_CHECKING:
    from vislang.models.dual import DualEncoder

WHAT = ("image", "text", "features")


@dataclass
class Part:
    """Embeddings of some samples, in the order of the source.

    Args:
        image: [n, D] or None.
        features: the image tower's output [n, F] or None.
        text: [m, D] or None.
        metadata: columns id, index, label, caption (the first), one row a sample.
        text_metadata: columns text, image_row (counted within the part); None without texts.
        rejected: (id, reason, origin) of samples that could not be used.
    """

    image: np.ndarray | None
    features: np.ndarray | None
    text: np.ndarray | None
    metadata: dict[str, Any]
    text_metadata: dict[str, Any] | None
    rejected: list[tuple[str, str, str]] = field(default_factory=list)


class Embedder:
    """Embeds samples of one source with one model under fixed settings.

    Args:
        model: the dual encoder; moved to the device when it embeds.
        source: where samples come from.
        what: any of image, text, features.
        batch_size: samples (and texts) in one forward pass; part of the settings, because it
            moves the last bits, and more than those in bf16.
        device: auto, cpu, cuda or cuda:N.
        precision: auto, fp32 or bf16.
        workers: loader processes; 0 loads in this process.
        limits: what an image may cost.

    Raises:
        UserError: the model lacks a side, or the source does not give what is asked.
    """

    def __init__(
        self,
        model: DualEncoder,
        source: Source,
        what: Sequence[str] = ("image", "text"),
        *,
        batch_size: int = 64,
        device: str = "auto",
        precision: str = "auto",
        workers: int = 0,
        limits: Limits = Limits(),  # noqa: B008  frozen
    ):
        self.model, self.source = model, source
        self.what = check_what(what)
        self.images = bool({"image", "features"} & set(self.what))
        if self.images:
            model.side("image")
        if "text" in self.what:
            model.side("text")
        missing = sorted(({"image"} if self.images else set()) | ({"text"} & set(self.what)))
        missing = [kind for kind in missing if kind not in source.gives]
        if missing:
            raise UserError(
                f"The source {source.name!r} gives {', '.join(sorted(source.gives)) or 'nothing'},"
                f" so its {' and '.join(missing)} cannot be embedded. Ask for what it gives (what)."
            )
        if batch_size < 1:
            raise UserError(f"batch_size must be at least 1, got {batch_size}.")
        self.batch_size, self.limits, self.workers = batch_size, limits, workers
        self.device = pick_device(device)
        self.precision = pick_precision(precision, self.device)
        self._batches: Batches | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the embeddings depend on."""
        from vislang.models.fingerprint import fingerprint_model

        image: Any = self.model.image.tower if self.model.image is not None else None
        return {
            "model": fingerprint_model(self.model),
            "source": self.source.fingerprint,
            "source_name": self.source.name,
            "samples": len(self.source),
            "what": list(self.what),
            "preprocess": asdict(image.preprocess) if self.images else None,
            "batch_size": self.batch_size,
            "precision": self.precision,
            "device": self.device.type,
            "limits": asdict(self.limits),
        }

    def embed(self, indices: Sequence[int] | range) -> Part:
        """Embed these samples; one that cannot be used becomes a row of `rejected`."""
        if self.images:
            found = self._embed_images(indices)
        else:
            found = self._read_samples(indices)
        if "text" in self.what:
            self._embed_captions(found)
        return found

    def close(self) -> None:
        """End the loader's processes."""
        if self._batches is not None:
            self._batches.close()

    def _embed_images(self, indices: Sequence[int] | range) -> Part:
        side = self.model.side("image")
        tower: Any = side.tower
        if self._batches is None:
            self._batches = Batches(
                self.source, self.batch_size, needs=("image",), image=tower.preprocess,
                limits=self.limits, workers=self.workers, drop_last=False, shuffle=False,
            )  # fmt: skip
        images, features, ids, index, labels, rejected = [], [], [], [], [], []
        with evaluating(self.model, self.device), autocast(self.device, self.precision):
            for batch in self._batches.over(indices):
                rejected += [(r.id, r.reason, r.origin) for r in batch["rejected"]]
                if not batch["id"]:
                    continue
                seen = side.features(batch["image"].to(self.device, non_blocking=True))
                if "image" in self.what:
                    images.append(side(seen, from_features=True).float().cpu().numpy())
                if "features" in self.what:
                    features.append(seen.float().cpu().numpy())
                ids += batch["id"]
                index += batch["index"].tolist()
                labels += batch["label"].tolist()
        metadata = {
            "id": ids, "index": np.array(index, np.int64), "label": np.array(labels, np.int64)
        }  # fmt: skip
        image = _joined(images, side.width) if "image" in self.what else None
        before = _joined(features, tower.width) if "features" in self.what else None
        return Part(image, before, None, metadata, None, rejected)

    def _read_samples(self, indices: Sequence[int] | range) -> Part:
        """What is known of the samples when only texts are embedded."""
        ids, index, labels, rejected = [], [], [], []
        for i in map(int, indices):
            try:
                sample = self.source[i]
            except BadSample as bad:
                rejected.append((bad.id, bad.reason, bad.origin))
                continue
            ids.append(sample.id)
            index.append(i)
            labels.append(sample.labels[0] if sample.labels else -1)
        metadata = {
            "id": ids, "index": np.array(index, np.int64), "label": np.array(labels, np.int64)
        }  # fmt: skip
        return Part(None, None, None, metadata, None, rejected)

    def _embed_captions(self, part: Part) -> None:
        texts, owner, first = [], [], []
        for row, i in enumerate(part.metadata["index"].tolist()):
            captions = [text for text in self.source[i].texts if text.strip()]
            texts += captions
            owner += [row] * len(captions)
            first.append(captions[0] if captions else None)
        import pyarrow as pa

        part.metadata["caption"] = pa.array(first, pa.string())
        part.text_metadata = {"text": texts, "image_row": np.array(owner, np.int64)}
        part.text = embed_texts(
            self.model, texts, batch_size=self.batch_size, device=self.device,
            precision=self.precision,
        )  # fmt: skip


def _joined(rows: list[np.ndarray], width: int) -> np.ndarray:
    return np.concatenate(rows) if rows else np.empty((0, width), np.float32)


def check_what(what: Iterable[str]) -> tuple[str, ...]:
    """The things to embed in a fixed order; an unknown one is an error."""
    asked = list(what)
    for name in asked:
        if name not in WHAT:
            raise UserError(f"what must be any of {', '.join(WHAT)}, got {name!r}.")
    if not asked:
        raise UserError(f"what is empty: name any of {', '.join(WHAT)}.")
    return tuple(name for name in WHAT if name in asked)


def disable_inner_threads() -> None:
    """One torch thread, for processes that work side by side."""
    torch.set_num_threads(1)
