"""Selective search, and each region's crop scored against the phrase: the baseline of SLICViT.

Uijlings et al. 2013 in the form of its widely used Python version, oddities included: colour
histograms have 25 bins over [0, 255] of an HSV picture whose H and S lie in [0, 1]; textures are
local binary codes counted over [0, 1]; regions are neighbours when a corner of one lies strictly
inside the other's rectangle.  Regions are summed over arrays at once instead of pixel by pixel.
H, W: pixels, R: regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from vislang.config import to_dict
from vislang.devices import autocast, pick_device, pick_precision
from vislang.localize.protocol import PLAIN, Located, Phrases, checked, nothing, with_options

if TYPE_CHECKING:
    from jaxtyping import Float, Int, UInt8

    from vislang.models.dual import DualEncoder


@dataclass
class _Region:
    box: tuple[int, int, int, int]  # inclusive
    size: int
    colour: np.ndarray
    texture: np.ndarray


def selective_search(
    image: UInt8[np.ndarray, "H W 3"],
    scale: float = 500.0,
    sigma: float = 0.9,
    min_size: int = 50,
) -> tuple[Int[np.ndarray, "R 4"], Int[np.ndarray, " R"]]:
    """Rectangles (inclusive pixel indices) and sizes of all regions: first parts, then merges."""
    from skimage.segmentation import felzenszwalb

    labels = felzenszwalb(
        image.astype(np.float64) / 255, scale=scale, sigma=sigma, min_size=min_size
    )
    regions = _first_regions(image, labels)
    pixels = image.shape[0] * image.shape[1]
    likeness = {
        (a, b): _likeness(regions[a], regions[b], pixels)
        for a in range(len(regions))
        for b in range(a + 1, len(regions))
        if _neighbours(regions[a].box, regions[b].box)
    }
    while likeness:
        # Of equal pairs the one that came last.
        best = max(reversed(likeness), key=likeness.__getitem__)
        regions.append(_merged(regions[best[0]], regions[best[1]]))
        gone = [pair for pair in likeness if best[0] in pair or best[1] in pair]
        for pair in gone:
            del likeness[pair]
        new = len(regions) - 1
        for pair in gone:
            if pair != best:
                other = pair[1] if pair[0] in best else pair[0]
                likeness[new, other] = _likeness(regions[new], regions[other], pixels)
    return np.array([r.box for r in regions]), np.array([r.size for r in regions])


def _first_regions(image: np.ndarray, labels: np.ndarray) -> list[_Region]:
    """The parts of the segmentation in reading order of their first pixel."""
    from skimage.color import rgb2hsv
    from skimage.feature import local_binary_pattern

    values, first, inverse, sizes = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    inverse = inverse.reshape(labels.shape)
    count = len(values)
    hsv = rgb2hsv(image.astype(np.float64))
    codes = np.stack([local_binary_pattern(image[..., c], 8, 1.0) for c in range(3)], -1)
    colour = _histograms(hsv, inverse, count, 25, 255.0) / sizes[:, None]
    texture = _histograms(codes, inverse, count, 10, 1.0) / sizes[:, None]
    rows, columns = np.indices(labels.shape)
    low, high = np.full((2, count), 10**9), np.full((2, count), -1)
    for axis, places in enumerate((columns, rows)):
        np.minimum.at(low[axis], inverse.ravel(), places.ravel())
        np.maximum.at(high[axis], inverse.ravel(), places.ravel())
    return [
        _Region(
            (int(low[0, k]), int(low[1, k]), int(high[0, k]), int(high[1, k])),
            int(sizes[k]), colour[k], texture[k],
        )
        for k in np.argsort(first)
    ]  # fmt: skip


def _histograms(
    channels: Float[np.ndarray, "H W C"],
    region: Int[np.ndarray, "H W"],
    count: int,
    bins: int,
    high: float,
) -> Float[np.ndarray, "R B"]:
    """Counts of each channel's values in [0, high] for each region, channels side by side."""
    out = []
    for c in range(channels.shape[2]):
        values = channels[..., c]
        place = np.minimum((values * bins / high).astype(np.int64), bins - 1)
        inside = (values >= 0) & (values <= high)
        flat = np.bincount((region * bins + place)[inside], minlength=count * bins)
        out.append(flat.reshape(count, bins))
    return np.concatenate(out, 1).astype(np.float64)


def _neighbours(a: Sequence[int], b: Sequence[int]) -> bool:
    """Whether a corner of b lies strictly inside a's rectangle."""
    across = a[0] < b[0] < a[2], a[0] < b[2] < a[2]
    down = a[1] < b[1] < a[3], a[1] < b[3] < a[3]
    return any(across) and any(down)


