"""Boxes that may hold something: of torchvision's region proposal network, or on a fixed grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vislang.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float


def propose(
    boxes: Sequence[Float[Tensor, "n 4"]],
    logits: Sequence[Float[Tensor, " n"]],
    size: tuple[int, int],
    *,
    overlap: float = 0.9,
    before: int = 1000,
    after: int = 1000,
) -> tuple[Tensor, Tensor]:
    """The best proposals of all levels of a region proposal network, by logit.

    Each level's best `before`, clipped, empty ones dropped, suppressed within the level; then the
    best `after` overall.
    """
    from torchvision.ops import batched_nms, clip_boxes_to_image

    some, levels, strength = [], [], []
    for level, (box, logit) in enumerate(zip(boxes, logits)):
        top = logit.topk(min(before, len(logit)))
        some.append(clip_boxes_to_image(box[top.indices], size))
        strength.append(top.values)
        levels.append(torch.full((len(top.values),), level))
    all_boxes, all_logits = torch.cat(some), torch.cat(strength)
    filled = ((all_boxes[:, 2:] - all_boxes[:, :2]) > 0).all(1) & all_logits.isfinite()
    all_boxes, all_logits = all_boxes[filled], all_logits[filled]
    kept = batched_nms(
        all_boxes, all_logits, torch.cat(levels).to(all_boxes.device)[filled], overlap
    )[:after]
    return all_boxes[kept], all_logits[kept]


def grid_boxes(size: tuple[int, int], sides: Sequence[int] = (64, 128, 256, 512)) -> Tensor:
    """Boxes of several sizes and shapes all over a picture: proposals without any network."""
    found = [[0.0, 0.0, float(size[1]), float(size[0])]]
    for side in sides:
        for ratio in (0.5, 1.0, 2.0):
            h, w = side * ratio**0.5, side / ratio**0.5
            if h > size[0] or w > size[1]:
                continue
            for y in np.arange(0, size[0] - h + 1, h / 2):
                found += [[x, y, x + w, y + h] for x in np.arange(0, size[1] - w + 1, w / 2)]
    return torch.tensor(found, dtype=torch.float32)


def torchvision_rpn(weights: str, size: int = 800) -> Callable[[np.ndarray], tuple[Tensor, Tensor]]:
    """Proposals and logits by the RPN of a Faster R-CNN of torchvision.

    Args:
        weights: its state dict as .safetensors: fasterrcnn_resnet50_fpn, or
            fasterrcnn_mobilenet_v3_large_fpn, told apart by their names; heads are not needed.
        size: of the shorter side inside the network.
    """
    from safetensors.torch import load_file
    from torchvision.models import detection

    try:
        state = load_file(weights)
    except Exception as error:  # safetensors raises several
        raise UserError(f"{weights} is no .safetensors that can be read: {error}.") from error
    wide = any(name.startswith("backbone.body.layer1.") for name in state)
    build = (
        detection.fasterrcnn_resnet50_fpn
        if wide
        else detection.fasterrcnn_mobilenet_v3_large_fpn
    )  # fmt: skip
    net: Any = build(weights=None, weights_backbone=None, min_size=size, max_size=1333).eval()
    missing, strange = net.load_state_dict(
        {name: value for name, value in state.items() if not name.startswith("roi_heads.")}, False
    )
    missing = [name for name in missing if not name.startswith("roi_heads.")]
    if missing or strange:
        raise UserError(
            f"{weights} is not the state dict of torchvision's {build.__name__}:"
            f" {len(missing)} tensors are missing, {len(strange)} are strange, the first is"
            f" {[*missing, *strange][0]}."
        )

    def run(picture: np.ndarray) -> tuple[Tensor, Tensor]:
        image = torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255
        with torch.no_grad():
            small, _ = net.transform([image])
            maps = list(net.backbone(small.tensors).values())
            logits, deltas = net.rpn.head(maps)
            anchors = net.rpn.anchor_generator(small, maps)
            counts = [o[0].numel() for o in logits]
            flat = [o.permute(0, 2, 3, 1).reshape(-1) for o in logits]
            turned = [
                d.view(1, -1, 4, *d.shape[2:]).permute(0, 3, 4, 1, 2).reshape(-1, 4) for d in deltas
            ]
            boxes = net.rpn.box_coder.decode(torch.cat(turned), anchors)[:, 0]
            found, strength = propose(boxes.split(counts), flat, small.image_sizes[0])
        height, width = small.image_sizes[0]
        scale = [picture.shape[1] / width, picture.shape[0] / height] * 2
        return found * torch.tensor(scale), strength

    return run
