"""What a run needs before its first step: checks, folder, model, objective, optimizer, cadence."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vislang.config import TrainConfig, read_config, to_dict, write_config
from vislang.devices import (
    Processes,
    broadcast,
    environment,
    pick_device,
    pick_precision,
    processes,
    seed_everything,
    start_processes,
)
from vislang.errors import UserError
from vislang.files import differences, write_json
from vislang.models.build import build_model
from vislang.models.dual import DualEncoder
from vislang.objectives.build import build_objective
from vislang.train.ema import momentum_of
from vislang.train.shard import shard_model
from vislang.train.start import start_from

# Fields that may change between a run and its resumption: they alter no number of the run, but for
# `threads` and `device`, whose rounding the environment records.
FREE = (
    "recipe",
    "run.device",
    "run.threads",
    "run.log_every",
    "run.diagnostics_every",
    "run.keep",
    "run.checkpoint_every",
    "run.checkpoint_at",
    "run.evaluate_every",
    "run.evaluations",
    "run.watch",
    "run.patience",
    "run.tensorboard",
    "data.workers",
    "data.valid",
    "data.valid_options",
)


@dataclass(frozen=True)
class Place:
    """Where and how this process computes."""

    device: torch.device
    precision: str
    group: Processes


def settle(config: TrainConfig) -> Place:
    """Threads, device, process group and precision."""
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    device = pick_device(config.run.device)
    group = start_processes(device)
    return Place(device, pick_precision(config.run.precision, device), group)


def claim_folder(config: TrainConfig, folder: Path) -> None:
    """Write config.yaml and environment.json, or refuse a folder made under other settings."""
    path = folder / "config.yaml"
    if path.exists():
        changed = [
            line
            for line in differences(to_dict(read_config(path)), to_dict(config))
            if not any(line.startswith((f"{name} ", f"{name}.")) for name in FREE)
        ]
        if changed:
            raise UserError(
                f"The run folder {folder} was made with other settings: {', '.join(changed)}."
                " Use the same settings to go on, or another folder (--out) to start anew."
            )
    elif folder.exists() and any(folder.iterdir()) and not _looks_fresh(folder):
        raise UserError(
            f"The folder {folder} is not empty and holds no run (no config.yaml)."
            " Give another folder (--out)."
        )
    if processes().first:
        if not path.exists():
            write_config(path, config)
        write_json(folder / "environment.json", environment())


def _looks_fresh(folder: Path) -> bool:
    return all(item.name.startswith(".") for item in folder.iterdir())


def make_model(config: TrainConfig, place: Place, steps: int) -> tuple[DualEncoder, nn.Module]:
    """Model and objective with the run's seed, the same weights on every process.

    Args:
        config: the run's.
        place: where to compute.
        steps: of the whole run, for objectives with schedules of their own.
    """
    seed_everything(config.run.seed)
    model = build_model(config.model).to(place.device)
    if config.run.grad_checkpoint:
        model.set_grad_checkpointing(True)
    features = int(model.image.tower.width) if model.image is not None else 0  # type: ignore[arg-type]
    objective = build_objective(config.objective, model.width, features, steps).to(place.device)
    if config.model.start:
        start_from(config, model, objective)
    broadcast([*model.state_dict().values(), *objective.state_dict().values()])
    if config.run.compile:
        for side in (model.image, model.text):
            if side is not None and not side.frozen:
                side.tower.compile(dynamic=False)
    if config.run.shard:
        shard_model(model, config, place.device)
    # From here on each process draws its own dropout; data order does not use this state.
    seed_everything(config.run.seed + 1 + place.group.rank)
    return model, objective


def check_needs(model: DualEncoder, objective: nn.Module, config: TrainConfig) -> None:
    """Refuse, before step one, an objective that asks for what model or options do not give."""
    needs = tuple(objective.needs)  # type: ignore[arg-type]
    for side in ("image", "text"):
        asked = [key for key in needs if key.split("_")[0] == side]
        if asked and getattr(model, side) is None:
            raise UserError(
                f"Objective {config.objective.name!r} needs {', '.join(asked)}, but the model has"
                f" no {side} side. Give it one (model.{side}.name) or choose another objective."
            )
    teachers = [key for key in needs if key.endswith("_teacher")]
    if teachers and config.run.shard:
        raise UserError(
            f"Objective {config.objective.name!r} needs a momentum teacher, which run.shard does"
            " not split. Leave run.shard out, or choose an objective without a teacher."
        )
    if teachers and momentum_of(objective) is None and not config.optim.ema:
        raise UserError(
            f"Objective {config.objective.name!r} needs a momentum teacher ({', '.join(teachers)})"
            " and has no momentum of its own. Set its decay, for example optim.ema=0.996."
        )
    if any(key.startswith("caption_") for key in needs) and model.decoder is None:
        raise UserError(
            f"Objective {config.objective.name!r} writes captions, but the model has no text"
            " decoder. Give it one (model.decoder.name=transformer), or choose another objective."
        )
    for one in objective.modules():
        last = getattr(one, "lit_start", 0)
        if last and config.optim.image_until != last:
            raise UserError(
                f"objective.options.lit_start={last} locks the image side from episode {last} on,"
                f" but optim.image_until is {config.optim.image_until:g}: set it to {last}, too."
            )


def total_steps(config: TrainConfig, steps_per_epoch: int) -> int:
    """Optimizer steps of the run."""
    steps = config.optim.steps or math.ceil(config.optim.epochs * steps_per_epoch)
    if steps <= 0:
        raise UserError(
            f"The run has no steps: optim.steps={config.optim.steps},"
            f" optim.epochs={config.optim.epochs}. Give one of them above 0."
        )
    return steps


def describe(model: nn.Module, objective: nn.Module) -> dict[str, Any]:
    """Counts of parameters for the log."""
    both = [*model.parameters(), *objective.parameters()]
    return {
        "parameters": sum(p.numel() for p in both),
        "trainable": sum(p.numel() for p in both if p.requires_grad),
    }
