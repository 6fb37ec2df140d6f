"""Everything that a run depends on, as frozen dataclasses; the same fields in YAML and as flags.

This module imports no torch, so that the command line can show every flag at once.
"""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from vislang.errors import UserError
from vislang.fields import checked
from vislang.lookup import nearest

T = TypeVar("T")


@dataclass(frozen=True)
class TowerConfig:
    """One side of a dual encoder: a tower, then a head onto the shared width.

    Args:
        name: a key of TOWERS (`vislang list towers`), or your own 'package.module:Name'.
        options: arguments of the tower's builder.
        pretrained: weights to start from: a tag that the tower's library knows, a local file or
            folder, or empty for random weights.
        head: a key of HEADS: none, linear, mlp.
        head_options: arguments of the head, for example {layers: 2, hidden: 2048}.
        frozen: the tower (not its head) keeps its weights and its embeddings are computed once.
        adapter: small parts to train inside a transformer whose own weights are then locked
            (`vislang list adapters`); empty for none.
        adapter_options: arguments of the adapter, for example {rank: 16}.
        prompt_tokens: learned vectors before the words of every text (CoOp); the tower's own
            weights are then locked.
        lock: which of the tower's parameters keep their values: globs of names ('*.attn.*') or
            groups (embeddings, layers:0-5, first:N, last:N, final).
        unlock: which of those are trained all the same ('*.ln_*'); wins over lock.
    """

    name: str = "scratch_vit"
    options: dict[str, Any] = field(default_factory=dict)
    pretrained: str = ""
    head: str = "linear"
    head_options: dict[str, Any] = field(default_factory=dict)
    frozen: bool = False
    adapter: str = ""
    adapter_options: dict[str, Any] = field(default_factory=dict)
    prompt_tokens: int = 0
    lock: tuple[str, ...] = ()
    unlock: tuple[str, ...] = ()


