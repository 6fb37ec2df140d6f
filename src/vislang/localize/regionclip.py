"""Regions embedded by a CLIP ResNet, as RegionCLIP does without training on boxes.

Zhong et al. 2022, arXiv:2112.09106: the ResNet up to its third stage, RoIAlign of each proposal,
the fourth stage and CLIP's attention pool on that; softmax(cosine / 0.01) over the classes and an
all-zero background.  Proposals are given, or those of torchvision's RPN.  Scores are fused with
objectness as sqrt(p · sigmoid(o)); the published code takes the raw logit o, which may exceed 1 and
gives NaN (a dropped box) below 0: `fusion="logit"` reproduces that, without NaN leaving here.
B: boxes, C: classes, D: joint width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vislang.config import to_dict
from vislang.devices import pick_device
from vislang.errors import UserError
from vislang.localize.protocol import (
    PLAIN,
    Located,
    Phrases,
    checked,
    nothing,
    with_options,
)
from vislang.localize.region_proposals import grid_boxes, torchvision_rpn
from vislang.localize.resnet import find_resnet

if TYPE_CHECKING:
    from jaxtyping import Float

    from vislang.models.dual import DualEncoder

FUSIONS = ("none", "sigmoid", "logit")


def stem_features(net: Any, images: Float[Tensor, "N 3 H W"]) -> Tensor:
    """The stride-16 map of a CLIP ResNet: normalised images -> [N, C, H / 16, W / 16]."""
    x = net.stem(images)
    for layer in (net.layer1, net.layer2, net.layer3):
        x = layer(x)
    return x


def region_embeddings(
    net: Any, features: Float[Tensor, "N C h w"], boxes: list[Float[Tensor, "B 4"]]
) -> Float[Tensor, "R D"]:
    """Embeddings of the boxes of each image, not normalised, one image after the other.

    Args:
        net: open_clip's ModifiedResNet.
        features: of `stem_features`.
        boxes: for each image, x1 y1 x2 y2 in pixels of the network's input.
    """
    from torchvision.ops import roi_align

    places = net.attnpool.positional_embedding.shape[0] - 1
    side = 2 * round(places**0.5)
    pooled = roi_align(features, boxes, (side, side), 1 / 16, 0, aligned=True)
    return net.attnpool(net.layer4(pooled))


def class_scores(
    rows: Float[Tensor, "B D"], texts: Float[Tensor, "C D"], temperature: float = 0.01
) -> tuple[Float[Tensor, "B C1"], Float[Tensor, "B C1"]]:
    """Logits and probabilities over the classes and, last, the background (logit 0)."""
    logits = F.normalize(rows, dim=-1) @ F.normalize(texts, dim=-1).T / temperature
    logits = torch.cat([logits, logits.new_zeros(len(logits), 1)], 1)
    return logits, logits.softmax(-1)


def fuse(p: Tensor, objectness: Tensor | None, fusion: str) -> Tensor:
    """Class probabilities [B, C] and objectness logits [B] as one score; never NaN."""
    if fusion not in FUSIONS:
        raise UserError(f"fusion must be one of {', '.join(FUSIONS)}, got {fusion!r}.")
    if fusion == "none" or objectness is None:
        return p
    share = objectness.sigmoid() if fusion == "sigmoid" else objectness
    fused = (p * share[:, None].clamp_min(0)).sqrt()
    # The published square root of a negative product drops the row: a score that nothing keeps.
    return torch.where(share[:, None] < 0, torch.full_like(fused, -1.0), fused)


class Selected(NamedTuple):
    """Boxes [K, 4], scores [K], classes [K], and which proposal each was [K]."""

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    proposals: Tensor


def select(
    boxes: Float[Tensor, "B 4"],
    scores: Float[Tensor, "B C"],
    size: tuple[int, int],
    *,
    threshold: float = 0.001,
    overlap: float = 0.5,
    most: int = 100,
) -> Selected:
    """Above the threshold, suppressed within each class, the best `most`.

    Args:
        boxes: proposals; clipped to `size` (height, width) first.
        scores: of each class, the background left out.
        size: height and width.
        threshold: scores must be above it.
        overlap: of suppression, within a class.
        most: boxes that stay at most.
    """
    from torchvision.ops import batched_nms, clip_boxes_to_image

    boxes = clip_boxes_to_image(boxes, size)
    rows, classes = torch.nonzero(scores > threshold, as_tuple=True)
    kept = batched_nms(boxes[rows], scores[rows, classes], classes, overlap)[:most]
    rows, classes = rows[kept], classes[kept]
    return Selected(boxes[rows], scores[rows, classes], classes, rows)


@dataclass(frozen=True)
class RegionOptions:
    """Options of `regionclip`.

    Args:
        proposals: grid (many fixed boxes), or rpn (torchvision's, needs `rpn`).
        rpn: .safetensors of torchvision's fasterrcnn_resnet50_fpn or of the one on MobileNet v3.
        rpn_size: pixels of the shorter side inside the RPN.
        shorter: pixels of the shorter side.
        longest: pixels of the longer side at most.
        fusion: of objectness: sigmoid, none, or logit (published).
        threshold: least score.
        overlap: of suppression within a phrase.
        boxes: at most so many a phrase.
        at_least_one: give the best box where none reaches the threshold.
        batch: regions in one pass of the last stage.
        background: phrases are compared with an all-zero background only, each alone; false makes
            the phrases of a picture compete as classes do.
        templates: prompts with {} whose embeddings are averaged.
    """

    proposals: str = "grid"
    rpn: str = ""
    rpn_size: int = 800
    shorter: int = 800
    longest: int = 1333
    fusion: str = "sigmoid"
    threshold: float = 0.001
    overlap: float = 0.5
    boxes: int = 1
    at_least_one: bool = True
    batch: int = 64
    background: bool = True
    templates: tuple[str, ...] = PLAIN


class RegionClip:
    """Localizer by regions of a CLIP ResNet; proposals may be given with each call."""

    def __init__(self, model: DualEncoder, **options: Any):
        self.options: RegionOptions = with_options(RegionOptions, options, "localize.options")
        o = self.options
        if o.proposals not in ("grid", "rpn") or (o.proposals == "rpn" and not o.rpn):
            raise UserError(
                "proposals must be grid, or rpn together with the option rpn: a .safetensors of"
                f" torchvision's fasterrcnn_resnet50_fpn; got {o.proposals!r}."
            )
        if o.fusion not in FUSIONS:
            raise UserError(f"fusion must be one of {', '.join(FUSIONS)}, got {o.fusion!r}.")
        self.name, self.settings = "regionclip", to_dict(o)
        self.model = model.eval()
        self.net = find_resnet(model, "The localizer regionclip")
        self.phrases = Phrases(model, o.templates)
        self._rpn = torchvision_rpn(o.rpn, o.rpn_size) if o.proposals == "rpn" else None

    def __call__(
        self,
        images: Sequence[np.ndarray],
        phrases: Sequence[Sequence[str]],
        boxes: Sequence[np.ndarray] | None = None,
    ) -> list[list[Located]]:
        """For each picture and each of its phrases the best proposals.

        `boxes` [B, 4] of each picture take the place of the proposals (ground-truth boxes).
        """
        pictures = checked(images, phrases)
        given: Sequence[Any] = boxes if boxes is not None else [None] * len(pictures)
        return [self._one(*each) for each in zip(pictures, phrases, given)]

    def _one(self, picture: np.ndarray, phrases: Sequence[str], given: Any) -> list[Located]:
        from PIL import Image

        if not len(phrases):
            return []
        o, tower = self.options, self.model.side("image").tower
        height, width = picture.shape[:2]
        scale = min(o.shorter / min(height, width), o.longest / max(height, width))
        size = max(32, round(height * scale)), max(32, round(width * scale))
        small = np.asarray(
            Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BILINEAR)
        )
        factor = torch.tensor([size[1] / width, size[0] / height] * 2)
        objectness = None
        if given is not None:
            proposals = torch.from_numpy(np.asarray(given, np.float32).reshape(-1, 4)) * factor
        elif self._rpn is not None:
            proposals, objectness = self._rpn(picture)
            proposals = proposals * factor
        else:
            proposals = grid_boxes(size)
        if not len(proposals):
            return [nothing("there is no proposal") for _ in phrases]
        texts, notes = self.phrases(phrases)
        device = next(self.net.parameters()).device
        with torch.no_grad():
            image = torch.from_numpy(small.copy()).permute(2, 0, 1)[None].to(device)
            features = stem_features(self.net, tower.pixels(image))  # type: ignore[operator]
            rows = torch.cat([
                region_embeddings(self.net, features, [some.to(device)]).float().cpu()
                for some in proposals.split(o.batch)
            ])  # fmt: skip
        out = []
        for k, told in enumerate(notes):
            chosen = texts[k : k + 1].cpu() if o.background else texts.cpu()
            p = class_scores(rows, chosen)[1][:, 0 if o.background else k][:, None]
            fused = fuse(p, objectness, o.fusion)
            found = select(
                proposals, fused, size, threshold=o.threshold, overlap=o.overlap, most=o.boxes
            )
            if not len(found.boxes) and o.at_least_one:
                found = select(proposals, fused, size, threshold=-2.0, most=1)
                found = found._replace(scores=found.scores.clamp_min(0))
            out.append(Located((found.boxes / factor).numpy(), found.scores.numpy(), None, told))
        return out


def build(spec: Any, device: str = "auto", **options: Any) -> RegionClip:
    """Proposals embedded by a CLIP ResNet (RegionCLIP's zero-shot inference)."""
    from vislang.models.pretrained import load_model

    model = load_model(spec, pick_device(device)) if isinstance(spec, str) else spec
    return RegionClip(model, **options)
