"""SimCLR: find the other view of an image among all views of the batch."""

from vislang.config import TrainConfig
from vislang.recipes.two_views import two_views


def simclr() -> TrainConfig:
    """SimCLR ResNet-50, images alone: each view finds its other view (arXiv:2002.05709).

    The paper's temperature of 0.1; the projector has the three layers of the comparison in
    arXiv:2302.12248.
    """
    return two_views("simclr", "ntxent", temperature=0.1, projector=[2048, 2048, 128])
