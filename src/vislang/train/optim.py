"""AdamW with correct parameter groups, and the learning-rate schedule as a pure function."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from vislang.config import OptimConfig
from vislang.errors import UserError
from vislang.models.dual import DualEncoder
from vislang.models.layers import Layers, find_layers

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
    """Linear warm-up, then half a cosine; `rate(step)` for step = start ... steps - 1.

        s = step - start, S = steps - start
        s < warmup:  lr * (s + 1) / warmup                  (the last warm-up step runs at lr)
        else:        min_lr + (lr - min_lr) * (1 + cos(pi * t)) / 2,
                     t = (s + 1 - warmup) / (S - warmup)    (the last step at min_lr)

    Before and after these steps the rate is 0.

    >>> s = Schedule(lr=1.0, min_lr=0.0, warmup=2, steps=6)
    >>> [round(s.rate(step), 3) for step in range(6)]
    [0.5, 1.0, 0.854, 0.5, 0.146, 0.0]
    """

    lr: float
    min_lr: float
    warmup: int
    steps: int
    start: int = 0

    def active(self, step: int) -> bool:
        """Whether the step, counted from 0, is within the schedule."""
        return self.start <= step < self.steps

    def rate(self, step: int) -> float:
        """Learning rate of an optimizer step, counted from 0."""
        if not self.active(step):
            return 0.0
        step -= self.start
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        t = (step + 1 - self.warmup) / max(1, self.steps - self.start - self.warmup)
        return self.min_lr + (self.lr - self.min_lr) * (1 + math.cos(math.pi * t)) / 2


def make_schedule(config: OptimConfig, steps: int, start: int = 0) -> Schedule:
    """The schedule from step `start` to `steps`; a warm-up below 1 is a fraction of them."""
    if config.warmup < 0 or config.lr < 0 or config.min_lr < 0:
        raise UserError(
            "optim.warmup, optim.lr and optim.min_lr must not be negative, got"
            f" {config.warmup}, {config.lr} and {config.min_lr}."
        )
    own = steps - start
    warmup = round(config.warmup * own if 0 < config.warmup < 1 else config.warmup)
    if warmup > own:
        what = f"from step {start:,} to {steps:,}, which are {own:,}" if start else f"only {own:,}"
        raise UserError(
            f"optim.warmup is {warmup:,} steps, but the run has {what}."
            " Give fewer, or a fraction such as 0.1."
        )
    return Schedule(config.lr, config.min_lr, warmup, steps, start)


def make_schedules(config: OptimConfig, steps: int, steps_per_epoch: int) -> dict[str, Schedule]:
    """The schedules of the two sides, and under "" that of all the rest.

    A side that learns only from one epoch on, or until one, has its warm-up and its cosine within
    these: with `image_until` the text side goes on alone, as in LiT.
    ProtoCLIP, Chen et al. 2022, arXiv:2206.10996.
    """
    schedules = {"": make_schedule(config, steps)}
    for side in ("image", "text"):
        first, last = getattr(config, f"{side}_from"), getattr(config, f"{side}_until")
        start = round(first * steps_per_epoch)
        end = round(last * steps_per_epoch) if last else steps
        if first < 0 or not start < end <= steps:
            raise UserError(
                f"optim.{side}_from is epoch {first:g} and optim.{side}_until epoch {last:g}, but"
                f" the run goes from epoch 0 to {steps / steps_per_epoch:g}. Give an earlier epoch"
                " first, both within the run (until 0 means its end)."
            )
        schedules[side] = make_schedule(config, end, start)
    return schedules


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


@dataclass(frozen=True)
class Part:
    """Parameters that share a learning rate and a decay.

    Attributes:
        label: of its groups.
        side: whose schedule it follows: image, text, or "" for the run's.
        lr_scale: its rate over that of the schedule.
        weight_decay: of those of its parameters that decay.
    """

    label: str
    side: str
    lr_scale: float
    weight_decay: float


def parameter_groups(
    modules: dict[str, nn.Module], weight_decay: float, config: OptimConfig | None = None
) -> list[dict[str, Any]]:
    """AdamW groups "<part>/decay" and "<part>/no_decay" of all trainable parameters.

    Each parameter is in exactly one. A dual encoder has the parts image.tower, image.head,
    text.tower and text.head, and its towers have one for each layer where layers learn at
    different rates; another module is one part.

    Args:
        modules: named modules, the model first: {"model": model, "objective": objective}.
        weight_decay: decay of the first kind; the second has none.
        config: rates and decays of the parts; without it they are all alike.
    """
    groups: dict[str, dict[str, Any]] = {}
    seen: set[int] = set()
    for label, module in modules.items():
        without = undecayed_names(module)
        part_of = _parts(label, module, config, weight_decay)
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            part = part_of(name)
            kind = "no_decay" if name in without else "decay"
            group = groups.setdefault(
                f"{part.label}/{kind}",
                {
                    "name": f"{part.label}/{kind}",
                    "names": [],
                    "params": [],
                    "weight_decay": 0.0 if kind == "no_decay" else part.weight_decay,
                    "lr_scale": part.lr_scale,
                    "side": part.side,
                },
            )
            group["names"].append(f"{label}.{name}")
            group["params"].append(parameter)
    if not any(p.requires_grad for p in next(iter(modules.values())).parameters()):
        raise UserError(
            "Nothing can be trained: every tower is frozen or locked and no side has a head with"
            " weights. Unfreeze a tower (model.image.frozen=false, a smaller model.image.lock),"
            " give it an adapter (model.image.adapter) or a head (model.image.head)."
        )
    return list(groups.values())


def _parts(
    label: str, module: nn.Module, config: OptimConfig | None, weight_decay: float
) -> Callable[[str], Part]:
    """From a parameter's name to its part."""
    if config is None or not isinstance(module, DualEncoder):
        whole = Part(label, "", 1.0, weight_decay)
        return lambda name: whole
    parts: dict[str, Part] = {}
    layers: dict[str, Layers] = {}
    decays: dict[str, float] = {}
    for side in ("image", "text"):
        decays[side] = getattr(config, f"layer_decay_{side}")
        if not 0 < decays[side] <= 1:
            raise UserError(
                f"optim.layer_decay_{side} must be above 0 and at most 1, got {decays[side]}."
            )
        if decays[side] < 1 and getattr(module, side) is not None:
            layers[side] = find_layers(getattr(module, side).tower)
        for kind, field in (("tower", side), ("head", "head")):
            scale, decay = _rate_and_decay(config, field)
            parts[f"{side}.{kind}"] = Part(f"{label}.{side}.{kind}", side, scale, decay)

    def part_of(name: str) -> Part:
        side, kind, *_ = name.split(".", 2)
        if side not in ("image", "text"):  # a text decoder
            return Part(f"{label}.{side}", "", 1.0, weight_decay)
        rest = name.removeprefix(f"{side}.{kind}.")
        part = parts[f"{side}.{kind}"]
        if kind == "head" or side not in layers:
            return part
        found = layers[side]
        number = found.number[rest]
        scale = part.lr_scale * decays[side] ** (found.last - number)
        return Part(f"{part.label}.layer{number}", side, scale, part.weight_decay)

    return part_of


