"""CoCa: contrast and caption.  B: pairs, D: width, L: tokens of a caption, V: vocabulary."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vislang.objectives.infonce import symmetric_contrast
from vislang.objectives.objective import clamp_log_scale, full_precision, new_log_scale, positive
from vislang.objectives.persample import PerSample


class CoCa(PerSample):
    """InfoNCE of image and text, plus writing the caption token by token.

        loss = w_con InfoNCE(I, T) + w_cap mean over tokens of -ln softmax(logits)[token]

    The captioning part is a mean over all tokens of the global batch, a sum over samples: the
    seam need not gather its logits (see `persample`).
    CoCa, Yu et al. 2022, arXiv:2205.01917, equations (3)-(4), section 3.2 (weights 1 and 2).

    Args:
        contrastive, captioning: w_con, w_cap.
        temperature, learn, max_scale, block: as of InfoNCE.
        smoothing: share of a token's target that is spread over the vocabulary.
    """

    needs = ("image", "text", "caption_logits", "caption_ids")
    per_sample = ("caption_logits", "caption_ids")
    counted = ("caption_ids",)

    def __init__(
        self,
        contrastive: float = 1.0,
        captioning: float = 2.0,
        temperature: float = 0.07,
        learn: bool = True,
        max_scale: float = 100.0,
        block: int = 0,
        smoothing: float = 0.0,
    ):
        super().__init__()
        positive(temperature=temperature, max_scale=max_scale)
        self.contrastive, self.captioning = contrastive, captioning
        self.max_scale, self.block, self.smoothing = max_scale, block, smoothing
        self.log_scale = new_log_scale(1 / temperature, learn)

    def count(self, **rows: Tensor) -> Tensor:
        """Tokens to be written, of `caption_ids` int64 [B, L] (-1: none)."""
        return (rows["caption_ids"] >= 0).sum()

    def across(self, **rows: Tensor) -> Tensor:
        """The contrast of the global batch, [B, D] each."""
        image, text = F.normalize(rows["image"], dim=-1), F.normalize(rows["text"], dim=-1)
        scale = self.log_scale.exp()
        loss = symmetric_contrast(image, text, scale, self.block)
        self.parts = {"infonce": loss.detach(), "scale": scale.detach()}
        return self.contrastive * loss

    def within(self, total: Tensor, **rows: Tensor) -> Tensor:
        """The captioning of these rows: logits [B, L, V], ids [B, L]."""
        loss = F.cross_entropy(
            full_precision(rows["caption_logits"]).flatten(0, 1),
            rows["caption_ids"].flatten(),
            ignore_index=-1,
            reduction="sum",
            label_smoothing=self.smoothing,
        ) / total.clamp(min=1)
        return self.captioning * loss

    def after_step(self) -> None:
        """Hold the scale in [1, max_scale]."""
        clamp_log_scale(self.log_scale, self.max_scale)
