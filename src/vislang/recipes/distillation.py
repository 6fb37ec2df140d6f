"""Distillation: one side, frozen, teaches the other."""

from dataclasses import replace

from vislang.config import ModelConfig, ObjectiveConfig, TowerConfig, TrainConfig
from vislang.recipes.clip import clip


def text_to_image() -> TrainConfig:
    """A frozen sentence tower teaches an image tower; any distilling objective may do it.

    Those are simreg, simreg_l1, simreg_smooth_l1, vicreg, barlow_twins, rkd, seed, compress_1q,
    compress_2q, protocpc and dino, as in `--objective.name seed`. The teacher gives its sentence
    embeddings as they are, computed once; the student ends in a linear head of that width.
    """
    config = clip()
    text = TowerConfig(
        "sentence_transformers",
        pretrained="sentence-transformers/all-mpnet-base-v2",
        head="none",
        frozen=True,
    )
    return replace(
        config,
        recipe="text_to_image",
        model=ModelConfig(image=config.model.image, text=text, width=768),
        objective=ObjectiveConfig("simreg", teacher="text"),
    )


def image_to_text() -> TrainConfig:
    """A frozen image tower of CLIP teaches a text tower; any distilling objective may do it.

    The objectives are those of `text_to_image`. Images are not augmented, so that the teacher's
    embeddings are computed once; the student ends in a linear head of the teacher's width.
    """
    config = clip()
    image = TowerConfig(
        "open_clip", {"name": "ViT-B-32"}, pretrained="laion2b_s34b_b79k", head="none", frozen=True
    )
    return replace(
        config,
        recipe="image_to_text",
        model=ModelConfig(image=image, text=config.model.text, width=512),
        objective=ObjectiveConfig("simreg", teacher="image"),
        data=replace(config.data, augment="none"),
    )
