"""Language-guided recipes: the second view is another image, whose caption says the same.

They train on `pairs:FOLDER`, which `vislang curate neighbours` makes. Any recipe of two views
becomes its language-guided variant by the same source: --data.train pairs:FOLDER --data.augment
global_crop. El Banani et al. 2023, arXiv:2302.12248.
"""

from dataclasses import replace

from vislang.config import ModelConfig, ObjectiveConfig, RunConfig, TowerConfig, TrainConfig
from vislang.recipes.simclr import simclr
from vislang.recipes.simsiam import simsiam


def guided(config: TrainConfig, recipe: str) -> TrainConfig:
    """A recipe of two views, on pairs: a crop of 50-100 % of each image and nothing else."""
    data = replace(config.data, train="pairs:", augment="global_crop")
    return replace(config, recipe=recipe, data=data)


def lgsimclr() -> TrainConfig:
    """Language-guided SimCLR: images of like captions find each other (arXiv:2302.12248).

    --data.train pairs:FOLDER says which pairs. Heads, temperature, crops and optimizer are those
    of the paper's released code.
    """
    return guided(simclr(), "lgsimclr")


def lgsimsiam() -> TrainConfig:
    """Language-guided SimSiam: predict an image from one of like caption (arXiv:2302.12248)."""
    return guided(simsiam(), "lgsimsiam")


def lgslip() -> TrainConfig:
    """Language-guided SLIP: CLIP, and images of like captions, by one head (arXiv:2302.12248).

    A head of three layers serves both losses; the caption is that of the first image.
    """
    config = guided(simclr(), "lgslip")
    head = {"layers": 3, "hidden": 2048, "activation": "relu", "norm": "bn", "bias": False}
    model = ModelConfig(
        image=replace(config.model.image, head="mlp", head_options=head),
        text=TowerConfig("scratch_text", {"tokenizer": "clip"}),
        width=512,
    )
    options = {"first": "image", "second": "image_2", "projector": [], "ssl_temperature": 0.1}
    run = RunConfig(evaluations=("zeroshot", "retrieval"))
    return replace(config, model=model, objective=ObjectiveConfig("slip", options), run=run)
