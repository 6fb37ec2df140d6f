"""CLIP's ResNets without their attention pool: a row in the joint space for each pixel.

Li et al. 2022 (arXiv:2204.03647) and, before, MaskCLIP: the pool's value and output layers are
applied to each place alone.  `dilated` also replaces every stride by dilation, so that the map has
the picture's own resolution.  "As intended" is: the network that the user names.  The published
code loaded RN50 whenever RN50x4 was asked for; to see that, name RN50.
B: images, H, W: pixels, D: joint width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislang.config import to_dict
from vislang.devices import autocast, pick_device, pick_precision
from vislang.errors import UserError
from vislang.localize.dense import located
from vislang.localize.protocol import PLAIN, Located, Phrases, batches, checked, with_options

if TYPE_CHECKING:
    from vislang.models.dual import DualEncoder

MARGIN = 64


@dataclass(frozen=True)
class ResnetOptions:
    """Options of `resnet`.

    Args:
        dilated: dilate instead of striding; without, the usual coarse map, enlarged.
        alpha: price of a box's area.
        temperature: of exp(cosine / temperature).
        stretch: bring heat-maps to [0, 1] as those of the transformers are (published: false).
        size: pixels a side of the picture, without the margin of 64.
        search: exact, or coarse_to_fine (published).
        corners: edges of pixels, or indices (published).
        boxes: at most so many a phrase.
        least: share of the best box's objective that a further one must reach.
        templates: prompts with {} whose embeddings are averaged.
        batch: pictures in one pass.
        precision: auto, fp32, bf16.
        heat: give heat-maps, too.
    """

    dilated: bool = True
    alpha: float = 0.7
    temperature: float = 0.03
    stretch: bool = True
    size: int = 224
    search: str = "exact"
    corners: str = "edges"
    boxes: int = 1
    least: float = 0.3
    templates: tuple[str, ...] = PLAIN
    batch: int = 1
    precision: str = "fp32"
    heat: bool = True


def find_resnet(model: DualEncoder, what: str) -> Any:
    """open_clip's ModifiedResNet inside an image side, or a UserError."""
    inner: Any = getattr(model.side("image").tower, "model", None)
    if inner is None or not hasattr(inner, "attnpool") or not hasattr(inner, "layer4"):
        raise UserError(
            f"{what} needs a ResNet of CLIP (open_clip:RN50/openai and its kin), not"
            f" {type(inner or model.side('image').tower).__name__}."
        )
    return inner


def dilated_features(net: Any, x: Tensor) -> Tensor:
    """The last feature map at the input's resolution: [B, 3, H, W] -> [B, C, H - 30, W - 30]."""
    x = F.relu(net.bn1(F.conv2d(x, net.conv1.weight, None, 1, 1)))
    x = F.relu(net.bn2(F.conv2d(x, net.conv2.weight, None, 1, 2, 2)))
    x = F.relu(net.bn3(F.conv2d(x, net.conv3.weight, None, 1, 2, 2)))
    x, rate = _box_filter(x, 2), 4
    for place, layer in enumerate((net.layer1, net.layer2, net.layer3, net.layer4)):
        for number, block in enumerate(layer):
            strided = place > 0 and number == 0
            x = _bottleneck(block, x, rate, strided)
            if strided:
                rate *= 2
    return x


def _box_filter(x: Tensor, rate: int) -> Tensor:
    """Mean of four pixels `rate` apart: what 2 x 2 pooling is to a dilated map."""
    return (
        x[..., :-rate, :-rate]
        + x[..., rate:, :-rate]
        + x[..., :-rate, rate:]
        + x[..., rate:, rate:]
    ) / 4


def _bottleneck(block: Any, x: Tensor, rate: int, strided: bool) -> Tensor:
    out = F.relu(block.bn1(block.conv1(x)))
    out = F.relu(block.bn2(F.conv2d(out, block.conv2.weight, None, 1, rate, rate)))
    out = block.bn3(block.conv3(_box_filter(out, rate) if strided else out))
    if block.downsample is not None:
        short = _box_filter(x, rate) if strided else x
        for layer in block.downsample:
            if not isinstance(layer, nn.AvgPool2d):
                short = layer(short)
        x = short
    return F.relu(out + x)


