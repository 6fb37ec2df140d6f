"""What the recipes have in common that learn from views of images alone."""

from typing import Any

from vislang.config import (
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    RunConfig,
    TowerConfig,
    TrainConfig,
)


def two_views(recipe: str, objective: str, **options: Any) -> TrainConfig:
    """A ResNet-50 from scratch on two strongly augmented views of each image, no text side.

    Tower, batch, optimizer and schedule are those under which El Banani et al. 2023,
    arXiv:2302.12248, compared SimCLR, SimSiam, NNCLR and SwAV: AdamW at 1e-3 for a batch of 512,
    decay 0.01, warm-up over 2 % of the steps. The methods' own papers used LARS or SGD with batches
    of 256 to 4,096, whose rates do not carry over to AdamW.

    Args:
        recipe: its name.
        objective: a key of OBJECTIVES.
        options: its options; layers that only training needs belong to it, so the model has no
            head and its embedding is the tower's output.
    """
    return TrainConfig(
        recipe=recipe,
        model=ModelConfig(
            image=TowerConfig(
                "timm",
                {"name": "resnet50", "model_options": {"zero_init_last": False}},
                head="none",
            ),
            text=TowerConfig("none"),
            width=0,  # the tower's own
        ),
        objective=ObjectiveConfig(objective, options),
        # No chunks: the tower's batch norms are to see the whole batch.
        data=DataConfig(batch_size=512, augment="simclr"),
        optim=OptimConfig(
            lr=1e-3,
            min_lr=1e-6,
            warmup=0.02,
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=0.01,
            clip_grad=0.0,
            epochs=100.0,
        ),
        run=RunConfig(evaluations=("knn",)),
    )
