"""The seam between embedding and objective: one exact gradient, however little memory there is.

b: rows of this process, B: rows of all processes (the global batch), D: embedding width.

An objective never hears of devices, chunks or processes.  With L the loss of the global batch and
e_i the embedding of sample i, the chain rule  dL/dw = sum_i dL/de_i . de_i/dw  splits into three:

1. embed this process's rows, in chunks without a graph if asked (memory of one chunk);
2. gather the rows of all processes, call the objective once on all B, keep dL/de of our own b;
3. replay each chunk with the random state it had, and push dL/de through it.

Where part of a loss is a sum over samples (`objectives/persample.py`: the tokens of a caption),
that part's rows stay with their chunk, whose share is back-propagated when it is replayed.

Parameter gradients are then *summed* over processes: every process holds the gradient of the same
global loss through its own rows.  Chunked embedding with a cached gradient: Gao et al. 2021,
"Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", arXiv:2101.06983, fig. 1.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vislang.devices import (
    gather,
    processes,
    random_state,
    row_counts,
    set_random_state,
    sum_gradients,
    sum_over_processes,
)
from vislang.train.rows import TEACHER, Autocast, embed_rows, is_embedded
from vislang.train.shard import is_sharded

Watch = Callable[[Mapping[str, Tensor]], None]


def backward(
    model: nn.Module,
    objective: nn.Module,
    batch: Mapping[str, Tensor],
    chunk: int = 0,
    *,
    autocast: Autocast = contextlib.nullcontext,
    teacher: nn.Module | None = None,
    objective_seed: int | None = None,
    watch: Watch | None = None,
) -> Tensor:
    """Loss of the global batch; its gradient is added to `.grad` of the model (this process's
    share, to be summed by `devices.sum_gradients`) and of the objective (whole).

    Args:
        model: maps a batch to embeddings (`DualEncoder`).
        objective: called once, on the global batch.
        batch: this process's tensors by key; only `objective.needs` are used.
        chunk: rows embedded at a time; 0, or at least the batch, keeps the graph and embeds once.
        autocast: makes the context in which towers run; the objective runs in fp32.
        teacher: momentum teacher, for objectives that need `*_teacher` keys.
        objective_seed: random state inside the objective, the same on all processes.
        watch: called with the detached rows of the global batch.

    Returns:
        The loss, detached; the same number on every process.
    """
    apart = tuple(getattr(objective, "per_sample", ()))
    needs = tuple(key for key in objective.needs if key not in apart)  # type: ignore[union-attr]
    inputs = {key: value for key, value in batch.items() if isinstance(value, Tensor)}
    rows = len(next(iter(inputs.values())))
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    counts = row_counts(rows, device)
    # The same number of passes everywhere, as a split tower is put together by all (shard.py).
    passes = -(-max(counts) // chunk) if chunk else 1

    if passes == 1:
        own = embed_rows(model, inputs, (*needs, *apart), autocast, teacher)
        if processes().world == 1:
            if watch:
                watch({key: own[key].detach() for key in needs})
            with _seeded(objective_seed, device):
                loss = objective(**own)
            if loss.requires_grad:  # not while every part rests
                loss.backward()
            return loss.detach()
        rest = _PerSample(objective, [own] if apart else [])
        shared = {key: own[key] for key in needs}
        loss, gradients = _objective_gradients(objective, shared, counts, objective_seed, watch)
        with rest:
            rest.push(own, gradients)
        return rest.add_to(loss)

    parts, states, counted = [], [], []
    with torch.no_grad(), _frozen_statistics(model):
        for piece in _pieces(model, inputs, chunk, passes):
            states.append(random_state(device))
            parts.append(embed_rows(model, piece, needs, autocast, teacher))
            if apart:
                counted.append(embed_rows(model, piece, objective.counted))  # type: ignore[arg-type]
    own = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    del parts
    rest = _PerSample(objective, counted)
    loss, gradients = _objective_gradients(objective, own, counts, objective_seed, watch)
    after = random_state(device)
    student = tuple(key for key in gradients if not key.endswith(TEACHER))
    with rest:
        for i, piece in enumerate(_pieces(model, inputs, chunk, passes)):
            set_random_state(states[i], device)
            again = embed_rows(model, piece, (*student, *apart), autocast)
            rest.push(again, {key: gradients[key][i * chunk : (i + 1) * chunk] for key in student})
    set_random_state(after, device)
    return rest.add_to(loss)


def _objective_gradients(
    objective: nn.Module,
    own: Mapping[str, Tensor],
    counts: list[int],
    seed: int | None,
    watch: Watch | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of the global batch and dL/de for this process's rows of every embedded key."""
    rank, device = processes().rank, next(iter(own.values())).device
    start, end = sum(counts[:rank]), sum(counts[: rank + 1])
    whole = {key: gather(value.detach(), counts) for key, value in own.items()}
    if watch:
        watch(whole)
    leaves = {
        key: value.requires_grad_()
        for key, value in whole.items()
        if is_embedded(key) and not key.endswith(TEACHER)
    }
    call: Any = objective.across if getattr(objective, "per_sample", ()) else objective
    with torch.enable_grad(), _seeded(seed, device):
        loss = call(**whole)
        if loss.requires_grad:
            loss.backward()
    gradients = {key: leaf.grad[start:end] for key, leaf in leaves.items() if leaf.grad is not None}
    return loss.detach(), gradients


