"""Small transformer towers of every builder, and options that fit adapters into them."""

from typing import Any

import torch
from torch import Tensor, nn

from towers_cases import BERT, BERTS, CASES, CLIP, Case
from vislang.models.adapters.insert import Adapters, insert_adapters

CUSTOM = CLIP | {"vision_cfg": CLIP["vision_cfg"] | {"qk_norm": True}}
ROBERTA = BERTS | {"config": BERT | {"model_type": "roberta", "pad_token_id": 0}}
TOWERS = {
    name: CASES[name]
    for name in (
        "scratch_vit",
        "scratch_text bytes mean",
        "scratch_text cls",
        "open_clip image",
        "open_clip text",
        "open_clip coca text",
        "timm vit",
        "huggingface mean",
    )
} | {
    "open_clip image, own attention": Case("open_clip", "image", {"config": {"model_cfg": CUSTOM}}),
    "huggingface roberta": Case("huggingface", "text", ROBERTA),
}
# For blocks of 16 features, where the defaults are made for 768.
OPTIONS: dict[str, dict[str, Any]] = {
    "bottleneck": {"reduction": 2},
    "language": {"reduction": 2},
    "compacter": {"reduction": 4},
    "unipelt": {"reduction": 2, "length": 3, "prefix_hidden": 8},
    "prefix_tuning": {"length": 3, "hidden": 8},
    "mam": {"length": 3, "prefix_hidden": 8},
}
UNCHANGED = ("bottleneck", "language", "compacter", "lora", "ia3")  # as their papers promise
MERGE = ("lora", "ia3")


def adapted(tower: nn.Module, method: str, moved: float = 0.0) -> Adapters:
    """Insert small adapters into a tower; `moved` gives them weights that do something."""
    own = insert_adapters(tower, method, OPTIONS.get(method, {}))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in own.parameters() if moved else ():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(moved * noise)
    return own


def features(tower: nn.Module, x: Tensor) -> Tensor:
    """The tower's output in eval mode, without a graph."""
    with torch.no_grad():
        return tower.eval()(x)
