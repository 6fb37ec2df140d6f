"""What the embeddings of a step look like, so that a collapse is seen while it happens.

N: rows of the global batch (at most `MOST_ROWS`), D: width.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from vislang.metrics.features import (
    alignment,
    effective_rank,
    modality_gap,
    spread,
    uniformity,
    unit,
)

MOST_ROWS = 1024  # the work is O(N D min(N, D))
LEAST_SPREAD = 0.02  # of what even rows have
LEAST_RANK = 2.0
LEAST_PROTOTYPES = 2.0
PAIRS = (("image", "text"), ("image", "image_2"), ("text", "text_2"), ("image", "image_teacher"))


class Diagnostics:
    """Figures of one global batch; `watch` is handed to the seam.

    `values` after a step, each for the sides that the objective sees:

    * modality_gap: ||mean image - mean text|| of unit rows (Liang et al. 2022, arXiv:2203.02053);
    * alignment: mean ||x_i - y_i||² of the positives, image and text or two views;
    * image_uniformity, text_uniformity: log mean exp(-2 ||x_i - x_j||²) (Wang & Isola 2020,
      arXiv:2005.10242);
    * image_std, text_std: sqrt(D) · mean over dimensions of the standard deviation of unit rows:
      1 when they cover the sphere, 0 when they are one point (Chen & He 2020, arXiv:2011.10566,
      figure 2);
    * image_effective_rank, text_effective_rank: exp of the entropy of the covariance's spectrum,
      1 to D (Roy & Vetterli 2007);
    * prototypes_used: exp of the entropy of the use of prototypes, where the objective has some.
    """

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def watch(self, rows: Mapping[str, Tensor]) -> None:
        """Note the figures of these rows."""
        self.values = describe_rows(rows)

    def line(self, parts: Mapping[str, Any]) -> dict[str, Any]:
        """Values and flags for the log.

        Args:
            parts: the objective's, for the use of its prototypes.
        """
        used = [float(v) for k, v in parts.items() if k.rpartition("/")[2] == "prototypes_used"]
        values = self.values | ({"prototypes_used": min(used)} if used else {})
        return {"values": values, "flags": flags_of(values)}


def describe_rows(rows: Mapping[str, Tensor]) -> dict[str, float]:
    """Figures of embeddings [N, D] by key; see `Diagnostics`."""
    arrays = {
        key: unit(value[:MOST_ROWS].detach().float().cpu().numpy())
        for key, value in rows.items()
        if key in {name for pair in PAIRS for name in pair} and value.ndim == 2
    }
    if any(len(x) < 2 or not np.isfinite(x).all() for x in arrays.values()):
        return {}
    values: dict[str, float] = {}
    if "image" in arrays and "text" in arrays:
        values["modality_gap"] = modality_gap(arrays["image"], arrays["text"])
    pair = next((pair for pair in PAIRS if set(pair) <= set(arrays)), None)
    if pair:
        values["alignment"] = float(alignment(arrays[pair[0]], arrays[pair[1]]).mean())
    for side in ("image", "text"):
        if side in arrays:
            x = arrays[side]
            values[f"{side}_uniformity"] = uniformity(x)
            values[f"{side}_std"] = math.sqrt(x.shape[1]) * spread(x)
            values[f"{side}_effective_rank"] = effective_rank(x)
    return values


def flags_of(values: Mapping[str, float]) -> Sequence[str]:
    """Sentences about what looks like a collapse.

    >>> flags_of({"image_std": 0.01, "image_effective_rank": 30.0})
    ['image embeddings collapse to a point: std 0.01 (1 is even)']
    """
    flags = []
    for side in ("image", "text"):
        std = values.get(f"{side}_std", math.inf)
        rank = values.get(f"{side}_effective_rank", math.inf)
        if std < LEAST_SPREAD:
            flags.append(f"{side} embeddings collapse to a point: std {std:.2g} (1 is even)")
        elif rank < LEAST_RANK:
            flags.append(f"{side} embeddings collapse to a line: effective rank {rank:.2f}")
    used = values.get("prototypes_used", math.inf)
    if used < LEAST_PROTOTYPES:
        flags.append(f"one prototype takes nearly all: {used:.2f} are in use")
    return flags
