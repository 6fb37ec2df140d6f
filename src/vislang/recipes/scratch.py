"""CLIP from nothing: small pictures, short captions, a small card."""

from vislang.config import (
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    RunConfig,
    TowerConfig,
    TrainConfig,
)


def scratch() -> TrainConfig:
    """CLIP from nothing on a small card: ViT-B/16 at 112 pixels, text tower B of 32 tokens.

    The low-resource CLIP's towers, width, rate and decay. Its batch of 128 is 512 here (in chunks
    of 128, so memory is the same): with captions that resemble each other, a small batch holds
    more false negatives than it has others to tell apart. The tokenizer is CLIP's until one's own
    is named: `--model.text.options.tokenizer file:FOLDER/tokenizer.json`.
    """
    return TrainConfig(
        recipe="scratch",
        model=ModelConfig(
            image=TowerConfig("scratch_vit", {"size": "B/16@112"}),
            text=TowerConfig("scratch_text", {"size": "B", "tokenizer": "clip", "context": 32}),
            width=512,
        ),
        objective=ObjectiveConfig("infonce"),
        data=DataConfig(batch_size=512, chunk=128, augment="clip"),
        optim=OptimConfig(lr=5e-4, warmup=0.05, weight_decay=0.2, epochs=10.0),
        run=RunConfig(evaluations=("zeroshot", "retrieval"), evaluate_every="1 epochs"),
    )
