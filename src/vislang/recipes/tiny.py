"""The tiny twin of a recipe: the same parts in kind, small enough that a test runs them."""

from dataclasses import replace
from typing import Any

from vislang.config import TowerConfig, TrainConfig

IMAGE = {"image_size": 16, "patch": 8, "width": 32, "depth": 1, "heads": 2}
TEXT = {"tokenizer": "bytes", "context": 32, "width": 32, "depth": 1, "heads": 2}
DECODER = {"width": 32, "depth": 1, "heads": 2}
HEAD = {"width": 32, "layers": 2, "hidden": 32}
OBJECTIVE = {
    "prototypes": 16,
    "clusters": 8,
    "queue": 48,  # no multiple of the batch: it wraps around
    "hidden": 32,
    "bottleneck": 16,
    "projection": 16,
    "predictor": 32,
    "projector": 32,  # of each layer
    "layers": 2,
    "crops": 2,
    "repetitions": 1,
    "lit_start": 3,
}


def tiny(config: TrainConfig) -> TrainConfig:
    """The twin of `config`: a few steps on digits, seconds on a CPU.

    Kept are the objective, the heads, what is frozen, which sides there are, augmentation, schedule
    and evaluations; towers, layers of the objective, data, batch and length are made small.
    Episodes are one step long: four of them have all of ProtoCLIP's phases.
    """
    model, data = config.model, config.data
    decoder = replace(model.decoder, options=DECODER) if model.decoder.name else model.decoder
    return replace(
        config,
        model=replace(
            model,
            image=_side(model.image, "scratch_vit", IMAGE),
            text=_side(model.text, "scratch_text", TEXT),
            width=32,
            decoder=decoder,
        ),
        objective=replace(config.objective, options=_shrunk(config.objective.options, OBJECTIVE)),
        data=replace(
            data,
            train="digits",
            train_options={"split": "train"},
            valid="digits",
            valid_options={"split": "test"},
            batch_size=32,
            chunk=16 if data.chunk else 0,
            workers=0,
            crop_size=8 if data.crop_size else 0,
            episode=32 if data.episode else 0,
        ),
        optim=replace(
            config.optim,
            steps=4,
            warmup=1.0,
            image_until=3.0 if config.optim.image_until else 0.0,
        ),
        run=replace(
            config.run,
            device="cpu",
            precision="fp32",
            threads=1,
            checkpoint_every="2 steps",
            evaluate_every="",
            log_every=1,
            tensorboard=False,
        ),
    )


def _side(tower: TowerConfig, name: str, options: dict[str, Any]) -> TowerConfig:
    if tower.name in ("", "none"):
        return tower
    head = _shrunk(tower.head_options, HEAD)
    return replace(tower, name=name, options=options, pretrained="", head_options=head)


def _shrunk(options: dict[str, Any], small: dict[str, int]) -> dict[str, Any]:
    """`options` with those that `small` names made small; a list keeps its length."""

    def shrink(key: str, value: Any) -> Any:
        if key not in small or not value:
            return value
        return [small[key]] * len(value) if isinstance(value, list) else small[key]

    return {key: shrink(key, value) for key, value in options.items()}