def _rate_and_decay(config: OptimConfig, part: str) -> tuple[float, float]:
    """A part's rate over the run's, and its weight decay; -1 stands for the run's own."""
    rate, decay = getattr(config, f"lr_{part}"), getattr(config, f"weight_decay_{part}")
    for field, value in ((f"lr_{part}", rate), (f"weight_decay_{part}", decay)):
        if value < 0 and value != -1:
            raise UserError(f"optim.{field} must not be negative (-1: as the run), got {value}.")
    if rate > 0 and config.lr == 0:
        raise UserError(f"optim.lr_{part} is {rate}, but optim.lr, which its curve follows, is 0.")
    scale = 1.0 if rate == -1 or config.lr == 0 else rate / config.lr
    return scale, config.weight_decay if decay == -1 else decay


def make_optimizer(modules: dict[str, nn.Module], config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over `parameter_groups`; the fused kernel, which is the quickest on CPU and CUDA, but
    which does not take whole and split tensors (`train/shard.py`) together."""
    groups = parameter_groups(modules, config.weight_decay, config)
    split = any(isinstance(p, DTensor) for group in groups for p in group["params"])
    return torch.optim.AdamW(
        groups, config.lr, config.betas, config.eps, fused=not split, foreach=False
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float | Mapping[str, float]) -> None:
    """Set every group's learning rate to its side's `rate` times its own scale."""
    for group in optimizer.param_groups:
        own = rate[group.get("side", "")] if isinstance(rate, Mapping) else rate
        group["lr"] = own * group.get("lr_scale", 1.0)


def rest_sides(
    optimizer: torch.optim.Optimizer, schedules: Mapping[str, Schedule], step: int
) -> None:
    """A side whose schedule has not begun, or is over, gets no gradient at this step (from 0):
    that saves its backward pass and keeps it out of the gradient's norm."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.requires_grad_(schedules[group.get("side", "")].active(step))
