"""NNCLR: the nearest neighbour of a view is the positive of the other view.  B: images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vislang.objectives.infonce import contrast
from vislang.objectives.layers import mlp, out_width
from vislang.objectives.objective import Objective, one_of, positive
from vislang.objectives.queue import Queue


class NNCLR(Objective):
    """Find each view's prediction with the other view's nearest neighbour in a queue.

        loss = ½ [CE(n(z₁)·p₂ᵀ/τ) + CE(n(z₂)·p₁ᵀ/τ)],  the target being the own row
        z = g(x), p = h(z), all unit rows;  n(z): the row of the queue with the largest cosine

    The queue is read before z₁ is written to it (unit rows, global batch); n carries no gradient.
    NNCLR, Dwibedi et al. 2021, arXiv:2104.14548, equation (2), section 3.2, appendix (code).

    Args:
        width: D, filled in by the builder.
        temperature: τ.
        queue: rows of the queue.
        projector: widths of g after D.
        predictor: hidden width of h.
        final_norm: a BatchNorm after the last layer of g.
        candidates: among what a match is picked: "predictions" (a neighbour picks among the
            predictions, the paper), "neighbours" (lightly's and the golden numbers' direction),
            or "both", the mean of the two.
        enqueue: which view is written, "first" (the paper) or "second".
    """

    needs = ("image", "image_2")

    def __init__(
        self,
        width: int,
        temperature: float = 0.1,
        queue: int = 98304,
        projector: tuple[int, ...] = (2048, 2048, 256),
        predictor: int = 4096,
        final_norm: bool = True,
        candidates: str = "predictions",
        enqueue: str = "first",
    ):
        super().__init__()
        positive(temperature=temperature)
        one_of(("predictions", "neighbours", "both"), candidates=candidates)
        one_of(("first", "second"), enqueue=enqueue)
        out = out_width(width, projector)
        self.scale, self.candidates, self.enqueue = 1 / temperature, candidates, enqueue
        self.projector = mlp([width, *projector], final_norm=final_norm)
        self.predictor = mlp([out, predictor, out])
        self.queue = Queue(queue, out)

    def forward(self, image: Tensor, image_2: Tensor) -> Tensor:
        """Loss of the global batch, [B, D] each."""
        first, second = self.projector(image), self.projector(image_2)
        near, near_second = self.queue.nearest(first), self.queue.nearest(second)
        loss = (
            self._match(near, self.predictor(second))
            + self._match(near_second, self.predictor(first))
        ) / 2
        written = first if self.enqueue == "first" else second
        self.queue.push(F.normalize(written.detach(), dim=-1))
        self.parts = {"neighbour_cosine": F.cosine_similarity(near, first.detach()).mean()}
        return loss

    def _match(self, neighbour: Tensor, prediction: Tensor) -> Tensor:
        prediction = F.normalize(prediction, dim=-1)
        among_predictions, among_neighbours = contrast(
            neighbour, prediction, prediction.new_tensor(self.scale)
        )
        if self.candidates == "both":
            return (among_predictions + among_neighbours) / 2
        return among_predictions if self.candidates == "predictions" else among_neighbours

    def after_step(self) -> None:
        """Write the queue."""
        self.queue.commit()
