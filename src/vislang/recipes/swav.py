"""SwAV: predict the cluster of one view from another, with small crops."""

from dataclasses import replace

from vislang.config import TrainConfig
from vislang.recipes.two_views import two_views


def swav() -> TrainConfig:
    """SwAV ResNet-50, images alone: swapped cluster assignments, 2 + 6 crops (arXiv:2006.09882).

    Section 4.1 and appendix A of the paper: two crops of 14-100 % at 224 pixels, six of 5-14 % at
    96, 3,000 prototypes that rest for one epoch, temperature 0.1, Sinkhorn with 0.05 and 3 rounds;
    for its small batches a queue of 3,840 from epoch 15 on.
    """
    config = two_views(
        "swav",
        "swav",
        prototypes=3000,
        temperature=0.1,
        epsilon=0.05,
        iterations=3,
        projector=[2048, 128],
        queue=3840,
        queue_start=0.15,
        freeze=0.01,
        crops=6,
    )
    data = replace(
        config.data,
        augment_options={"scale": [0.14, 1.0]},
        crop_augment_options={"scale": [0.05, 0.14]},
        crop_size=96,
    )
    return replace(config, data=data)
