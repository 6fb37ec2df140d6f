"""SLIP: CLIP and SimCLR share an image tower."""

from dataclasses import replace

from vislang.config import ObjectiveConfig, TowerConfig, TrainConfig
from vislang.recipes.clip import clip


def slip() -> TrainConfig:
    """SLIP ViT-B/16 from scratch: CLIP on one view, SimCLR on two more (arXiv:2112.12750).

    Section 4 of the paper: batch 4,096, 25 epochs, AdamW at 3e-3 with decay 0.1 and one epoch of
    warm-up, projector 4096-4096-256, self-supervision at temperature 0.1 and weight 1.
    """
    config = clip()
    objective = ObjectiveConfig(
        "slip", {"weight": 1.0, "ssl_temperature": 0.1, "projector": [4096, 4096, 256]}
    )
    return replace(
        config,
        recipe="slip",
        model=replace(
            config.model, image=TowerConfig("scratch_vit", {"image_size": 224, "patch": 16})
        ),
        objective=objective,
        data=replace(config.data, batch_size=4096, augment="global_crop,simclr,simclr"),
        optim=replace(config.optim, lr=3e-3, warmup=0.04, eps=1e-8, weight_decay=0.1, epochs=25.0),
    )
