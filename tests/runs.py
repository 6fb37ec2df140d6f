"""Small complete training configs for tests: two tiny towers on real digits."""

from dataclasses import replace

from vislang.config import (
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    RunConfig,
    TowerConfig,
    TrainConfig,
    with_changes,
)

IMAGE = TowerConfig(
    "scratch_vit", {"image_size": 8, "patch": 4, "width": 16, "depth": 1, "heads": 2}
)
TEXT = TowerConfig(
    "scratch_text",
    {"tokenizer": "bytes", "context": 32, "width": 16, "depth": 1, "heads": 2},
)


def digits(**changes) -> TrainConfig:
    """Twelve steps of 32 digits with checkpoints every four; `changes` are dotted fields."""
    config = TrainConfig(
        recipe="test",
        model=ModelConfig(IMAGE, TEXT, width=16),
        objective=ObjectiveConfig("infonce"),
        data=DataConfig(train="digits:train", batch_size=32, workers=0),
        optim=OptimConfig(lr=1e-3, steps=12, warmup=2),
        run=RunConfig(
            device="cpu",
            precision="fp32",
            threads=1,
            checkpoint_every="4 steps",
            log_every=1,
            tensorboard=False,
        ),
    )
    return with_changes(config, {k.replace("__", "."): v for k, v in changes.items()})


def frozen(tower: TowerConfig) -> TowerConfig:
    """The same tower, frozen."""
    return replace(tower, frozen=True)
