"""Everything that the next step needs, to a checkpoint and back."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vislang.devices import barrier, gather, random_state, set_random_state
from vislang.models.dual import DualEncoder
from vislang.train import checkpoint as ckpt
from vislang.train.ema import Ema, Teacher
from vislang.train.setup import Place
from vislang.train.shard import is_sharded


@dataclass
class State:
    """Everything that a checkpoint holds."""

    model: DualEncoder
    objective: nn.Module
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    teacher: Teacher | None
    place: Place
    folder: Path
    keep: int
    always: set[int]  # steps whose checkpoints are kept whatever `keep` says

    def resume(self) -> int:
        """Load the newest whole checkpoint, if any; the number of steps it has done."""
        path, bad = ckpt.newest_checkpoint(self.folder)
        if self.place.group.first:
            for sentence in bad:
                print(sentence)
            ckpt.thin(self.folder, 0)
        barrier()
        if path is None:
            return 0
        tensors, state = ckpt.read_checkpoint(path)
        ckpt.load_module(self.model, tensors["model"], "model")
        ckpt.load_module(self.objective, tensors["objective"], "objective")
        ckpt.load_optimizer(self.optimizer, tensors["optimizer"])
        if self.ema:
            ckpt.load_module(self.ema.model, tensors["ema"], "moving average")
        if self.teacher:
            ckpt.load_module(self.teacher.model, tensors["teacher"], "momentum teacher")
        rank = self.place.group.rank
        mine = {
            name.removesuffix(f".{rank}"): value
            for name, value in tensors["random"].items()
            if name.endswith(f".{rank}")
        }
        if mine:  # more processes than before: the new ones keep their seed
            set_random_state(mine, self.place.device)
        return int(state["step"])

    def save(self, step: int, steps_per_epoch: int) -> Path:
        """Write a checkpoint on the first process; all wait for it."""
        random = {}
        for name, value in random_state(self.place.device).items():
            rows = gather(value[None].to(self.place.device)).cpu()
            random |= {f"{name}.{rank}": row.contiguous() for rank, row in enumerate(rows)}
        path = self.folder / "checkpoints" / f"{step:09d}"
        first = self.place.group.first
        tensors = {}
        if first or is_sharded(self.model):  # all processes put a split model together
            tensors = {
                "model": ckpt.tensors_of(self.model),
                "objective": ckpt.tensors_of(self.objective),
                "optimizer": ckpt.optimizer_tensors(self.optimizer),
                "random": random,
            }
            if self.ema:
                tensors["ema"] = ckpt.tensors_of(self.ema.model)
            if self.teacher:
                tensors["teacher"] = ckpt.tensors_of(self.teacher.model)
        if first:
            epoch, at = divmod(step, steps_per_epoch)
            state = {"epoch": epoch, "position": at, "steps_per_epoch": steps_per_epoch}
            state["processes"] = self.place.group.world
            ckpt.save_checkpoint(self.folder, step, tensors, state)
            ckpt.thin(self.folder, self.keep, self.always)
        barrier()
        return path
