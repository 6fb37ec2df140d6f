"""Writing a store of images x domains; the layout is described in vislang.store.domains.

n: images of a part, T: domains, D: width, m: distinct prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.store.domains import DomainStore
from vislang.store.writer import StoreWriter

if TYPE_CHECKING:
    from jaxtyping import Float


class DomainWriter:
    """Writes a DomainStore part by part, from any process; `finish` makes it whole.

    Args:
        folder: the store.
        domains: of each, a mapping with at least `name` and `templates`.
        dtype: float32 or float16, on disk.
    """

    def __init__(
        self, folder: Path | str, domains: Sequence[Mapping[str, Any]], dtype: str = "float32"
    ):
        self.folder, self.domains = Path(folder), [dict(domain) for domain in domains]
        self._images = StoreWriter(self.folder, dtype)
        self._prompts = StoreWriter(self.folder / "prompts", dtype)

    def write_images(
        self,
        part: str,
        rows: Float[np.ndarray, "T n D"],
        ids: Sequence[str],
        labels: Sequence[int] | np.ndarray,
        indices: Sequence[int] | np.ndarray,
        missing: Sequence[tuple[int, int, str]] = (),
    ) -> dict[str, Any]:
        """Write a part and return its note.

        Args:
            part: its number as text, "0000".
            rows: the embeddings; those of missing pairs are set to zero.
            ids, labels, indices: of the n images; label -1 for none.
            missing: (image within the part, domain index, reason).
        """
        import pyarrow as pa

        count, n = len(self.domains), len(ids)
        if rows.shape[:2] != (count, n):
            raise ValueError(f"part {part}: rows {rows.shape} are not of {count} x {n} pairs")
        rows = np.array(rows)
        reasons: list[str | None] = [None] * (count * n)
        for image, domain, reason in missing:
            rows[domain, image] = 0
            reasons[domain * n + image] = reason
        metadata = {
            "id": list(ids) * count,
            "index": np.tile(np.asarray(indices, np.int64), count),
            "label": np.tile(np.asarray(labels, np.int64), count),
            "domain": [domain["name"] for domain in self.domains for _ in range(n)],
            "reason": pa.array(reasons, pa.string()),
        }
        return self._images.write_part(part, metadata, image=rows.reshape(count * n, rows.shape[2]))

    def write_prompts(
        self, part: str, texts: Sequence[str], rows: Float[np.ndarray, "m D"]
    ) -> dict[str, Any]:
        """Write a part of the distinct prompts and return its note."""
        return self._prompts.write_part(part, {"text": list(texts)}, text=rows)

    def finish(
        self,
        images: Sequence[Mapping[str, Any]],
        prompts: Sequence[Mapping[str, Any]] = (),
        *,
        classes: Sequence[str] = (),
        words: Sequence[Sequence[str]] = (),
        official: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        rejected: Sequence[Sequence[str]] = (),
    ) -> DomainStore:
        """Write the manifests, that of the images last.

        Args:
            images, prompts: the notes of all parts, in the order in which they join.
            classes: class names in the order of the labels.
            words: for each class all words that stand for it; by default its name.
            official: {"templates": [...], "names": [one a class]}.
            settings: what else the embeddings depend on.
            rejected: (id, reason, origin) of the missing pairs.
        """
        if prompts:
            self._prompts.finish(prompts, dict(settings or {}))
        about = {
            "domains": self.domains,
            "classes": list(classes),
            "words": [list(some) for some in words] or [[name] for name in classes],
            "official": official,
        }
        self._images.finish(images, dict(settings or {}) | about, rejected)
        return DomainStore(self.folder)
