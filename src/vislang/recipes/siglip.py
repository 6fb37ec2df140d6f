"""SigLIP from scratch: every pair of the batch is a yes-or-no question of its own."""

from dataclasses import replace

from vislang.config import ObjectiveConfig, TowerConfig, TrainConfig
from vislang.recipes.clip import clip


def siglip() -> TrainConfig:
    """SigLIP ViT-B/16 from scratch: a sigmoid loss for every pair (arXiv:2303.15343)."""
    config = clip()
    image = TowerConfig(
        "scratch_vit",
        {"patch": 16, "pool": "mean", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    )
    text = TowerConfig("scratch_text", {"tokenizer": "clip", "context": 64, "causal": False})
    return replace(
        config,
        recipe="siglip",
        model=replace(config.model, image=image, text=text),
        objective=ObjectiveConfig("siglip"),
        optim=replace(config.optim, lr=1e-3, betas=(0.9, 0.95), weight_decay=1e-4),
    )
