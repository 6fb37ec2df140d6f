"""From a source to unit rows, one a sample, that can be compared: its captions or its pictures.

n: samples of the source, m: samples with a usable row, D: width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.data.sample import Source
from vislang.embed import embed_source
from vislang.errors import UserError
from vislang.lookup import nearest
from vislang.store import Store

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64

    from vislang.models.dual import DualEncoder

BY = ("caption", "image", "features")
CAPTIONS = ("first", "mean")


@dataclass
class Rows:
    """Unit rows of the samples that have one.

    Args:
        at: positions in the source, ascending.
        x: unit rows.
        ids, labels: of these samples.
        caption: the first caption of each; None without captions.
        dropped: reason -> number of samples without a row.
        model: fingerprint of the model.
    """

    at: Int64[np.ndarray, " m"]
    x: Float32[np.ndarray, "m D"]
    ids: list[str]
    labels: Int64[np.ndarray, " m"]
    caption: list[str | None]
    dropped: dict[str, int]
    model: str

    def taken(self, keep: np.ndarray, reason: str) -> Rows:
        """Some of the rows; the others are counted as dropped for `reason`."""
        if keep.all():
            return self
        dropped = dict(self.dropped)
        dropped[reason] = dropped.get(reason, 0) + int((~keep).sum())
        chosen = np.flatnonzero(keep)
        return Rows(
            self.at[keep], self.x[keep], [self.ids[i] for i in chosen], self.labels[keep],
            [self.caption[i] for i in chosen], dropped, self.model,
        )  # fmt: skip


def embed_rows(
    source: Source,
    model: DualEncoder | str,
    folder: Path,
    *,
    by: str = "caption",
    captions: str = "first",
    on_progress: Callable[[int, int], None] | None = None,
    **how: Any,
) -> Rows:
    """Embed a source into the store `folder` (going on where it stopped) and read its rows.

    Args:
        source: the samples.
        model: with a text side for captions, an image side for images.
        folder: the store.
        by: caption, image (in the joint space) or features (the image tower's output).
        captions: of several captions the first, or the mean of their unit embeddings.
        on_progress: called with (samples done, samples).
        how: arguments of `embed_source`.
    """
    for what, value, known in (("by", by, BY), ("captions", captions, CAPTIONS)):
        if value not in known:
            raise UserError(
                f"{what} must be one of {', '.join(known)}, got {value!r}.{nearest(value, known)}"
            )
    if isinstance(model, str):
        from vislang.models.pretrained import load_model

        model = load_model(model)
    what = "text" if by == "caption" else by
    store = embed_source(model, source, folder, what=(what,), on_progress=on_progress, **how)
    reasons = Counter(reason.partition(":")[0] for _, reason, _ in store.rejected)
    n = len(store)
    if by == "caption":
        x, owner = _caption_rows(store, captions)
    else:
        stored = store.image if by == "image" else store.features
        x, owner = np.array(stored, np.float32), np.arange(n)
    metadata = store.metadata
    first = metadata["caption"].to_pylist() if "caption" in metadata.column_names else [None] * n
    ids, index = metadata["id"].to_pylist(), metadata["index"].to_numpy()
    if n > len(owner):
        reasons["no caption"] += n - len(owner)
    rows = Rows(
        index[owner].astype(np.int64), x, [ids[i] for i in owner],
        metadata["label"].to_numpy()[owner], [first[i] for i in owner], dict(reasons),
        str(store.settings.get("model", "")),
    )  # fmt: skip
    length = np.linalg.norm(rows.x, axis=1)
    rows.x /= np.maximum(length, 1e-30)[:, None]
    return rows.taken(np.isfinite(length) & (length > 0), "zero embedding")


def _caption_rows(store: Store, captions: str) -> tuple[np.ndarray, np.ndarray]:
    """(a row for each sample that has captions, the store's rows of these samples)."""
    owner = store.text_metadata["image_row"].to_numpy()
    rows = np.array(store.text, np.float32)
    if not len(owner):
        return rows.reshape(0, store.text.shape[1]), owner  # type: ignore[union-attr]
    starts = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]])
    if captions == "first":
        return rows[starts], owner[starts]
    rows /= np.maximum(np.linalg.norm(rows, axis=1), 1e-30)[:, None]
    return np.add.reduceat(rows, starts, axis=0), owner[starts]


def describe_source(source: Source, spec: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a pair table says of its source."""
    return {
        "spec": spec,
        "options": dict(options),
        "name": source.name,
        "fingerprint": source.fingerprint,
        "samples": len(source),
    }
