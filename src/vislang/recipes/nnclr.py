"""NNCLR: the nearest neighbour of one view is the positive of the other."""

from vislang.config import TrainConfig
from vislang.recipes.two_views import two_views


def nnclr() -> TrainConfig:
    """NNCLR ResNet-50, images alone: positives from a queue of neighbours (arXiv:2104.14548).

    Temperature, projector and predictor are the paper's; its queue holds 98,304 rows
    for batches of 4,096, ours 16,384 for 512, as in arXiv:2302.12248.
    """
    return two_views(
        "nnclr",
        "nnclr",
        temperature=0.1,
        queue=16384,
        projector=[2048, 2048, 256],
        predictor=4096,
    )
