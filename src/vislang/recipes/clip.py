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
    """CLIP ViT-B/32 from scratch: InfoNCE with a learned temperature (arXiv:2103.00020).

    Both towers can be exported to open_clip. The paper's batch is 32,768; the learning rate
    suits a batch of about a thousand.
    """
    return TrainConfig(
        recipe="clip",
        model=ModelConfig(
            image=TowerConfig("scratch_vit", {"image_size": 224, "patch": 32}),
            text=TowerConfig("scratch_text", {"tokenizer": "clip"}),
            width=512,
        ),
        objective=ObjectiveConfig("infonce"),
        data=DataConfig(batch_size=1024, chunk=128, augment="clip"),
        optim=OptimConfig(lr=5e-4, warmup=0.1, weight_decay=0.2, epochs=32.0),
        run=RunConfig(evaluations=("zeroshot", "retrieval")),
    )
