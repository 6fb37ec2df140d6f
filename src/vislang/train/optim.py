"""AdamW with correct parameter groups, and the learning-rate schedule as a pure function."""

import math
import re
from dataclasses import dataclass

import torch
from torch import nn

from vislang.config import OptimConfig
from vislang.errors import UserError

# Whole dotted parts of a parameter's name that say "position, class token or scale".
UNDECAYED = re.compile(
    r"(^|\.)(\w*pos(itional)?_embed(ding)?s?|position_embeddings|relative_position_bias_table"
    r"|class_embedding|cls_token|reg_token|dist_token|mask_token|logit_scale|log_scale|logit_bias"
    r"|\w*log_scale|\w*logit_scale|bias)(\.|$)"
)
NORMS = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LocalResponseNorm,
)


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then half a cosine; `rate(step)` for step = 0 ... steps - 1.

        step < warmup:  lr * (step + 1) / warmup            (the last warm-up step runs at lr)
        else:           min_lr + (lr - min_lr) * (1 + cos(pi * t)) / 2,
                        t = (step + 1 - warmup) / (steps - warmup)   (the last step at min_lr)

    >>> s = Schedule(lr=1.0, min_lr=0.0, warmup=2, steps=6)
    >>> [round(s.rate(step), 3) for step in range(6)]
    [0.5, 1.0, 0.854, 0.5, 0.146, 0.0]
    """

    lr: float
    min_lr: float
    warmup: int
    steps: int

    def rate(self, step: int) -> float:
        """Learning rate of an optimizer step, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        t = (step + 1 - self.warmup) / max(1, self.steps - self.warmup)
        return self.min_lr + (self.lr - self.min_lr) * (1 + math.cos(math.pi * min(t, 1.0))) / 2


def make_schedule(config: OptimConfig, steps: int) -> Schedule:
    """The schedule of a run of `steps` steps; a warm-up below 1 is a fraction of them."""
    if config.warmup < 0 or config.lr < 0 or config.min_lr < 0:
        raise UserError(
            "optim.warmup, optim.lr and optim.min_lr must not be negative, got"
            f" {config.warmup}, {config.lr} and {config.min_lr}."
        )
    warmup = config.warmup * steps if 0 < config.warmup < 1 else config.warmup
    warmup = round(warmup)
    if warmup > steps:
        raise UserError(
            f"optim.warmup is {warmup} steps, but the run has only {steps}."
            " Give fewer, or a fraction such as 0.1."
        )
    return Schedule(config.lr, config.min_lr, warmup, steps)


def undecayed_names(module: nn.Module) -> set[str]:
    """Names of parameters without weight decay: norms, biases, positions, class token, scale."""
    names = set()
    for prefix, child in module.named_modules():
        for name, parameter in child.named_parameters(recurse=False):
            full = f"{prefix}.{name}" if prefix else name
            # timm, transformers and others bring norm layers of their own classes.
            norm = isinstance(child, NORMS) or type(child).__name__.lower().endswith("norm")
            if norm or parameter.ndim <= 1 or UNDECAYED.search(full):
                names.add(full)
    return names


def parameter_groups(modules: dict[str, nn.Module], weight_decay: float) -> list[dict]:
    """AdamW groups "<module>/decay" and "<module>/no_decay" of all trainable parameters.

    Args:
        modules: named modules, the model first: {"model": model, "objective": objective}.
        weight_decay: decay of the first kind; the second has none.
    """
    groups = []
    seen: set[int] = set()
    for label, module in modules.items():
        without = undecayed_names(module)
        named = [
            (name, parameter)
            for name, parameter in module.named_parameters()
            if parameter.requires_grad and id(parameter) not in seen
        ]
        seen |= {id(parameter) for _, parameter in named}
        for kind, decay in (("decay", weight_decay), ("no_decay", 0.0)):
            members = [(n, p) for n, p in named if (n in without) == (kind == "no_decay")]
            if members:
                groups.append(
                    {
                        "name": f"{label}/{kind}",
                        "names": [f"{label}.{name}" for name, _ in members],
                        "params": [parameter for _, parameter in members],
                        "weight_decay": decay,
                        "lr_scale": 1.0,
                    }
                )
    if not any(p.requires_grad for p in next(iter(modules.values())).parameters()):
        raise UserError(
            "Nothing can be trained: every tower is frozen and no side has a head with weights."
            " Unfreeze a tower (model.image.frozen=false) or give it a head (model.image.head)."
        )
    return groups


def make_optimizer(modules: dict[str, nn.Module], config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over `parameter_groups`; the fused kernel, which is the quickest on CPU and CUDA."""
    groups = parameter_groups(modules, config.weight_decay)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set every group's learning rate to `rate` times its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
