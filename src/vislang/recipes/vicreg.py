"""VICReg: two views agree while every dimension keeps its spread."""

from vislang.config import TrainConfig
from vislang.recipes.two_views import two_views


def vicreg() -> TrainConfig:
    """VICReg ResNet-50, images alone: variance, invariance, covariance (arXiv:2105.04906).

    Weights 25, 25, 1 and a projector of three layers of 8,192, as in the paper.
    """
    return two_views(
        "vicreg",
        "vicreg",
        first="image",
        second="image_2",
        invariance=25.0,
        variance=25.0,
        covariance=1.0,
        projector=[8192, 8192, 8192],
    )
