"""BYOL: predict what a slow copy of the network sees.  B: images, D: width."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vislang.objectives.layers import follow, mlp, momentum_copy, out_width
from vislang.objectives.objective import Objective
from vislang.objectives.schedule import Clock
from vislang.objectives.simsiam import spread


class BYOL(Objective):
    """Predict the momentum teacher's projection of one view from the other view.

        loss = mean ||unit(h(g(x₁))) - unit(g'(x'₂))||² + the same with the views exchanged

    x: embeddings; x': those of the model's momentum copy, which the trainer keeps (set its EMA
    decay to `momentum`); g, h: projector and predictor; g': g's momentum copy, kept here.
    BYOL, Grill et al. 2020, arXiv:2006.07733, equation (2) and section 3.2.

    Args:
        width: D, filled in by the builder.
        projector: widths of g after D.
        predictor: hidden width of h.
        momentum: of g' at the start; it rises to 1 along half a cosine when `steps` is known.
        steps: optimizer steps of the run, filled in by the builder.
    """

    needs = ("image", "image_2", "image_teacher", "image_2_teacher")

    def __init__(
        self,
        width: int,
        projector: tuple[int, ...] = (4096, 256),
        predictor: int = 4096,
        momentum: float = 0.996,
        steps: int = 0,
    ):
        super().__init__()
        out = out_width(width, projector)
        self.start_momentum = momentum
        self.clock = Clock(steps)
        self.projector = mlp([width, *projector])
        self.predictor = mlp([out, predictor, out])
        self.teacher = momentum_copy(self.projector)

    @property
    def momentum(self) -> float:
        """Decay of the teacher's weights at this step."""
        return self.clock.cosine(self.start_momentum, 1.0)

    def forward(
        self, image: Tensor, image_2: Tensor, image_teacher: Tensor, image_2_teacher: Tensor
    ) -> Tensor:
        """Loss of the global batch, [B, D] each; in [0, 8]."""
        losses = []
        for view, target in ((image, image_2_teacher), (image_2, image_teacher)):
            guess, goal = self.predictor(self.projector(view)), self.teacher(target.detach())
            losses.append(2 - 2 * F.cosine_similarity(guess, goal, eps=1e-12).mean())
        self.parts = {"output_std": spread(goal), "momentum": goal.new_tensor(self.momentum)}
        return losses[0] + losses[1]

    def after_step(self) -> None:
        """Move the teacher's projector."""
        follow(self.teacher, self.projector, self.momentum)
        self.clock.tick()
