"""The training loop: one function that reads top to bottom.

Everything that a step depends on is a function of (config, step) or lies in the checkpoint, so that
a run killed at any moment and resumed ends with the same bits on a CPU as one left alone.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from vislang.config import TrainConfig
from vislang.data.batches import Batches
from vislang.data.order import samples_in_epoch, steps_in_epoch
from vislang.data.sample import Source
from vislang.data.sources import open_source
from vislang.devices import (
    autocast,
    barrier,
    random_state,
    row_counts,
    set_random_state,
    sum_gradients,
)
from vislang.errors import UserError
from vislang.models.dual import DualEncoder
from vislang.train import checkpoint as ckpt
from vislang.train.data_of import check_data, note_data, with_data
from vislang.train.diagnostics import Diagnostics
from vislang.train.ema import Ema, Teacher, needs_teacher
from vislang.train.episodes import Episodes
from vislang.train.frozen import FrozenFeatures
from vislang.train.log import Log, Meter, Progress, read_log
from vislang.train.moments import cadence, checkpoint_steps
from vislang.train.optim import make_optimizer, make_schedules, rest_sides, set_rate
from vislang.train.patience import Patience
from vislang.train.rejected import rejected_anywhere
from vislang.train.rows import FEATURES, TEACHER
from vislang.train.setup import (
    Place,
    check_needs,
    claim_folder,
    describe,
    make_model,
    settle,
    total_steps,
)
from vislang.train.shard import clip_gradients, is_sharded, whole_copy
from vislang.train.start import check_start
from vislang.train.state import State
from vislang.train.step import Watch, backward
from vislang.train.stop import StopFlag, Stopped

Judge = Callable[[DualEncoder, int], Mapping[str, Mapping[str, Any]]]


def train(
    config: TrainConfig,
    folder: Path | str,
    *,
    judge: Judge | None = None,
    source: Source | None = None,
) -> Path:
    """Train a dual encoder; repeating the call in the same folder goes on where it stopped.

    Args:
        config: everything that the run depends on.
        folder: the run folder.
        judge: called as judge(model, step) -> {evaluation: {metric: {"value": ...}}} on the first
            process, every `run.evaluate_every` and at the end; what it returns goes into the log.
        source: an opened training source, instead of `config.data.train`.

    Returns:
        The last checkpoint.

    Raises:
        UserError: settings, data or folder do not allow the run, or the loss became NaN.
        Stopped: SIGINT or SIGTERM came; everything is saved.
    """
    folder = Path(folder)
    config = with_data(config)
    check_start(config, folder)
    place = settle(config)
    source = source or open_source(config.data.train, **config.data.train_options)
    check_data(config, source)
    # A batch larger than the source makes no step; the loader says so in better words.
    size = config.data.batch_size
    epoch = samples_in_epoch(source, config.data.episode, max(1, size))
    steps = total_steps(config, max(1, steps_in_epoch(epoch, size)))
    model, objective = make_model(config, place, steps)
    check_needs(model, objective, config)
    batches = make_batches(config, source, model, objective, place)
    claim_folder(config, folder)
    if place.group.first:
        note_data(folder, config, source)
    barrier()
    augmented = config.data.augment != "none"
    frozen = FrozenFeatures(model, source, batches, augmented, folder, place)
    batches = frozen.batches

    schedules = make_schedules(config.optim, steps, len(batches))
    optimizer = make_optimizer({"model": model, "objective": objective}, config.optim)
    ema = Ema(model, config.optim.ema) if config.optim.ema else None
    taught = needs_teacher(objective)
    teacher = Teacher(model, objective, config.optim.ema) if taught else None
    always = checkpoint_steps(config.run.checkpoint_at, len(batches), steps)
    patience = Patience(config.run, folder, judge is not None, place.device)
    state = State(model, objective, optimizer, ema, teacher, place, folder, config.run.keep, always)
    episodes = Episodes(objective, model, batches, frozen, source, place, folder, config.run.seed)
    step = state.resume()

    save_every = cadence(config.run.checkpoint_every, len(batches), "run.checkpoint_every")
    judge_every = cadence(config.run.evaluate_every, len(batches), "run.evaluate_every")
    look_every = cadence(config.run.diagnostics_every, len(batches), "run.diagnostics_every")

    def due(step: int, every: int) -> bool:
        return step == steps or (every > 0 and step % every == 0)

    def saves(step: int) -> bool:
        best = bool(patience) and due(step, judge_every)  # it may be the best one
        return step in always or due(step, save_every) or best

    log = Log(folder, step, place.group.first, config.run.tensorboard)
    log.add(
        "start",
        step=step,
        steps=steps,
        steps_per_epoch=len(batches),
        samples=len(source),
        device=str(place.device),
        precision=place.precision,
        processes=place.group.world,
        **describe(model, objective),
    )
    progress = Progress(steps, step, place.group.first)
    meter = Meter()
    began = time.monotonic()
    last = ckpt.newest_checkpoint(folder)[0] if step else None

    model.train()
    objective.train()
    with StopFlag() as stop, contextlib.closing(log), contextlib.closing(batches):
        if judge and step and due(step, judge_every) and not _was_judged(folder, step):
            _judge(
                judge, model, step, log, place, config
            )  # killed between a checkpoint and its judgement
        if step in always and last is None:
            last = state.save(step, len(batches))  # the model as it starts
            log.add("checkpoint", step=step, path=str(last.relative_to(folder)))
        over = patience.is_over()
        for batch in meter.watch(_from(batches, step, step if over else steps)):
            if step % len(batches) == 0:
                episodes.begin(step // len(batches), step + 1, log)
            tensors = frozen.fill(batch, place.device)
            step += 1
            for row in rejected_anywhere(batch["rejected"], place):
                log.add("rejected", step=step, id=row.id, reason=row.reason, origin=row.origin)
            rows = sum(row_counts(len(batch["id"]), place.device))
            if rows:
                rates = {side: s.rate(step - 1) for side, s in schedules.items()}
                rate = rates[""]
                set_rate(optimizer, rates)
                rest_sides(optimizer, schedules, step - 1)
                look_due = look_every > 0 and due(step, look_every) and place.group.first
                look = Diagnostics() if look_due else None
                loss, norm = _gradients(
                    config, place, model, objective, teacher, tensors, step, look and look.watch
                )
                log_due = due(step, config.run.log_every)
                # A look at the numbers waits for a GPU, so there it is taken only when due.
                if place.device.type == "cpu" or log_due or saves(step) or stop.signal:
                    _refuse_nan(loss, norm, step, rate, last)
                optimizer.step()
                if teacher:
                    teacher.update()
                _after_step(objective)
                if ema:
                    ema.update()
                meter.count(rows)
                if log_due:
                    log.add(
                        "train",
                        step=step,
                        epoch=round(step / len(batches), 4),
                        loss=float(loss),
                        parts=_parts(objective),
                        lr=rate,
                        grad_norm=float(norm),
                        scale=_scale(objective),
                        **meter.read(),
                    )
                    progress.update(step, float(loss), meter.rate)
                if look:
                    log.add("diagnostics", step=step, **look.line(_parts(objective)))
            why = stop.anywhere(place.device)
            if why or saves(step):
                state.always = always | patience.best_step()
                last = state.save(step, len(batches))
                log.add("checkpoint", step=step, path=str(last.relative_to(folder)))
            if why and last:
                log.add("stop", step=step, why=f"signal {why}")
                progress.close()
                raise Stopped(why, step, steps, last)
            if judge and due(step, judge_every):
                _judge(judge, model, step, log, place, config)
                if over := patience.is_over():
                    break
        progress.close()
        why = f"no better {config.run.watch or 'value'} in {patience.most} evaluations"
        more = {"why": why} if over else {}
        log.add("end", step=step, seconds=round(time.monotonic() - began, 1), **more)
    assert last is not None
    return last


def _gradients(
    config: TrainConfig,
    place: Place,
    model: DualEncoder,
    objective: nn.Module,
    teacher: Teacher | None,
    tensors: Mapping[str, Any],
    step: int,
    watch: Watch | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of the global batch and the norm of its gradient, which is clipped and left in .grad."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    both = [*trainable, *objective.parameters()]
    for parameter in (*model.parameters(), *objective.parameters()):
        parameter.grad = None  # those that rest included
    loss = backward(
        model,
        objective,
        tensors,
        config.data.chunk,
        autocast=lambda: autocast(place.device, place.precision),
        teacher=teacher.model if teacher else None,
        objective_seed=config.run.seed * 1_000_003 + step,
        watch=watch,
    )
    sum_gradients([p for p in trainable if not isinstance(p, DTensor)])  # split ones are summed
    largest = config.optim.clip_grad or float("inf")  # 0: only measured
    return loss, clip_gradients(both, largest)


def make_batches(
    config: TrainConfig, source: Source, model: DualEncoder, objective: nn.Module, place: Place
) -> Batches:
    """The run's loader: each tower's own preprocessing, this process's part of every batch."""
    from vislang.data.decode import Limits
    from vislang.models.towers.sizes import check_image_size

    data = config.data
    batches = Batches(
        source,
        data.batch_size,
        needs=inputs_of(objective.needs),  # type: ignore[arg-type]
        seed=config.run.seed,
        image=model.image.tower.preprocess if model.image else None,  # type: ignore[arg-type]
        tokenizer=model.text.tower.tokenizer if model.text else None,  # type: ignore[arg-type]
        augment=data.augment,
        augment_options=data.augment_options,
        crop_augment=data.crop_augment,
        crop_augment_options=data.crop_augment_options,
        crop_size=data.crop_size,
        episode=data.episode,
        episode_replace=data.episode_replace,
        caption=data.caption,
        limits=Limits(data.max_pixels, data.max_bytes),
        workers=data.workers,
        rank=place.group.rank,
        world=place.group.world,
    )
    for size in batches.image_sizes:
        check_image_size(model.image.tower, size, config.model.image.name)  # type: ignore[union-attr]
    return batches


