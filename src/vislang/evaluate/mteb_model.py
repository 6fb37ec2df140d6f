"""A model as an encoder of the package mteb (`pip install vislang[mteb]`).

    import mteb
    from vislang.evaluate.mteb_model import MtebModel
    mteb.evaluate(MtebModel("runs/a"), mteb.get_tasks(["STS12", "STSBenchmark"]))

n: inputs, D: width of the shared space.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from vislang.errors import UserError
from vislang.metrics.features import unit

if TYPE_CHECKING:
    from jaxtyping import Float

    from vislang.models.dual import DualEncoder


class MtebModel:
    """A text side in mteb's tasks of texts; with an image side in its tasks of images, too.

    Rows are those of the joint space and similarity is the cosine. Inputs with a text and an image
    get the sum of both unit rows, as mteb's own dual encoders do.

    Args:
        model: a model, or a MODEL of the commands.
        name: in mteb's results, as "organisation/name"; of a MODEL its last part by default.
        batch_size, device, precision: how it embeds.
    """

    def __init__(
        self,
        model: DualEncoder | str | Path,
        name: str = "",
        *,
        batch_size: int = 64,
        device: str = "auto",
        precision: str = "auto",
    ):
        from vislang.models.pretrained import as_model

        if isinstance(model, str | Path):
            name = name or f"vislang/{Path(str(model)).name}"
        self.model, self.name = as_model(model), name or "vislang/model"
        self.how: dict[str, Any] = {"batch_size": batch_size, "device": device}
        self.how["precision"] = precision

    def encode(self, inputs: Iterable[Mapping[str, Any]], **task: Any) -> Float[np.ndarray, "n D"]:
        """Rows of batches with the keys "text", "image" or both; the task makes no difference.

        Raises:
            UserError: a batch has neither, or the model lacks the side.
        """
        texts: list[str] = []
        images: list[np.ndarray] = []
        kinds: set[tuple[bool, bool]] = set()
        for batch in inputs:
            kinds.add(("text" in batch, "image" in batch))
            texts += batch.get("text", [])
            if "image" in batch:  # at once: all pictures of a task do not fit into memory
                images.append(self._images(batch["image"]))
        if len(kinds) > 1 or kinds & {(False, False)}:
            raise UserError("mteb: every batch needs texts, or images, or both, all alike.")
        rows = []
        if texts:
            from vislang.embed.texts import embed_texts

            rows.append(embed_texts(self.model, texts, **self.how))
        if images:
            rows.append(np.concatenate(images))
        if not rows:
            return np.empty((0, 0), np.float32)
        return rows[0] if len(rows) == 1 else unit(rows[0]) + unit(rows[1])

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosines of all pairs."""
        import torch

        return torch.from_numpy(_unit_rows(embeddings1) @ _unit_rows(embeddings2).T)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosines of rows that belong together."""
        import torch

        return torch.from_numpy((_unit_rows(embeddings1) * _unit_rows(embeddings2)).sum(axis=1))

    @cached_property
    def mteb_model_meta(self) -> Any:
        """What mteb writes beside its results; the revision is the weights' fingerprint."""
        from mteb.models.model_meta import ModelMeta

        from vislang.models.fingerprint import fingerprint_model

        sides = {"text": self.model.text, "image": self.model.image}
        return ModelMeta.create_empty(overwrites={
            "name": self.name,
            "revision": fingerprint_model(self.model),
            "similarity_fn_name": "cosine",
            "modalities": [side for side, there in sides.items() if there is not None],
        })  # fmt: skip

    def _images(self, pictures: Sequence[Any]) -> Float[np.ndarray, "n D"]:
        import torch

        from vislang.devices import autocast, pick_device, pick_precision
        from vislang.embed.texts import evaluating

        side, device = self.model.side("image"), pick_device(self.how["device"])
        precision, rows = pick_precision(self.how["precision"], device), []
        size, prepare = self.how["batch_size"], cast("Callable[[Any], Any]", side.tower.prepare)
        with evaluating(self.model, device), autocast(device, precision):
            for first in range(0, len(pictures), size):
                part = pictures[first : first + size]
                pixels = torch.stack([prepare(p.convert("RGB")) for p in part])
                rows.append(side(pixels.to(device)).float().cpu().numpy())
        return np.concatenate(rows)


def _unit_rows(rows: Any) -> np.ndarray:
    """[n, D] of unit rows from an array, a tensor or one row."""
    return unit(np.atleast_2d(np.asarray(rows, dtype=np.float32)))
