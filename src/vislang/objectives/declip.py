"""DeCLIP's text-neighbour supervision.  B: pairs in the global batch, D: width."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vislang.objectives.infonce import symmetric_contrast
from vislang.objectives.objective import Objective, clamp_log_scale, new_log_scale, positive
from vislang.objectives.queue import Queue


class DeCLIP(Objective):
    """InfoNCE, plus InfoNCE against the nearest other text in a queue of earlier texts.

        loss = (1 - w) InfoNCE(I, T) + w InfoNCE(I, n(T))

    n(T): for each text the row of the queue with the largest cosine, without gradient; the
    queue holds unit text embeddings of earlier steps. One learned scale serves both terms.
    DeCLIP, Li et al. 2022, arXiv:2110.05208, section 3.2 (nearest-neighbour supervision).

    Args:
        width: D, filled in by the builder.
        queue: rows of the queue.
        weight: w.
        temperature, learn, max_scale, block: as of InfoNCE.
    """

    needs = ("image", "text")

    def __init__(
        self,
        width: int,
        queue: int = 65536,
        weight: float = 0.2,
        temperature: float = 0.07,
        learn: bool = True,
        max_scale: float = 100.0,
        block: int = 0,
    ):
        super().__init__()
        positive(temperature=temperature, max_scale=max_scale)
        self.weight, self.max_scale, self.block = weight, max_scale, block
        self.log_scale = new_log_scale(1 / temperature, learn)
        self.queue = Queue(queue, width)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Loss of the global batch, [B, D] each."""
        image, text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
        near = self.queue.nearest(text)
        self.queue.push(text)
        scale = self.log_scale.exp()
        own = symmetric_contrast(image, text, scale, self.block)
        neighbour = symmetric_contrast(image, near, scale, self.block)
        self.parts = {
            "infonce": own.detach(),
            "neighbour": neighbour.detach(),
            "neighbour_cosine": (near * text.detach()).sum(1).mean(),
            "scale": scale.detach(),
        }
        return (1 - self.weight) * own + self.weight * neighbour

    def after_step(self) -> None:
        """Write the queue; hold the scale in [1, max_scale]."""
        self.queue.commit()
        clamp_log_scale(self.log_scale, self.max_scale)
