"""A run that goes on from another model's weights: fine-tuning, further phases of a training."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from vislang.config import TrainConfig, read_config
from vislang.errors import UserError
from vislang.models.pretrained import load_model
from vislang.models.saved import newest_checkpoint
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
    run, checkpoint = _run_of(Path(where).expanduser())
    if run and read_config(run / "config.yaml", TrainConfig).objective == config.objective:
        from safetensors.torch import load_file

        found = (checkpoint or newest_checkpoint(run)) / STEM
        if found.is_file():
            load_module(objective, load_file(found), f"objective that is to start from {where}")


def _run_of(path: Path) -> tuple[Path | None, Path | None]:
    """(the run folder, its checkpoint or None for the newest); (None, None) of other models."""
    if (path / "config.yaml").is_file():
        return path, None
    if path.parent.name == "checkpoints" and (path.parent.parent / "config.yaml").is_file():
        return path.parent.parent, path
    return None, None


def check_start(config: TrainConfig, folder: Path) -> None:
    """Refuse a run that would start from itself."""
    run, _ = _run_of(Path(config.model.start).expanduser()) if config.model.start else (None, None)
    if run and run.resolve() == folder.resolve():
        raise UserError(
            f"model.start is {config.model.start}, the folder of the run itself. Give another"
            " --out; a run that was stopped goes on by itself when its command is repeated."
        )
