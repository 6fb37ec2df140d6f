"""DINO: a vision transformer that teaches itself."""

from dataclasses import replace

from vislang.config import OptimConfig, TowerConfig, TrainConfig
from vislang.recipes.two_views import two_views


def dino() -> TrainConfig:
    """DINO ViT-S/16, images alone: self-distillation with 2 + 8 crops (arXiv:2104.14294).

    The paper's section 3.2 and code: batch 1,024 at 2e-3 after 10 of 100 epochs of warm-up,
    teacher temperature from 0.04 to 0.07 over 30 epochs, momentum from 0.996 to 1, prototypes
    resting for one epoch, gradients cut at norm 3. Its weight decay rises from 0.04 to 0.4; ours
    stays at 0.04. The transformer is CLIP's, which has one norm more, before the blocks.
    """
    config = two_views(
        "dino",
        "dino",
        teacher="momentum",
        prototypes=65536,
        layers=3,
        hidden=2048,
        bottleneck=256,
        temperature=0.1,
        first_teacher_temperature=0.04,
        teacher_temperature=0.07,
        warmup=0.3,
        center_momentum=0.9,
        momentum=0.996,
        freeze=0.01,
        crops=8,
    )
    image = TowerConfig(
        "scratch_vit", {"image_size": 224, "patch": 16, "width": 384, "heads": 6}, head="none"
    )
    data = replace(
        config.data,
        batch_size=1024,
        augment_options={"scale": [0.4, 1.0]},
        crop_augment_options={"scale": [0.05, 0.4]},
        crop_size=96,
    )
    optim = OptimConfig(
        lr=2e-3,
        min_lr=1e-6,
        warmup=0.1,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.04,
        clip_grad=3.0,
        epochs=100.0,
    )
    return replace(config, model=replace(config.model, image=image), data=data, optim=optim)
