"""The demo: a whole CLIP on real handwritten digits, in a minute on two cores."""

from vislang.config import (
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    RunConfig,
    TowerConfig,
    TrainConfig,
)


def demo() -> TrainConfig:
    """A small CLIP on scikit-learn's handwritten digits, trained in a minute without a GPU."""
    return TrainConfig(
        recipe="demo",
        model=ModelConfig(
            image=TowerConfig(
                "scratch_vit",
                {"image_size": 16, "patch": 4, "width": 64, "depth": 3, "heads": 4, "channels": 1},
            ),
            text=TowerConfig(
                "scratch_text",
                {"tokenizer": "bytes", "context": 48, "width": 64, "depth": 1, "heads": 4},
            ),
            width=64,
        ),
        objective=ObjectiveConfig("infonce"),
        data=DataConfig(
            train="digits",
            train_options={"split": "train"},
            valid="digits",
            valid_options={"split": "test"},
            batch_size=128,
            workers=0,
            augment="clip",
            augment_options={"scale": [0.7, 1.0]},
        ),
        optim=OptimConfig(lr=3e-3, warmup=0.1, weight_decay=0.05, epochs=30.0),
        run=RunConfig(
            evaluations=("zeroshot",),
            evaluate_every="10 epochs",
            checkpoint_every="10 epochs",
            precision="fp32",
        ),
    )
