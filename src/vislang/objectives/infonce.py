"""The contrastive objective of CLIP.  B: pairs in the global batch, D: embedding width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vislang.objectives.blockwise import contrast_in_blocks, rows_at_a_time
from vislang.objectives.objective import Objective, clamp_log_scale, new_log_scale, positive


class InfoNCE(Objective):
    """Pick each image's own text among all B, and each text's own image (CLIP).

        loss = ½ [CE(s·I·Tᵀ) + CE(s·T·Iᵀ)],  the target being the diagonal

    I, T [B, D]: rows of the two keys scaled to unit length; s = 1/temperature, learned as
    log s and held in [0, ln max_scale] after every step.
    CLIP, Radford et al. 2021, arXiv:2103.00020, figure 3 and section 2.5 (clamping).

    Args:
        temperature: start of 1/s.
        learn: whether s is learned.
        max_scale: upper bound of a learned s.
        first: batch key of I.
        second: batch key of T.
        block: rows of the B x B logits held at a time, forward and backward, so that memory is
            O(block · B); 0 holds all of them up to B = 2,048 and 256 beyond. Same numbers.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        learn: bool = True,
        max_scale: float = 100.0,
        block: int = 0,
        first: str = "image",
        second: str = "text",
    ):
        super().__init__()
        positive(temperature=temperature, max_scale=max_scale)
        self.needs = (first, second)
        self.max_scale, self.block = max_scale, block
        self.log_scale = new_log_scale(1 / temperature, learn)

    def forward(self, **rows: Tensor) -> Tensor:
        """Loss of the global batch; both keys are [B, D]."""
        first, second = (F.normalize(rows[key], dim=-1) for key in self.needs)
        scale = self.log_scale.exp()
        forth, back = contrast(first, second, scale, self.block)
        self.parts = {
            f"{self.needs[0]}_to_{self.needs[1]}": forth.detach(),
            f"{self.needs[1]}_to_{self.needs[0]}": back.detach(),
            "scale": scale.detach(),
        }
        return (forth + back) / 2

    def after_step(self) -> None:
        """Hold the scale in [1, max_scale]."""
        clamp_log_scale(self.log_scale, self.max_scale)


def symmetric_contrast(first: Tensor, second: Tensor, scale: Tensor, block: int = 0) -> Tensor:
    """Mean of the two cross-entropies of `contrast`: InfoNCE of unit rows."""
    forth, back = contrast(first, second, scale, block)
    return (forth + back) / 2


def contrast(first: Tensor, second: Tensor, scale: Tensor, block: int = 0) -> tuple[Tensor, Tensor]:
    """Cross-entropies of own pairs: rows of `first` among `second`, and the other way.

    Args:
        first, second: [B, D], unit rows.
        scale: scalar s that multiplies the cosines.
        block: rows of logits held at a time; 0 chooses.
    """
    block = rows_at_a_time(len(first), block)
    if block < len(first):
        return contrast_in_blocks(first, second, scale, block)
    logits = scale * first @ second.T  # [first, second]
    own = torch.arange(len(logits), device=logits.device)
    return F.cross_entropy(logits, own), F.cross_entropy(logits.T, own)
