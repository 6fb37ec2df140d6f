"""BYOL: predict what a slow copy of the network sees."""

from vislang.config import TrainConfig
from vislang.recipes.two_views import two_views


def byol() -> TrainConfig:
    """BYOL ResNet-50, images alone: predict a momentum teacher's view (arXiv:2006.07733).

    Projector, predictor and momentum (0.996, rising to 1) are the paper's. Both views
    are augmented alike; the paper blurs one always, the other hardly, and solarises some.
    """
    return two_views("byol", "byol", projector=[4096, 256], predictor=4096, momentum=0.996)