def inputs_of(needs: Sequence[str]) -> tuple[str, ...]:
    """What the loader must give so that the seam can make all that an objective needs.

    >>> inputs_of(("image", "image_2_teacher", "text", "text_2", "label", "index"))
    ('image', 'image_2', 'text', 'label')
    """
    inputs = []
    for key in needs:
        base = key.removesuffix(TEACHER).removesuffix(FEATURES)
        kind = base.split("_")[0]
        if kind == "text":
            inputs.append("text")  # text_2 is the text once more
        elif kind in ("image", "label"):
            inputs.append(base)
    return tuple(dict.fromkeys(inputs))


def _from(batches: Batches, done: int, steps: int) -> Iterator[Mapping[str, Any]]:
    """Batches from the exact position after `done` steps on, epoch after epoch, to `steps`."""
    epoch, at = divmod(done, len(batches))
    endless = batches.start(epoch, at, epochs=None)
    yield from itertools.islice(endless, steps - done)


def _refuse_nan(
    loss: torch.Tensor, norm: torch.Tensor, step: int, rate: float, last: Path | None
) -> None:
    if torch.isfinite(loss) and torch.isfinite(norm):
        return
    kept = f"The last good checkpoint is {last}." if last else "No checkpoint was written yet."
    raise UserError(
        f"The loss is {float(loss)} and the gradient norm {float(norm)} at step {step:,}"
        f" (learning rate {rate:.3g}). {kept} Try a lower optim.lr, a longer optim.warmup,"
        " optim.clip_grad=1, or run.precision=fp32, in a new folder."
    )


def _after_step(objective: nn.Module) -> None:
    hook = getattr(objective, "after_step", None)
    if hook:
        with torch.no_grad():
            hook()


def _parts(objective: nn.Module) -> dict[str, float]:
    return {key: float(value) for key, value in getattr(objective, "parts", {}).items()}


def _scale(objective: nn.Module) -> float | None:
    """The learned logit scale, if the objective has one."""
    for name, parameter in objective.named_parameters():
        if name.rpartition(".")[2] == "log_scale":
            return float(parameter.detach().exp())
    return None


def _judge(
    judge: Judge, model: DualEncoder, step: int, log: Log, place: Place, config: TrainConfig
) -> None:
    """Evaluate on the first process; randomness and mode of the training stay as they were."""
    before = random_state(place.device)
    if is_sharded(model):
        model = whole_copy(model, config, place.device)
    if place.group.first:
        model.eval()
        with torch.no_grad():
            for name, values in judge(model, step).items():
                log.add("eval", step=step, evaluation=name, values=values)
        model.train()
    set_random_state(before, place.device)
    barrier()


def _was_judged(folder: Path, step: int) -> bool:
    return any(line["kind"] == "eval" and line["step"] == step for line in read_log(folder))