def _likeness(a: _Region, b: _Region, pixels: int) -> float:
    left, top = min(a.box[0], b.box[0]), min(a.box[1], b.box[1])
    right, bottom = max(a.box[2], b.box[2]), max(a.box[3], b.box[3])
    fill = 1.0 - ((right - left) * (bottom - top) - a.size - b.size) / pixels
    colour = np.minimum(a.colour, b.colour).sum()
    texture = np.minimum(a.texture, b.texture).sum()
    return float(colour + texture + (1.0 - (a.size + b.size) / pixels) + fill)


def _merged(a: _Region, b: _Region) -> _Region:
    size = a.size + b.size
    box = (
        min(a.box[0], b.box[0]), min(a.box[1], b.box[1]),
        max(a.box[2], b.box[2]), max(a.box[3], b.box[3]),
    )  # fmt: skip
    colour = (a.colour * a.size + b.colour * b.size) / size
    return _Region(box, size, colour, (a.texture * a.size + b.texture * b.size) / size)


@dataclass(frozen=True)
class SearchOptions:
    """Options of `selective_search`.

    Args:
        scale, sigma, min_size: of the first segmentation.
        proposals: of all regions, so many of the first are scored.
        corners: edges of pixels, or indices (published).
        shifted: give the tower patches shifted by (patch - 1) // 2, as published.
        boxes: at most so many a phrase.
        templates: prompts with {} whose embeddings are averaged.
        batch: crops in one pass.
        precision: auto, fp32, bf16.
    """

    scale: float = 500.0
    sigma: float = 0.9
    min_size: int = 50
    proposals: int = 100
    corners: str = "edges"
    shifted: bool = False
    boxes: int = 1
    templates: tuple[str, ...] = PLAIN
    batch: int = 32
    precision: str = "fp32"


class Proposals:
    """Localizer that crops each proposal and embeds it as a picture of its own."""

    def __init__(self, model: DualEncoder, **options: Any):
        self.options: SearchOptions = with_options(SearchOptions, options, "localize.options")
        self.name, self.settings = "selective_search", to_dict(self.options)
        self.model = model.eval()
        self.phrases = Phrases(model, self.options.templates)

    def __call__(
        self, images: Sequence[np.ndarray], phrases: Sequence[Sequence[str]]
    ) -> list[list[Located]]:
        """For each picture and each of its phrases, the best proposals."""
        return [
            self._one(picture, spoken) for picture, spoken in zip(checked(images, phrases), phrases)
        ]

    def _one(self, picture: np.ndarray, phrases: Sequence[str]) -> list[Located]:
        if not len(phrases):
            return []
        o = self.options
        if min(picture.shape[:2]) < 3:
            return [nothing("the picture is too thin for selective search") for _ in phrases]
        boxes, _ = selective_search(picture, o.scale, o.sigma, o.min_size)
        boxes = boxes[: o.proposals]
        rows = F.normalize(self.embed(picture, boxes).float(), dim=-1)
        texts, notes = self.phrases(phrases)
        cosine = (rows @ texts.to(rows.device).T).cpu().numpy()
        edges = boxes + (np.array([0, 0, 1, 1]) if o.corners == "edges" else 0)
        out = []
        for column, told in zip(cosine.T, notes):
            order = np.argsort(-column, kind="stable")[: o.boxes]
            out.append(Located(edges[order].astype(np.float32), column[order], None, told))
        return out

    def embed(self, picture: np.ndarray, boxes: np.ndarray) -> torch.Tensor:
        """Embeddings of crops (inclusive boxes), squashed to the tower's size."""
        from PIL import Image

        side = self.model.side("image")
        tower: Any = side.tower
        height, width = tower.preprocess.size
        device = next(side.parameters()).device
        crops = [
            np.asarray(
                Image.fromarray(picture[y1 : y2 + 1, x1 : x2 + 1]).resize(
                    (width, height), Image.Resampling.BICUBIC
                )
            )
            for x1, y1, x2, y2 in boxes
        ]
        rows = []
        with torch.no_grad(), autocast(device, pick_precision(self.options.precision, device)):
            for at in range(0, len(crops), self.options.batch):
                stack = torch.from_numpy(np.stack(crops[at : at + self.options.batch]))
                rows.append(self._embed(side, stack.permute(0, 3, 1, 2).to(device)))
        return torch.cat(rows)

    def _embed(self, side: Any, images: torch.Tensor) -> torch.Tensor:
        if not self.options.shifted:
            return side(images)
        from vislang.localize.vit import open_vit

        vit = open_vit(side, "Shifted patches")
        x, _ = vit.tokens(images, 1, padded=True, half=True)
        for block in vit.blocks:
            x = block.finish(x + block.attend(block.qkv(x)))
        return vit.project(x[:, 0])


def build(spec: Any, device: str = "auto", **options: Any) -> Proposals:
    """Crops of selective search scored one by one (baseline)."""
    from vislang.models.pretrained import load_model

    model = load_model(spec, pick_device(device)) if isinstance(spec, str) else spec
    return Proposals(model, **options)
