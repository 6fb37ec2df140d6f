"""DeCLIP: each text's nearest neighbour is right, too."""

from dataclasses import replace

from vislang.config import ObjectiveConfig, TrainConfig
from vislang.recipes.clip import clip


def declip() -> TrainConfig:
    """CLIP ViT-B/32 with DeCLIP's queue of nearest texts (arXiv:2110.05208).

    Of the paper's supervisions only the neighbours' (section 3.2), with its queue of 65,536 and
    weight 0.2; the rest is `clip`.
    """
    objective = ObjectiveConfig("declip", {"queue": 65536, "weight": 0.2})
    return replace(clip(), recipe="declip", objective=objective)
