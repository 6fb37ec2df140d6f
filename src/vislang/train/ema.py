"""Exponential moving average of the weights: saved beside the raw ones, never instead."""

import copy

import torch
from torch import nn


class Ema:
    """A copy of a model whose trainable weights follow slowly.

        shadow <- decay * shadow + (1 - decay) * weight        after every optimizer step

    Frozen parameters are shared with the model, not copied. Buffers (batch-norm statistics) are
    copied as they are. The copy, `.model`, also serves as momentum teacher.
    Polyak & Juditsky 1992; as a teacher: MoCo, He et al. 2020, arXiv:1911.05722, eq. 2.
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
    def update(self) -> None:
        """Move the shadow towards the weights."""
        shadow = [pair[0] for pair in self._pairs]
        torch._foreach_lerp_(shadow, [pair[1] for pair in self._pairs], 1 - self.decay)
        for mine, theirs in self._buffers:
            mine.copy_(theirs)
