"""The tiny twin of a recipe: the same parts in kind, small enough that a test runs them."""

from dataclasses import replace

from vislang.config import TowerConfig, TrainConfig

IMAGE = {"image_size": 16, "patch": 8, "width": 32, "depth": 1, "heads": 2}
TEXT = {"tokenizer": "bytes", "context": 32, "width": 32, "depth": 1, "heads": 2}


def tiny(config: TrainConfig) -> TrainConfig:
    """The twin of `config`: a few steps on digits, seconds on a CPU.

    Kept are the objective, the heads, what is frozen, augmentation, schedule and evaluations;
    towers, data, batch and length are made small.
    """
    small = {"width": 32, "layers": 2, "hidden": 32}
    model = config.model

    def side(tower: TowerConfig, name: str, options: dict) -> TowerConfig:
        head = {key: small.get(key, value) for key, value in tower.head_options.items()}
        return replace(tower, name=name, options=options, pretrained="", head_options=head)

    return replace(
        config,
        model=replace(
            model,
            image=side(model.image, "scratch_vit", IMAGE),
            text=side(model.text, "scratch_text", TEXT),
            width=32,
        ),
        data=replace(
            config.data,
            train="digits",
            train_options={"split": "train"},
            valid="digits",
            valid_options={"split": "test"},
            batch_size=32,
            chunk=16 if config.data.chunk else 0,
            workers=0,
        ),
        optim=replace(config.optim, steps=4, warmup=1.0),
        run=replace(
            config.run,
            device="cpu",
            precision="fp32",
            threads=1,
            checkpoint_every="2 steps",
            evaluate_every="",
            log_every=1,
            tensorboard=False,
        ),
    )
