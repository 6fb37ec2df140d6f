"""Barlow Twins: two views are correlated dimension by dimension, and in no other way."""

from vislang.config import TrainConfig
from vislang.recipes.two_views import two_views


def barlow() -> TrainConfig:
    """Barlow Twins ResNet-50, images alone: a cross-correlation of one (arXiv:2103.03230).

    Trade-off 0.0051 and a projector of three layers of 8,192, as in the paper's section 2.2.
    """
    return two_views(
        "barlow",
        "barlow_twins",
        first="image",
        second="image_2",
        redundancy=0.0051,
        projector=[8192, 8192, 8192],
    )
