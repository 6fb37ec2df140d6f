"""LiT: a pretrained image tower stays as it is, a text tower learns to read it."""

from dataclasses import replace

from vislang.config import TowerConfig, TrainConfig
from vislang.recipes.clip import clip


def lit() -> TrainConfig:
    """LiT: a text tower trained against a frozen, pretrained image tower (arXiv:2111.07991).

    The frozen tower's features are computed once. Locking the text side instead, for example a
    sentence tower, is `--model.text.frozen true --model.image.frozen false` and other names.
    """
    config = clip()
    image = TowerConfig(
        "timm",
        {"name": "vit_base_patch16_224"},
        pretrained="augreg2_in21k_ft_in1k",
        head="linear",
        frozen=True,
    )
    return replace(
        config,
        recipe="lit",
        model=replace(config.model, image=image),
        data=replace(config.data, augment="none"),
        optim=replace(config.optim, lr=1e-3, weight_decay=1e-4),
    )
