"""A run that goes on from another model's weights: fine-tuning, further phases of a training."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from vislang.config import TrainConfig, read_config
from vislang.errors import UserError
from vislang.models.pretrained import load_model
from vislang.models.saved import newest_checkpoint, run_of
from vislang.train.checkpoint import load_module

STEM = "objective.safetensors"


def start_from(config: TrainConfig, model: nn.Module, objective: nn.Module) -> None:
    """Put the weights of `model.start` into the model, and its objective's where they are alike.

    What an objective has learned or remembers (the temperature, a queue, prototypes) goes on only
    if the start is a run with the same `objective`; otherwise it begins anew, as its options say.

    Raises:
        UserError: there is no such model, or its weights are of another architecture.
    """
    where = config.model.start
    load_module(model, load_model(where).state_dict(), f"model that is to start from {where}")
    of = run_of(Path(where).expanduser())
    if of and read_config(of[0] / "config.yaml", TrainConfig).objective == config.objective:
        from safetensors.torch import load_file

        found = (of[1] or newest_checkpoint(of[0])) / STEM
        if found.is_file():
            load_module(objective, load_file(found), f"objective that is to start from {where}")


def check_start(config: TrainConfig, folder: Path) -> None:
    """Refuse a run that would start from itself."""
    of = run_of(Path(config.model.start).expanduser()) if config.model.start else None
    if of and of[0].resolve() == folder.resolve():
        raise UserError(
            f"model.start is {config.model.start}, the folder of the run itself. Give another"
            " --out; a run that was stopped goes on by itself when its command is repeated."
        )
