"""SimSiam: predict one view from the other, without negatives."""

from dataclasses import replace

from vislang.config import TrainConfig
from vislang.recipes.two_views import two_views


def simsiam() -> TrainConfig:
    """SimSiam ResNet-50, images alone: predict one view from the other (arXiv:2011.10566).

    Projector and predictor of the paper's section 3; residuals start at zero, as in
    arXiv:2302.12248.
    """
    config = two_views("simsiam", "simsiam", projector=[2048, 2048, 2048], predictor=512)
    image = replace(
        config.model.image,
        options={"name": "resnet50", "model_options": {"zero_init_last": True}},
    )
    return replace(config, model=replace(config.model, image=image))
