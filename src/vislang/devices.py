"""Device, precision, seeds, and the process group with its gather that carries gradients.

W: processes, b: rows of this process, B: rows of all processes together.
"""

import contextlib
import os
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from vislang.errors import UserError


def pick_device(name: str = "auto") -> torch.device:
    """The device that `name` (auto, cpu, cuda, cuda:N) stands for on this process."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}.") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"device {name!r}: this machine has no CUDA device. Use device cpu.")
        index = device.index if device.index is not None else int(os.environ.get("LOCAL_RANK", 0))
        if index >= torch.cuda.device_count():
            raise UserError(
                f"device cuda:{index}: this machine has {torch.cuda.device_count()} of them."
            )
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
    return device


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX).

    Without it bf16 is emulated and slower than fp32; fp16 on a CPU is slower than both.
    """
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    tile = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool((check and check()) or (tile and tile()))


def pick_precision(name: str, device: torch.device) -> str:
    """'fp32' or 'bf16'; 'auto' takes bf16 where the hardware multiplies it."""
    if name not in ("auto", "fp32", "bf16"):
        raise UserError(f"precision must be auto, fp32 or bf16, got {name!r}.")
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if cpu_has_bf16() else "fp32"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """bf16 autocast over fp32 weights, or nothing for fp32."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def seed_everything(seed: int) -> None:
    """Seed torch (all devices), numpy's legacy generator and random."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  some libraries draw from it
    random.seed(seed)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Torch's generators as tensors, for a checkpoint or for replaying dropout."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Put back what `random_state` returned."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)


@dataclass(frozen=True)
class Processes:
    """This process among those of the run."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0


def start_processes(device: torch.device) -> Processes:
    """Join the group that torchrun announced in the environment, if it did."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not dist.is_initialized():
        # Its functions have the group that is there when it is imported as a default argument:
        # imported later, by any package, it would hold the group beyond `stop_processes`.
        import torch.distributed.nn  # noqa: F401

        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return processes()


def processes() -> Processes:
    """This process's place in the current group; one process when there is none."""
    if dist.is_available() and dist.is_initialized():
        return Processes(dist.get_rank(), dist.get_world_size())
    return Processes()


def stop_processes() -> None:
    """Leave the group. A program that joined one does this before it ends, as the commands do."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def barrier() -> None:
    """Wait for all processes."""
    if processes().world > 1:
        dist.barrier()


def row_counts(rows: int, device: torch.device) -> list[int]:
    """How many rows each process holds; they may differ (rejected samples)."""
    world = processes().world
    if world == 1:
        return [rows]
    counts = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world)]
    dist.all_gather(counts, torch.tensor([rows], dtype=torch.int64, device=device))
    return [int(count) for count in counts]


def gather(rows: Tensor, counts: list[int] | None = None) -> Tensor:
    """[b, ...] of this process -> [B, ...] of all, in rank order, without gradient.

    Row counts may differ between processes: they are padded on the way and cut afterwards.
    """
    if processes().world == 1:
        return rows
    rows = rows.detach().contiguous()
    counts = counts or row_counts(len(rows), rows.device)
    most = max(counts)
    padded = rows
    if len(rows) < most:
        padded = torch.cat([rows, rows.new_zeros(most - len(rows), *rows.shape[1:])])
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts)])


def sum_over_processes(value: Tensor) -> Tensor:
    """Sum of every process's value, without gradient."""
    if processes().world > 1:
        value = value.detach().clone()
        dist.all_reduce(value)
    return value


def sum_gradients(parameters: list[torch.nn.Parameter], bucket_bytes: int = 32 << 20) -> None:
    """Sum the gradients of all processes in place, in buckets of flat memory.

    Each process back-propagates the *global* loss through its own rows, so the sum (not the
    mean, as in DistributedDataParallel) is the gradient of the global loss.  A parameter that
    got no gradient here may have one elsewhere, hence zeros; one without any stays without.
    """
    if processes().world == 1:
        return
    device = parameters[0].device if parameters else torch.device("cpu")
    used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8, device=device)
    dist.all_reduce(used, dist.ReduceOp.MAX)
    shared = [p for p, flag in zip(parameters, used.tolist()) if flag]
    bucket: list[Tensor] = []
    size = 0

    def send() -> None:
        nonlocal size
        if not bucket:
            return
        flat = torch.cat([grad.reshape(-1) for grad in bucket])
        dist.all_reduce(flat)
        at = 0
        for grad in bucket:
            grad.copy_(flat[at : at + grad.numel()].view_as(grad))
            at += grad.numel()
        bucket.clear()
        size = 0

    for parameter in shared:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if bucket and bucket[0].dtype != parameter.grad.dtype:
            send()
        bucket.append(parameter.grad)
        size += parameter.grad.numel() * parameter.grad.element_size()
        if size >= bucket_bytes:
            send()
    send()


def broadcast(tensors: list[Tensor]) -> None:
    """Give every process the first one's values, in place."""
    if processes().world > 1:
        for tensor in tensors:
            dist.broadcast(tensor.data, 0)


def environment() -> dict[str, Any]:
    """What a result may depend on besides its settings: machine, versions, threads."""
    import platform
    from importlib import metadata

    versions = {"python": platform.python_version()}
    for name in (
        "vislang",
        "torch",
        "numpy",
        "pillow",
        "scikit-learn",
        "open_clip_torch",
        "timm",
        "torchvision",
        "transformers",
        "sentence-transformers",
    ):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    machine: dict[str, Any] = {
        "system": platform.system(),
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "bf16_hardware": cpu_has_bf16(),
    }
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
        machine["gpus"] = torch.cuda.device_count()
    return {"versions": versions, "machine": machine}