@dataclass(frozen=True)
class DecoderConfig:
    """What writes the caption of an image, token by token.

    Args:
        name: a key of DECODERS (`vislang list decoders`); empty for none.
        options: arguments of the decoder's builder.
    """

    name: str = ""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelConfig:
    """A dual encoder.

    Args:
        image: the image side; null, or the name none, for no such side.
        text: the text side, likewise.
        width: width of the shared embedding space (dimensions).
        decoder: a text decoder on both, for objectives that write captions (coca).
        start: a model of the same architecture (a run, a checkpoint, an export) whose weights
            training starts from; empty for the towers' own (random, or `pretrained`).
    """

    image: TowerConfig = field(default_factory=TowerConfig)
    text: TowerConfig = field(default_factory=lambda: TowerConfig(name="scratch_text"))
    width: int = 512
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    start: str = ""


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised.

    Args:
        name: a key of OBJECTIVES, or a weighted sum such as 'infonce:1 + vicreg:0.1'.
        options: arguments of the objective; of a sum, a mapping for each name.
        teacher: the side that teaches, image or text, for objectives with such an option (it
            stays when the objective is exchanged); empty for their own choice.
    """

    name: str = "infonce"
    options: dict[str, Any] = field(default_factory=dict)
    teacher: str = ""


@dataclass(frozen=True)
class DataConfig:
    """Where samples come from and how they become batches.

    Args:
        train: source to train on: a path whose layout is recognised, or 'layout:path'.
        train_options: arguments of the source's layout (columns, delimiter, split ...).
        from_run: a run folder whose training data, checked to be as they were, are trained on in
            place of train and train_options; empty for none.
        valid: source to evaluate on; empty for none.
        valid_options: arguments of that source's layout.
        batch_size: samples in the global batch of one step, over all processes.
        chunk: samples embedded at a time on one process; 0 embeds the whole batch at once. The
            gradient is the same; memory is that of a chunk, time about a third more.
        workers: loader processes for each training process; 0 loads in the training process.
        augment: train-time image transform: clip, light, simclr, global_crop or none
            (`vislang list augments`), or one for each view, as in 'none,simclr,simclr'.
        augment_options: changes to its parameters, for example {scale: [0.5, 1.0]}.
        crop_augment: the transform of small crops, for objectives with the option crops.
        crop_augment_options: changes to its parameters, for example {scale: [0.05, 0.14]}.
        crop_size: side of a small crop in pixels (96 in DINO and SwAV); 0 takes the tower's own.
            The tower must take images of that size.
        episode: samples that an epoch visits; 0 for as many as the source has. Episodes take
            other samples each time, until the source is exhausted.
        episode_replace: draw every sample of an episode from the whole source instead.
        caption: which caption of an image: random (drawn anew each epoch) or first.
        max_pixels: an image with more pixels is rejected before it is decoded.
        max_bytes: an image file with more bytes is rejected before it is decoded.
    """

    train: str = "digits"
    train_options: dict[str, Any] = field(default_factory=dict)
    from_run: str = ""
    valid: str = ""
    valid_options: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 256
    chunk: int = 0
    workers: int = 2
    augment: str = "clip"
    augment_options: dict[str, Any] = field(default_factory=dict)
    crop_augment: str = "local_crop"
    crop_augment_options: dict[str, Any] = field(default_factory=dict)
    crop_size: int = 0
    episode: int = 0
    episode_replace: bool = False
    caption: str = "random"
    max_pixels: int = 89_478_485
    max_bytes: int = 64_000_000


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up and cosine decay.

    Args:
        lr: peak learning rate, reached by the last warm-up step.
        min_lr: learning rate of the last step.
        warmup: warm-up steps; a value below 1 is a fraction of all steps.
        betas: AdamW's decay rates of the first and second moment.
        eps: AdamW's stabiliser.
        weight_decay: decoupled decay; not on norms, biases, positions, class token or scale.
        lr_image: peak rate of the image tower; -1 takes lr. A part with a rate of its own
            follows the same curve, min_lr in proportion.
        lr_text: peak rate of the text tower; -1 takes lr.
        lr_head: peak rate of both heads; -1 takes lr.
        weight_decay_image: decay of the image tower; -1 takes weight_decay.
        weight_decay_text: decay of the text tower; -1 takes weight_decay.
        weight_decay_head: decay of both heads; -1 takes weight_decay.
        layer_decay_image: each layer of the image tower learns at this times the rate of the
            one above it; 1 for all alike. Embeddings are the lowest layer.
        layer_decay_text: the same for the text tower.
        image_from: epoch at which the image side (tower and head) begins to learn, with a
            warm-up of its own.
        image_until: epoch by which the image side's rate has fallen to 0, where it stays (the
            end of ProtoCLIP's runs); 0 is the end of the run.
        text_from: epoch at which the text side begins to learn.
        text_until: epoch by which the text side's rate has fallen to 0; 0 is the end of the run.
        clip_grad: largest norm of the whole gradient; 0 does not clip.
        epochs: passes over the training source (may be a fraction).
        steps: optimizer steps instead of epochs; 0 uses epochs.
        ema: decay of an exponential moving average of the weights, saved beside the raw ones;
            0 keeps none.
    """

    lr: float = 5e-4
    min_lr: float = 0.0
    warmup: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 0.2
    lr_image: float = -1.0
    lr_text: float = -1.0
    lr_head: float = -1.0
    weight_decay_image: float = -1.0
    weight_decay_text: float = -1.0
    weight_decay_head: float = -1.0
    layer_decay_image: float = 1.0
    layer_decay_text: float = 1.0
    image_from: float = 0.0
    image_until: float = 0.0
    text_from: float = 0.0
    text_until: float = 0.0
    clip_grad: float = 1.0
    epochs: float = 10.0
    steps: int = 0
    ema: float = 0.0


