"""Towers too large for one device: weights, gradients and moments split over the processes (FSDP2).

Each process holds its part of every trained tower; a block's weights are gathered when it runs and
let go of afterwards, its gradients are *summed* over processes into the parts.  Heads and
objective, which are small, stay whole on every process, and so does a frozen tower.

PyTorch FSDP, Zhao et al. 2023, arXiv:2304.11277.
"""

import math
from collections.abc import Iterable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from vislang.config import TrainConfig
from vislang.devices import processes
from vislang.errors import UserError
from vislang.models.anatomy import find_blocks
from vislang.models.build import build_model
from vislang.models.dual import DualEncoder


def shard_model(model: DualEncoder, config: TrainConfig, device: torch.device) -> None:
    """Split every trained tower, block by block, in place.

    Raises:
        UserError: there is but one process, or the run keeps slow copies of the model, which
            this does not split.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    group = processes()
    if group.world == 1:
        raise UserError(
            "run.shard splits the towers over processes, but there is only one. Start several:"
            " torchrun --nproc-per-node 2 -m vislang train ..., or leave run.shard out."
        )
    if config.optim.ema or model.decoder is not None or config.run.compile:
        raise UserError(
            "run.shard does not go with optim.ema, run.compile or a text decoder. Leave one out."
        )
    mesh = init_device_mesh(device.type, (group.world,))
    for side in (model.image, model.text):
        if side is None or side.frozen:
            continue
        for block in _blocks(side.tower):
            fully_shard(block, mesh=mesh)
        fully_shard(side.tower, mesh=mesh)
        for module in side.tower.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)  # a sum, see `train/step.py`
                module.set_force_sum_reduction_for_comms(True)  # gloo has no scaled sum
    model.sharded = True  # type: ignore[assignment]


def _blocks(tower: nn.Module) -> list[nn.Module]:
    """A tower's transformer blocks; none in a tower without, which is then split as a whole."""
    try:
        return [block.module for block in find_blocks(tower)]
    except UserError:
        return []


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard_model` split it, so that every process must run every forward pass."""
    return bool(getattr(model, "sharded", False))


def whole(value: Tensor) -> Tensor:
    """A tensor with all its parts; every process must ask for it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def whole_copy(model: DualEncoder, config: TrainConfig, device: torch.device) -> DualEncoder:
    """An ordinary model with the same weights, to be evaluated by one process; every process must
    ask for it."""
    tensors = {key: whole(value.detach()) for key, value in model.state_dict().items()}
    copy = build_model(config.model).to(device)
    copy.load_state_dict(tensors)
    return copy


def split_like(value: Tensor, own: Tensor) -> Tensor:
    """A whole tensor, the same on every process, split as `own` is."""
    if not isinstance(own, DTensor):
        return value
    return distribute_tensor(
        value.to(own.device), own.device_mesh, own.placements, src_data_rank=None
    )


def split_state(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A whole state dict, split as the module's own tensors are."""
    own = module.state_dict()
    return {
        key: split_like(value, own[key]) if key in own and own[key].shape == value.shape else value
        for key, value in tensors.items()
    }


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> Tensor:
    """Scale the gradients so that their norm is at most `largest`; the norm before.

    As `torch.nn.utils.clip_grad_norm_`, for whole and split gradients together.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    parts = [g.to_local() for g in gradients if isinstance(g, DTensor)]
    if not parts:
        norm = nn.utils.get_total_norm(gradients, foreach=True)
    else:
        rest = [g for g in gradients if not isinstance(g, DTensor)]
        square = nn.utils.get_total_norm(parts, foreach=True).square()
        dist.all_reduce(square)
        norm = (square + nn.utils.get_total_norm(rest, foreach=True).square()).sqrt()
    if math.isfinite(largest):
        local = [g.to_local() if isinstance(g, DTensor) else g for g in gradients]
        torch._foreach_mul_(local, (largest / (norm + 1e-6)).clamp(max=1.0))
    return norm
