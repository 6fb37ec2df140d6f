"""Fine-tuning a published CLIP on web pairs, such as domain-pure batches of them."""

from vislang.config import (
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    RunConfig,
    TowerConfig,
    TrainConfig,
)


def finetune() -> TrainConfig:
    """OpenAI's CLIP ViT-B/32 fine-tuned at its own fixed temperature, with early checkpoints.

    For `--data.train pure:pictures/` (batches of one domain each) or any source with captions. The
    published runs used a rate of 5e-4, that of a training from scratch, with fp16 weights; sweep
    it: `vislang sweep finetune --vary optim.lr=1e-5,1e-6,1e-7`.
    """
    side = TowerConfig("open_clip", {"name": "ViT-B-32-quickgelu"}, "openai", "none")
    return TrainConfig(
        recipe="finetune",
        model=ModelConfig(image=side, text=side, width=512),
        objective=ObjectiveConfig("infonce", {"temperature": 0.01, "learn": False}),
        data=DataConfig(batch_size=1024, chunk=64, augment="none", caption="first"),
        optim=OptimConfig(lr=1e-6, warmup=0.1, weight_decay=0.2, clip_grad=0.0, epochs=10.0),
        run=RunConfig(checkpoint_at=("doubling",), keep=1, evaluations=("zeroshot",)),
    )
