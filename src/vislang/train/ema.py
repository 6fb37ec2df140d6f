"""Slow copies of a model: a moving average to be saved, and a momentum teacher."""

import copy

import torch
from torch import Tensor, nn


class Ema:
    """A copy of a model whose trainable weights follow slowly; saved beside the raw ones.

        shadow <- decay * shadow + (1 - decay) * weight        after every optimizer step

    Frozen parameters are shared with the model, not copied. Buffers (batch-norm statistics) are
    copied as they are. The copy is `.model`.
    Polyak & Juditsky 1992.

    Args:
        model: whom to follow.
        decay: how slowly.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        shared = {id(p): p for p in model.parameters() if not p.requires_grad}
        self.model = copy.deepcopy(model, shared)
        self.model.eval()
        own = [p for p in model.parameters() if p.requires_grad]
        shadow = [p for p in self.model.parameters() if p.requires_grad]
        for parameter in shadow:
            parameter.requires_grad_(False)
        self._pairs = list(zip(shadow, own))
        self._buffers = list(zip(self.model.buffers(), model.buffers()))

    @torch.no_grad()
    def update(self, decay: float | None = None) -> None:
        """Move the shadow towards the weights, by another decay than usual if one is given."""
        shadow: list[Tensor] = [pair[0] for pair in self._pairs]
        own: list[Tensor] = [pair[1] for pair in self._pairs]
        step = 1 - (self.decay if decay is None else decay)
        torch._foreach_lerp_(shadow, own, step)
        for mine, theirs in self._buffers:
            mine.copy_(theirs)


class Teacher(Ema):
    """The slow copy that answers an objective's `*_teacher` keys.

    It follows the objective's `momentum`, which may change from step to step, or else a fixed
    decay. It is in training mode, so that batch norms take the statistics of the batch, as in
    BYOL, MoCo and DINO. Momentum teacher: He et al. 2020, arXiv:1911.05722, equation (2);
    Grill et al. 2020, arXiv:2006.07733, section 3.1.

    Args:
        model: the student.
        objective: asked for its `momentum`.
        decay: where it has none.
    """

    def __init__(self, model: nn.Module, objective: nn.Module, decay: float):
        super().__init__(model, decay)
        self.objective = objective
        self.model.train()

    def update(self, decay: float | None = None) -> None:
        """Move towards the student; before the objective counts the step."""
        super().update(momentum_of(self.objective))


def needs_teacher(objective: nn.Module) -> bool:
    """Whether the objective asks for rows of a momentum teacher."""
    return any(key.endswith("_teacher") for key in objective.needs)  # type: ignore[union-attr]


def momentum_of(objective: nn.Module) -> float | None:
    """The decay that an objective wants for its teacher at this step, if it says so."""
    found = getattr(objective, "momentum", None)
    return None if found is None else float(found)
