"""Domain-pure batches: several sources, each batch from one of them, all equally often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vislang.data.rounds import pure_visits, whole_batches
from vislang.data.sources.mix import Mixture, Part
from vislang.errors import UserError


class Pure(Mixture):
    """Batches of one part (a domain) each, in rounds that visit every part once.

    A part that is used up begins anew in another order; an epoch is as many batches as all parts
    have whole ones. Weights have no meaning here.

    Args:
        path: a folder with one folder for each domain, as `vislang curate fetch` leaves it; or a
            name where parts are given.
        parts: specs, or mappings {source: spec, options: {...}}, as in the layout mix.
        same_classes: classes of the same name in several parts are one class.
    """

    def __init__(
        self,
        path: str = "",
        *,
        parts: Mapping[str, float] | Sequence[Part] = (),
        same_classes: bool = False,
    ):
        if not parts and path:
            parts = _folders(Path(path))
        super().__init__(Path(path).name if path else "", parts=parts, same_classes=same_classes)
        self._sizes = tuple(len(part) for part in self.parts)

    def samples_in_epoch(self, batch_size: int) -> int:
        """Those of the parts' whole batches."""
        return batch_size * sum(whole_batches(self._sizes, self._names, batch_size))

    def visits(self, seed: int, epoch: int, batch_size: int) -> np.ndarray:
        """The samples of an epoch in order, in place of a shuffle: see `data/rounds.py`."""
        whole_batches(self._sizes, self._names, batch_size)
        return pure_visits(seed, epoch, self._sizes, batch_size)


def _folders(path: Path) -> list[str]:
    if not path.is_dir():
        from vislang.data.sources import missing_path

        raise missing_path(path, "folder of domains")
    inside = [p for p in sorted(path.iterdir()) if p.is_dir() and any(p.glob("*.tar"))]
    if not inside:
        raise UserError(
            f"{path} has no folders with .tar files, one for each domain. `vislang curate fetch`"
            " makes them; or give the parts: --data.train_options '{parts: [...]}'."
        )
    return [f"webdataset:{folder}" for folder in inside]
