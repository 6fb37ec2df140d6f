"""CLIP from scratch: two towers, InfoNCE with a learned temperature."""

from vislang.config import (
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    RunConfig,
    TowerConfig,
    TrainConfig,
)


def clip() -> TrainConfig:
    """Contrastive image-text training from scratch with InfoNCE (CLIP, arXiv:2103.00020)."""
    return TrainConfig(
        recipe="clip",
        model=ModelConfig(
            image=TowerConfig("open_clip", {"name": "ViT-B-32"}, head="none"),
            text=TowerConfig("open_clip", {"name": "ViT-B-32"}, head="none"),
            width=512,
        ),
        objective=ObjectiveConfig("infonce"),
        data=DataConfig(batch_size=512, chunk=64, augment="clip"),
        optim=OptimConfig(lr=5e-4, warmup=0.1, weight_decay=0.2, epochs=32),
        run=RunConfig(evaluations=("zeroshot", "retrieval")),
    )
