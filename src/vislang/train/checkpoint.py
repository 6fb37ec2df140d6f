"""Checkpoints as units: a folder that is whole or absent, with everything that the next step needs.

    checkpoints/000002000/  model.safetensors  objective.safetensors  optimizer.safetensors
                            random.safetensors  [ema.safetensors]
                            [teacher.safetensors]  state.json  done.json (last)

`done.json` holds the checksum of every other file.  The folder is written under a temporary name
and renamed when it is complete, so a kill leaves at most a folder that is swept away next time.
Nothing is pickled.
"""

import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vislang.errors import UserError
from vislang.files import DONE, read_json, sha256_file, sync_folder, write_json
from vislang.train.shard import split_like, split_state, whole


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """A module's state as tensors that safetensors takes: contiguous, none sharing memory."""
    state, seen = {}, set()
    for name, value in module.state_dict().items():
        tensor = whole(value.detach()).cpu().contiguous()
        if tensor.numel() and tensor.data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.data_ptr())
        state[name] = tensor
    return state


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Adam's moments by parameter name: "model.image.tower.conv.weight:exp_avg"."""
    found = {}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"]):
            for key, value in optimizer.state.get(parameter, {}).items():
                found[f"{name}:{key}"] = whole(torch.as_tensor(value).detach()).cpu().contiguous()
    return found


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put moments back by name (a parameter that never stepped has none)."""
    by_name: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, field = key.rpartition(":")
        by_name.setdefault(name, {})[field] = value
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"]):
            if name in by_name:
                # The fused kernel wants its step counter on the parameter's device, too.
                optimizer.state[parameter] = {
                    field: (split_like(value, parameter) if value.ndim else value).to(
                        parameter.device, copy=True
                    )
                    for field, value in by_name[name].items()
                }


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
) -> Path:
    """Write `checkpoints/<step>` whole or not at all.

    Args:
        folder: the run folder.
        step: optimizer steps done.
        tensors: file stem -> tensors, such as {"model": ..., "optimizer": ...}.
        state: JSON-able rest (epoch, position, world size).
    """
    from safetensors.torch import save_file

    final = folder / "checkpoints" / f"{step:09d}"
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        for stem, values in tensors.items():
            path = temporary / f"{stem}.safetensors"
            save_file(dict(values), path)
            _sync(path)
        write_json(temporary / "state.json", {"step": step, **state})
        sums = {path.name: sha256_file(path) for path in sorted(temporary.iterdir())}
        write_json(temporary / DONE, {"step": step, "sha256": sums})
        if final.exists():  # the same step again, after a resume: the same content
            shutil.rmtree(final)
        temporary.replace(final)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        full = isinstance(error, OSError) and error.errno == 28
        if full or "No space left" in str(error):
            raise UserError(
                f"The disk is full: could not save the checkpoint of step {step} in {folder}."
                " Earlier checkpoints are intact; free some space and repeat the command to go on."
            ) from error
        raise
    sync_folder(final.parent)
    return final


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def check_checkpoint(folder: Path) -> str:
    """Why a checkpoint folder cannot be used; empty when it can."""
    note = folder / DONE
    if not note.exists():
        return "it has no done.json, which is written last"
    try:
        sums = json.loads(note.read_text())["sha256"]
    except (ValueError, KeyError):
        return "its done.json is damaged"
    for name, expected in sums.items():
        path = folder / name
        if not path.exists():
            return f"{name} is missing"
        if sha256_file(path) != expected:
            return f"{name} does not have the bytes that were written"
    return ""


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders of a run, oldest first, whole or not."""
    return sorted(p for p in (folder / "checkpoints").glob("[0-9]*") if p.is_dir())


def newest_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest usable checkpoint, and a sentence for each newer one that is not."""
    bad = []
    for path in reversed(checkpoints(folder)):
        why = check_checkpoint(path)
        if not why:
            return path, bad
        bad.append(f"{path.name} is skipped: {why}")
    return None, bad


def read_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Tensors by file stem, and the state."""
    from safetensors.torch import load_file

    tensors = {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}
    return tensors, read_json(path / "state.json")


def load_module(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Strict load with an error that names the first differences."""
    try:
        module.load_state_dict(split_state(module, tensors), strict=True)
    except RuntimeError as error:
        own = module.state_dict()
        missing = sorted(set(own) - set(tensors))
        extra = sorted(set(tensors) - set(own))
        shapes = [
            f"{k} {tuple(tensors[k].shape)} is not {tuple(own[k].shape)}"
            for k in own
            if k in tensors and own[k].shape != tensors[k].shape
        ]
        raise UserError(
            f"This checkpoint does not fit the {what}: {len(missing)} tensors missing"
            f" {missing[:3]}, {len(extra)} unknown {extra[:3]}, {len(shapes)} of another shape"
            f" {shapes[:3]}. Use the config.yaml that lies beside it, or another checkpoint."
        ) from error


def thin(folder: Path, keep: int, always: Collection[int] = ()) -> None:
    """Remove leftovers of killed writes, and checkpoints that are not to be kept.

    Args:
        folder: the run folder.
        keep: of the newest; 0 keeps all.
        always: steps that are kept besides.
    """
    place = folder / "checkpoints"
    for path in place.glob(".*.tmp"):
        shutil.rmtree(path, ignore_errors=True)
    if keep > 0:
        for path in [p for p in checkpoints(folder) if int(p.name) not in always][:-keep]:
            # done.json goes first: a half-removed folder is then no checkpoint.
            (path / DONE).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)
