"""UniCL: image-text pairs and labelled images in one contrast."""

from dataclasses import replace

from vislang.config import ObjectiveConfig, TowerConfig, TrainConfig
from vislang.recipes.clip import clip


def unicl() -> TrainConfig:
    """UniCL Swin-T from scratch: CLIP where all of a class are right (arXiv:2204.03610).

    Its source must give labels; samples without one (-1) count as pairs of their own. The paper's
    towers and batch of 4,096; rates and decay are those of `clip`.
    """
    config = clip()
    image = TowerConfig("timm", {"name": "swin_tiny_patch4_window7_224"})
    return replace(
        config,
        recipe="unicl",
        model=replace(config.model, image=image),
        objective=ObjectiveConfig("unicl", {"temperature": 0.07}),
        data=replace(config.data, batch_size=4096),
    )