class _PerSample:
    """Back-propagates embedding gradients and, in the same pass, the per-sample part of the loss.

    The objective's own parameters have the whole gradient of what was gathered; what comes on top
    here stems from this process's rows and is summed over processes at the end.

    Args:
        objective: asked for its per-sample part if there are rows to count.
        counted: for each chunk of this process, the rows that say how many terms it has.
    """

    def __init__(self, objective: Any, counted: list[dict[str, Tensor]]):
        self.objective, self.total, self.sum = objective, None, torch.zeros(())
        self.own: list[nn.Parameter] = []
        if counted:
            counts = [
                objective.count(**{key: rows[key] for key in objective.counted}) for rows in counted
            ]
            self.total = sum_over_processes(torch.stack(counts).sum(0))
            self.own = [p for p in objective.parameters() if p.requires_grad]

    def __enter__(self) -> None:
        self._whole = [parameter.grad for parameter in self.own]
        for parameter in self.own:
            parameter.grad = None

    def push(self, rows: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        """One chunk; keys without a graph (frozen side) have nothing to push."""
        keys = [key for key in gradients if rows[key].requires_grad]
        roots, seeds = [rows[key] for key in keys], [gradients[key] for key in keys]
        if self.total is not None:
            given = {key: rows[key] for key in self.objective.per_sample}
            share = self.objective.within(self.total, **given)
            self.sum = self.sum.to(share) + share.detach()
            if share.requires_grad:
                roots.append(share)
                seeds.append(torch.ones_like(share))
        if roots:
            torch.autograd.backward(roots, seeds)

    def __exit__(self, *_: object) -> None:
        if self.own:
            sum_gradients(self.own)
        for parameter, whole in zip(self.own, self._whole):
            if whole is not None:
                parameter.grad = whole if parameter.grad is None else whole + parameter.grad

    def add_to(self, loss: Tensor) -> Tensor:
        """The loss of the global batch, per-sample part included."""
        if self.total is None:
            return loss
        rest = sum_over_processes(self.sum)
        self.objective.parts = {**self.objective.parts, "per_sample": rest}
        return loss + rest


def _pieces(
    model: nn.Module, inputs: Mapping[str, Tensor], chunk: int, passes: int
) -> Iterator[dict[str, Tensor]]:
    """The rows in chunks.  A process with few rows stops early, unless all must run as often."""
    for start in range(0, chunk * passes, chunk):
        piece = {key: value[start : start + chunk] for key, value in inputs.items()}
        if start and not len(next(iter(piece.values()))) and not is_sharded(model):
            return
        yield piece


@contextlib.contextmanager
def _seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """The same random numbers on every process, without touching the towers' own state."""
    if seed is None:
        yield
        return
    before = random_state(device)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        set_random_state(before, device)


@contextlib.contextmanager
def _frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Batch norms use batch statistics without recording them: the replay records them once."""
    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    for module in norms:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in norms:
            module.track_running_stats = True
