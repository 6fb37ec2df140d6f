"""Contrastive learning with labels (UniCL).  B: pairs in the global batch, D: width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vislang.objectives.objective import Objective, clamp_log_scale, new_log_scale, positive


class UniCL(Objective):
    """As InfoNCE, but every pair of the same class is right, not only the own one.

        loss = ½ [mean_i Σ_j P_ij (-ln softmax_j Z_ij) + the same with Zᵀ]
        Z = s·I·Tᵀ,  P_ij = 1/|positives of i| where label_i = label_j >= 0, or i = j

    A sample with label -1 (an image-text pair) has only itself; with all labels -1 this is
    InfoNCE. Log-softmax, so it stays finite at any scale.
    UniCL, Yang et al. 2022, arXiv:2204.03610, equations (2)-(4).

    Args:
        temperature: start of 1/s.
        learn: whether s is learned.
        max_scale: upper bound of a learned s.
    """

    needs = ("image", "text", "label")

    def __init__(self, temperature: float = 0.07, learn: bool = True, max_scale: float = 100.0):
        super().__init__()
        positive(temperature=temperature, max_scale=max_scale)
        self.max_scale = max_scale
        self.log_scale = new_log_scale(1 / temperature, learn)

    def forward(self, image: Tensor, text: Tensor, label: Tensor) -> Tensor:
        """Loss of the global batch: image, text [B, D], label int64 [B]."""
        scale = self.log_scale.exp()
        logits = scale * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
        same = (label[:, None] == label) & (label >= 0)
        same.fill_diagonal_(True)
        wanted = same.to(logits.dtype)
        wanted /= wanted.sum(1, keepdim=True)  # symmetric `same`, so this serves both ways
        forth = -(wanted * logits.log_softmax(1)).sum(1).mean()
        back = -(wanted.T * logits.log_softmax(0)).sum(0).mean()
        self.parts = {
            "image_to_text": forth.detach(),
            "text_to_image": back.detach(),
            "scale": scale.detach(),
            "positives": same.sum(1).to(torch.float32).mean(),
        }
        return (forth + back) / 2

    def after_step(self) -> None:
        """Hold the scale in [1, max_scale]."""
        clamp_log_scale(self.log_scale, self.max_scale)
