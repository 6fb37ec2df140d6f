"""The seam between embedding and objective: one exact gradient, however little memory there is.

b: rows of this process, B: rows of all processes (the global batch), D: embedding width.

An objective never hears of devices, chunks or processes.  With L the loss of the global batch and
e_i the embedding of sample i, the chain rule  dL/dw = sum_i dL/de_i . de_i/dw  splits into three:

1. embed this process's rows, in chunks without a graph if asked (memory of one chunk);
2. gather the rows of all processes, call the objective once on all B, keep dL/de of our own b;
3. replay each chunk with the random state it had, and push dL/de through it.

Parameter gradients are then *summed* over processes: every process holds the gradient of the same
global loss through its own rows.  Chunked embedding with a cached gradient: Gao et al. 2021,
"Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", arXiv:2101.06983, fig. 1.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vislang.devices import gather, processes, random_state, row_counts, set_random_state

EMBEDDED = ("image", "text")  # keys with these first words go through a tower
FEATURES = "_features"  # keys with this last word are a tower's output before its head
TEACHER = "_teacher"  # keys with this last word are embedded by the momentum teacher

Autocast = Callable[[], contextlib.AbstractContextManager[Any]]


def is_embedded(key: str) -> bool:
    """Whether a batch key is turned into embeddings (the others, such as label, pass through)."""
    return key.split("_")[0] in EMBEDDED


def embed_rows(
    model: nn.Module,
    rows: Mapping[str, Tensor],
    needs: tuple[str, ...],
    autocast: Autocast = contextlib.nullcontext,
    teacher: nn.Module | None = None,
) -> dict[str, Tensor]:
    """Everything that an objective needs of these rows: embeddings in fp32, the rest as it is.

    A needed key without an input of its own is embedded from the key's first word again: `text_2`
    from `text` (another draw of dropout, as SimCSE asks), `image_teacher` from `image`.
    `image_features` is the tower's output before the head. Where the batch itself holds
    `text_features` (a frozen tower's, computed once), the tower does not run.
    """
    embedded = [key for key in needs if is_embedded(key)]
    plain = [key for key in embedded if not key.endswith((TEACHER, FEATURES))]
    taught = [key for key in embedded if key.endswith(TEACHER)]
    out: dict[str, Tensor] = {}
    inputs: dict[str, Tensor] = {}
    with autocast():
        for key in [key for key in embedded if key.endswith(FEATURES)]:
            # Both the tower's output and, if asked for, the embedding made of it: one pass.
            base = key.removesuffix(FEATURES)
            side = model.side(base.split("_")[0])  # type: ignore[operator]
            out[key] = rows[key] if key in rows else side.features(_raw(rows, base))
            if base in plain:
                inputs[key] = out[key]
                plain.remove(base)
        for key in plain:
            stored = f"{key}{FEATURES}"
            inputs[stored if stored in rows else key] = (
                rows[stored] if stored in rows else _raw(rows, key)
            )
        out |= model(**inputs)
        if taught:
            if teacher is None:
                raise ValueError(f"the objective needs {taught}, but there is no teacher model")
            sources = {key.removesuffix(TEACHER): key for key in taught}
            with torch.no_grad():
                answers = teacher(**{base: _raw(rows, base) for base in sources})
            out |= {key: answers[base] for base, key in sources.items()}
    out = {key: value.float() if _is_low(value) else value for key, value in out.items()}
    return out | {key: rows[key] for key in needs if not is_embedded(key)}


def _is_low(rows: Tensor) -> bool:
    return rows.dtype in (torch.bfloat16, torch.float16)


def _raw(rows: Mapping[str, Tensor], key: str) -> Tensor:
    return rows[key] if key in rows else rows[key.split("_")[0]]


def backward(
    model: nn.Module,
    objective: nn.Module,
    batch: Mapping[str, Tensor],
    chunk: int = 0,
    *,
    autocast: Autocast = contextlib.nullcontext,
    teacher: nn.Module | None = None,
    objective_seed: int | None = None,
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

    Returns:
        The loss, detached; the same number on every process.
    """
    needs = tuple(objective.needs)  # type: ignore[arg-type]
    inputs = {key: value for key, value in batch.items() if isinstance(value, Tensor)}
    rows = len(next(iter(inputs.values())))
    device = next((p.device for p in model.parameters()), torch.device("cpu"))

    if not chunk or rows <= chunk:
        own = embed_rows(model, inputs, needs, autocast, teacher)
        if processes().world == 1:
            with _seeded(objective_seed, device):
                loss = objective(**own)
            loss.backward()
            return loss.detach()
        loss, gradients = _objective_gradients(objective, own, objective_seed, device)
        _push(own, gradients)
        return loss

    parts, states = [], []
    with torch.no_grad(), _frozen_statistics(model):
        for piece in _pieces(inputs, rows, chunk):
            states.append(random_state(device))
            parts.append(embed_rows(model, piece, needs, autocast, teacher))
    own = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    del parts
    loss, gradients = _objective_gradients(objective, own, objective_seed, device)
    after = random_state(device)
    student = tuple(key for key in gradients if not key.endswith(TEACHER))
    for i, piece in enumerate(_pieces(inputs, rows, chunk)):
        set_random_state(states[i], device)
        again = embed_rows(model, piece, student, autocast)
        _push(again, {key: gradients[key][i * chunk : (i + 1) * chunk] for key in student})
    set_random_state(after, device)
    return loss


def _objective_gradients(
    objective: nn.Module, own: Mapping[str, Tensor], seed: int | None, device: torch.device
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of the global batch and dL/de for this process's rows of every embedded key."""
    rank = processes().rank
    counts = row_counts(len(next(iter(own.values()))), device)
    start, end = sum(counts[:rank]), sum(counts[: rank + 1])
    whole = {key: gather(value.detach(), counts) for key, value in own.items()}
    leaves = {
        key: value.requires_grad_()
        for key, value in whole.items()
        if is_embedded(key) and not key.endswith(TEACHER)
    }
    with torch.enable_grad(), _seeded(seed, device):
        loss = objective(**whole)
        loss.backward()
    gradients = {key: leaf.grad[start:end] for key, leaf in leaves.items() if leaf.grad is not None}
    return loss.detach(), gradients


def _push(own: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
    """Back-propagate embedding gradients; keys without a graph (frozen side) have none."""
    keys = [key for key in gradients if own[key].requires_grad]
    if keys:
        torch.autograd.backward([own[key] for key in keys], [gradients[key] for key in keys])


def _pieces(inputs: Mapping[str, Tensor], rows: int, chunk: int) -> Iterator[dict[str, Tensor]]:
    for start in range(0, rows, chunk):
        yield {key: value[start : start + chunk] for key, value in inputs.items()}


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
