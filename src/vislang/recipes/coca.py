"""CoCa: match captions with images, and write them."""

from dataclasses import replace

from vislang.config import DecoderConfig, ObjectiveConfig, TowerConfig, TrainConfig
from vislang.recipes.clip import clip


def coca() -> TrainConfig:
    """CoCa of base size from scratch: contrast and captions, weights 1 and 2 (arXiv:2205.01917).

    Towers and decoder of the paper's table 1, its rate of 8e-4, 2 % of warm-up and decay 0.01
    (appendix), with AdamW for its Adafactor. Its batch is 65,536. The decoder is simpler than the
    paper's: see `vislang.models.decoder`. What a trained model writes: `model.generate(images)`,
    then `model.text.tower.tokenizer.decode(ids)`.
    """
    config = clip()
    image = TowerConfig("scratch_vit", {"image_size": 288, "patch": 18})
    text = TowerConfig("scratch_text", {"tokenizer": "clip", "width": 768, "heads": 12})
    decoder = DecoderConfig("transformer", {"width": 768, "depth": 12, "heads": 12})
    return replace(
        config,
        recipe="coca",
        model=replace(config.model, image=image, text=text, decoder=decoder),
        objective=ObjectiveConfig(
            "coca", {"contrastive": 1.0, "captioning": 2.0, "temperature": 0.07}
        ),
        data=replace(config.data, chunk=64),
        optim=replace(config.optim, lr=8e-4, warmup=0.02, betas=(0.9, 0.999), weight_decay=0.01),
    )
