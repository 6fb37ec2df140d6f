"""Pictures of chosen samples as a tower wants them, decoded once as far as memory allows.

n: chosen samples that can be used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from vislang.data.batches import Batches
from vislang.data.decode import Limits
from vislang.data.sample import Source
from vislang.errors import UserError
from vislang.preprocess import Preprocess

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

MEMORY = 2 << 30  # bytes of decoded pictures that are kept
_AT_ONCE = 256


class Pictures:
    """Pictures by row; those that cannot be used are left out and counted.

    Args:
        source: where they are.
        positions: of the samples within it, in order.
        preprocess: of the tower.
        memory: bytes to keep; more pictures than fit are decoded again whenever they are asked for.
        workers, limits: of the loader.

    Attributes:
        kept: rows of `positions` that can be used [n].
        rejected: how many cannot.
    """

    def __init__(
        self,
        source: Source,
        positions: Sequence[int],
        preprocess: Preprocess,
        *,
        memory: int = MEMORY,
        workers: int = 0,
        limits: Limits = Limits(),  # noqa: B008  frozen
    ):
        self._positions = np.asarray(positions, np.int64)
        self._batches = Batches(
            source, _AT_ONCE, needs=("image",), image=preprocess, limits=limits, workers=workers,
            drop_last=False, shuffle=False,
        )  # fmt: skip
        each = 3 * preprocess.size[0] * preprocess.size[1]
        keep = each * len(self._positions) <= memory
        row = {int(position): k for k, position in enumerate(self._positions)}
        kept, parts = [], []
        for batch in self._batches.over(self._positions.tolist()):
            kept += [row[int(position)] for position in batch["index"]]
            if keep:
                parts.append(batch["image"])
        if not kept:
            raise UserError(f"Not one of {len(row)} pictures of {source.name!r} can be used.")
        self.kept: Int[np.ndarray, " n"] = np.array(kept, np.int64)
        self.rejected = len(row) - len(kept)
        self._memory = torch.cat(parts) if keep else None
        if keep:
            self._batches.close()

    def __len__(self) -> int:
        return len(self.kept)

    def rows(self, rows: Tensor | Sequence[int]) -> Tensor:
        """uint8 [b, 3, H, W] of these rows, counted among the kept ones."""
        chosen = torch.as_tensor(rows, dtype=torch.int64)
        if self._memory is not None:
            return self._memory[chosen]
        wanted = self._positions[self.kept[chosen.numpy()]]
        return torch.cat([batch["image"] for batch in self._batches.over(wanted.tolist())])

    def close(self) -> None:
        """End the loader's processes."""
        self._batches.close()
