"""SwAV: predict one view's cluster assignment from another view.  B: images, K: prototypes."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislang.objectives.layers import mlp, out_width
from vislang.objectives.objective import Objective, positive
from vislang.objectives.queue import Queue
from vislang.objectives.schedule import Clock
from vislang.objectives.selfdistillation import entropy
from vislang.objectives.sinkhorn import assign
from vislang.objectives.soft import soft_cross_entropy, sum_and_product


class SwAV(Objective):
    """Predict, from every other view, how a view is shared among prototypes.

        loss = mean over (i, v≠i) and B of -Σ_k q_ik ln softmax(z_v·Cᵀ/τ)_k
        q_i = sinkhorn(z_i·Cᵀ, ε) without gradient, over the batch (and the queue)

    z = unit(g(x)); the softmax is over prototypes; i runs over the two views, v also over small
    crops. Rows of C are unit rows again after every step.
    SwAV, Caron et al. 2020, arXiv:2006.09882, equations (2)-(5), algorithm in appendix A.

    Args:
        width: D, filled in by the builder.
        prototypes: K.
        temperature: τ.
        epsilon, iterations: of Sinkhorn.
        projector: widths of g after D; empty for none.
        queue: earlier embeddings of each view that join the assignments once it is full; 0: none.
        queue_start: steps (below 1: fraction of the run) before the queue begins to fill.
        freeze: steps (or fraction) at the start during which C is not trained (the paper: 313).
        crops: small crops, keys image_crop_1 ...
        steps: optimizer steps of the run, filled in by the builder.
    """

    def __init__(
        self,
        width: int,
        prototypes: int = 3000,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
        projector: tuple[int, ...] = (2048, 128),
        queue: int = 0,
        queue_start: float = 0.0,
        freeze: float = 0.0,
        crops: int = 0,
        steps: int = 0,
    ):
        super().__init__()
        positive(temperature=temperature, epsilon=epsilon, iterations=iterations)
        self.needs = ("image", "image_2", *(f"image_crop_{i + 1}" for i in range(crops)))
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.clock = Clock(steps)
        self.queue_start = self.clock.step_of(queue_start, "queue_start")
        self.freeze = self.clock.step_of(freeze, "freeze")
        out = out_width(width, projector)
        self.projector = mlp([width, *projector])
        self.prototypes = nn.Parameter(F.normalize(torch.randn(prototypes, out), dim=-1))
        self.queues = nn.ModuleList([Queue(queue, out) for _ in range(2)] if queue else [])

    def forward(self, **rows: Tensor) -> Tensor:
        """Loss of the global batch, [B, D] for each key."""
        directions = self.prototypes
        if self.clock.before(self.freeze):
            directions = directions.detach()
        unit = [F.normalize(self.projector(rows[key]), dim=-1) for key in self.needs]
        scores = [view @ directions.T for view in unit]
        found = [score / self.temperature for score in scores]
        wanted = [self._assign(i, scores[i].detach()) for i in range(2)]
        terms = [soft_cross_entropy(found[0], wanted[1]), soft_cross_entropy(found[1], wanted[0])]
        for logits in found[2:]:  # a small crop: Σ_i CE(z, q_i) needs no more than Σ_i q_i
            log_sum, product = sum_and_product(logits, wanted[0] + wanted[1])
            terms.append(2 * log_sum - product)
        for i in range(2):
            if self.queues and not self.clock.before(self.queue_start):
                self._queue(i).push(unit[i])
        with torch.no_grad():
            use = wanted[0].mean(0)
            self.parts = {
                "assignment_entropy": entropy(wanted[0]),
                "prototypes_used": entropy(use[None]).exp(),
            }
        return torch.stack(terms).mean(1).sum() / (2 * len(found) - 2)

    def _queue(self, view: int) -> Queue:
        return cast(Queue, self.queues[view])

    @torch.no_grad()
    def _assign(self, view: int, scores: Tensor) -> Tensor:
        count = len(scores)
        if self.queues and self._queue(view).full:
            scores = torch.cat([self._queue(view).rows @ self.prototypes.detach().T, scores])
        return assign(scores, self.epsilon, self.iterations)[-count:]

    @torch.no_grad()
    def after_step(self) -> None:
        """Write the queues, renormalise the prototypes, count the step."""
        for view in range(len(self.queues)):
            self._queue(view).commit()
        self.prototypes.copy_(F.normalize(self.prototypes, dim=-1))
        self.clock.tick()