def pixel_features(net: Any, images: Tensor, dilated: bool) -> tuple[Tensor, tuple[int, int]]:
    """Rows in the joint space for each pixel, not normalised, and the size of the raw map.

    Args:
        net: open_clip's ModifiedResNet.
        images: normalised [B, 3, H, W].
        dilated: see `dilated_features`.

    Returns:
        [B, D, H, W], and (height, width) of the features of the picture with its margin.
    """
    height, width = images.shape[2:]
    x = F.pad(images, (MARGIN,) * 4)
    if dilated:
        x = dilated_features(net, x)
        full = (x.shape[2], x.shape[3])
        top, left = (full[0] - height) // 2, (full[1] - width) // 2
        x = x[:, :, top : top + height, left : left + width]
    else:
        x = net.stem(x)
        for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
            x = layer(x)
        full = (x.shape[2], x.shape[3])
        rows, columns = height // 32, width // 32
        top, left = (full[0] - rows) // 2, (full[1] - columns) // 2
        x = x[:, :, top : top + rows, left : left + columns]
    pool = net.attnpool
    x = x.permute(0, 2, 3, 1)
    x = F.linear(x, pool.v_proj.weight, pool.v_proj.bias)
    x = F.linear(x, pool.c_proj.weight, pool.c_proj.bias).permute(0, 3, 1, 2)
    if not dilated:
        x = F.interpolate(x.float(), (height, width), mode="bilinear", align_corners=False)
    return x, full


class Resnet:
    """Localizer on the ResNets of CLIP."""

    def __init__(self, model: DualEncoder, **options: Any):
        self.options: ResnetOptions = with_options(ResnetOptions, options, "localize.options")
        o = self.options
        if o.size < 32 or o.size % 32 or o.temperature <= 0:
            raise UserError(
                f"size must be a multiple of 32 and temperature above 0, got {o.size}"
                f" and {o.temperature}."
            )
        self.name, self.settings = "resnet", to_dict(o)
        self.model = model.eval()
        self.net = find_resnet(model, "The localizer resnet")
        self.phrases = Phrases(model, o.templates)

    def __call__(
        self, images: Sequence[np.ndarray], phrases: Sequence[Sequence[str]]
    ) -> list[list[Located]]:
        """For each picture and each of its phrases, where that is."""
        pictures = checked(images, phrases)
        out: list[list[Located]] = []
        for rows in batches(len(pictures), self.options.batch):
            features, _ = self.features([pictures[i] for i in rows])
            for i, feature in zip(rows, features):
                out.append(self._locate(pictures[i], phrases[i], feature))
        return out

    def features(self, pictures: Sequence[np.ndarray]) -> tuple[Tensor, tuple[int, int]]:
        """What `pixel_features` says of pictures [H, W, 3]."""
        from PIL import Image

        o, tower = self.options, self.model.side("image").tower
        small = [
            np.asarray(Image.fromarray(p).resize((o.size, o.size), Image.Resampling.BICUBIC))
            for p in pictures
        ]
        device = self.net.conv1.weight.device
        stack = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).to(device)
        with torch.no_grad(), autocast(device, pick_precision(o.precision, device)):
            return pixel_features(self.net, tower.pixels(stack), o.dilated)  # type: ignore[operator]

    def _locate(
        self, picture: np.ndarray, phrases: Sequence[str], feature: Tensor
    ) -> list[Located]:
        o, out = self.options, []
        rows = F.normalize(feature.float(), dim=0)
        texts, notes = self.phrases(phrases) if len(phrases) else (torch.zeros(0), [])
        for text, told in zip(texts, notes):
            cosine = torch.einsum("dhw,d->hw", rows, text.to(rows.device))
            if o.stretch:
                heat = torch.exp((cosine - cosine.max()) / o.temperature)
                heat = (heat - heat.min()) / (heat.max() - heat.min() + 1e-8)
            else:
                heat = torch.exp(cosine / o.temperature)
            found = located(
                heat.cpu().numpy(),
                picture.shape[:2],
                o.alpha,
                o.boxes,
                o.search,
                o.least,
                told,
                o.heat,
            )
            if o.corners == "indices":
                step = np.array([picture.shape[1] / o.size, picture.shape[0] / o.size], np.float32)
                found.boxes[:, 2:] -= step
            out.append(found)
        return out


def build(spec: Any, device: str = "auto", **options: Any) -> Resnet:
    """CLIP's ResNets, dilated or not, with a row for each pixel."""
    from vislang.models.pretrained import load_model

    model = load_model(spec, pick_device(device)) if isinstance(spec, str) else spec
    return Resnet(model, **options)