@dataclass(frozen=True)
class RunConfig:
    """How a run is carried out.

    Args:
        seed: of weights, order, captions and augmentation.
        device: auto, cpu, cuda or cuda:N.
        precision: auto, fp32 or bf16 (autocast over fp32 weights); auto takes bf16 where this
            machine multiplies it faster than fp32.
        threads: CPU threads of this process; 0 leaves torch's choice.
        checkpoint_every: '500 steps', '1 epochs' or '0.5 epochs'; the last step is always saved.
        checkpoint_at: epochs, as in '0,1/1024,1/2,5/4', after which a checkpoint is saved that is
            always kept; 'doubling' is 0, 1/1024, 1/512 ... 1/2, 3/4, 5/4, 3/2, 7/4 and each epoch.
        keep: newest of the other checkpoints to keep; 0 keeps all.
        log_every: steps between lines of the log.
        diagnostics_every: '100 steps' or '1 epochs' between looks at the embeddings (modality gap,
            spread, effective rank ...; a collapse is flagged); empty for never.
        evaluate_every: '500 steps' or '1 epochs' between evaluations on the valid source;
            empty evaluates only at the end.
        evaluations: evaluations to run on the valid source (`vislang list evaluations`).
        watch: the value that tells which model is better, as evaluation.metric, or
            -evaluation.metric where less is better; empty takes the first.
        patience: evaluations in a row without a better value to watch after which the run ends,
            the best checkpoint being kept; 0 goes on to the last step.
        grad_checkpoint: recompute activations in the backward pass to save memory.
        compile: run the towers through torch.compile.
        shard: split the trained towers' weights, gradients and moments over the processes (FSDP2),
            for towers that do not fit one device.
        tensorboard: also write TensorBoard files.
    """

    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    threads: int = 0
    checkpoint_every: str = "1 epochs"
    checkpoint_at: tuple[str, ...] = ()
    keep: int = 3
    log_every: int = 10
    diagnostics_every: str = "100 steps"
    evaluate_every: str = ""
    evaluations: tuple[str, ...] = ()
    watch: str = ""
    patience: int = 0
    grad_checkpoint: bool = False
    compile: bool = False
    shard: bool = False
    tensorboard: bool = True


@dataclass(frozen=True)
class TrainConfig:
    """A complete training run.

    Args:
        recipe: the recipe it came from, for the record.
        model: the dual encoder.
        objective: what is minimised.
        data: sources and batches.
        optim: optimizer and schedule.
        run: device, precision, checkpoints and evaluations.
    """

    recipe: str = "clip"
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """A dataclass from nested mappings; unknown fields and wrong types are errors.

    >>> from_dict(OptimConfig, {"lr": 1e-3}).lr
    0.001
    >>> from_dict(ModelConfig, {"text": None}).text.name  # a side that is left out
    'none'
    >>> from_dict(OptimConfig, {"lrr": 1e-3})
    Traceback (most recent call last):
    vislang.errors.UserError: optim has no field 'lrr'. Did you mean 'lr'? ...
    """
    label = where or cls.__name__.removesuffix("Config").lower()
    if not isinstance(values, Mapping):
        raise UserError(f"{label} must be a mapping of fields, got {values!r}.")
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    types_ = typing.get_type_hints(cls)
    made = {}
    for key, value in values.items():
        key = "from_run" if key == "from" else key  # Python has no field of that name
        if key not in known:
            raise UserError(
                f"{label} has no field {key!r}.{nearest(str(key), known)}"
                f" Known: {', '.join(sorted(known))}."
            )
        inner = f"{where}.{key}" if where else str(key)
        kind = types_[key]
        if kind is TowerConfig and value is None:
            made[key] = TowerConfig(name="none")
        elif dataclasses.is_dataclass(kind):
            made[key] = from_dict(kind, value, inner)  # type: ignore[arg-type]
        else:
            made[key] = checked(kind, value, inner)
    return cls(**made)


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain values of a config, as `from_dict` reads them back."""
    from vislang.files import plain

    return plain(config)


def read_config(path: Path | str, cls: type[T] = TrainConfig) -> T:
    """A config from a YAML (or JSON) file."""
    import yaml

    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"There is no config file {path}.") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {error}.") from error
    try:
        return from_dict(cls, values or {})
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def write_config(path: Path | str, config: Any) -> None:
    """Write a config as YAML, whole or absent."""
    import yaml

    from vislang.files import write_whole

    write_whole(path, yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True))


def with_changes(config: T, changes: Mapping[str, Any]) -> T:
    """A copy with dotted fields replaced.

    >>> with_changes(TrainConfig(), {"optim.lr": 0.1, "model.image.options.depth": 2}).optim.lr
    0.1
    """
    values = to_dict(config)
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        inner = values
        for parent in parents:
            if not isinstance(inner.get(parent), dict):
                raise UserError(
                    f"There is no config field {dotted!r}.{nearest(parent, inner)}"
                    f" Known here: {', '.join(sorted(inner))}."
                )
            inner = inner[parent]
        inner[last] = value
    return from_dict(type(config), values)
