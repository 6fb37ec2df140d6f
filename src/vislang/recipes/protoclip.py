"""ProtoCLIP: CLIP with prototypes that are found anew every episode."""

from dataclasses import replace

from vislang.config import ModelConfig, ObjectiveConfig, TowerConfig, TrainConfig
from vislang.recipes.clip import clip


def protoclip() -> TrainConfig:
    """ProtoCLIP ResNet-50: prototypes from K-means over episodes of 200,000 (arXiv:2206.10996).

    The published recipe for 2.5 million pairs: 400 episodes (32 passes), 20,000 clusters on 20
    iterations and 3 starts, target temperature 0.01, the first episode without prototypes, the last
    two as LiT with the image side at rest. An epoch is an episode, so `optim.epochs`,
    `optim.image_until` and the objective's `lit_start` change together. The external teacher of
    the paper (weight 1 there) needs rows of its own and is off.
    """
    config = clip()
    return replace(
        config,
        recipe="protoclip",
        model=ModelConfig(
            image=TowerConfig("open_clip", {"name": "RN50"}, head="none"),
            text=TowerConfig("open_clip", {"name": "RN50"}, head="none"),
            width=0,  # the towers' own joint space
        ),
        objective=ObjectiveConfig(
            "protoclip",
            {
                "clusters": 20000,
                "iterations": 20,
                "repetitions": 3,
                "projector": [2048],
                "projection": 128,
                "target_temperature": 0.01,
                "clip_weight": 1.0,
                "prototype_weight": 1.0,
                "warmup": 1,
                "lit_start": 398,
            },
        ),
        data=replace(
            config.data,
            batch_size=512,
            chunk=0,  # the tower's batch norms are to see the whole batch
            augment="light",
            episode=200_000,
            episode_replace=True,
        ),
        optim=replace(
            config.optim,
            warmup=0.1,
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=0.5,
            clip_grad=10.0,
            epochs=400.0,
            image_until=398.0,
        ),
    )
