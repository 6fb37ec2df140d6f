"""Heat-maps in one forward pass: the last block's attention is replaced, nothing is trained.

The class token's embedding is what CLIP compares with texts; its patches' outputs mix everything
with everything.  These methods let each patch of the *last* block see itself or what is like it:

    maskclip   each token sees itself alone                       Zhou et al. 2022, arXiv:2112.01071
    sclip      softmax(q qᵀ) + softmax(k kᵀ)                      Wang et al. 2023, arXiv:2312.01597
    naclip     softmax(k kᵀ + Gaussian of the distance), without
               the last block's residual and MLP              Hajimiri et al. 2024, arXiv:2404.08181

The three papers also choose prompts and sizes; those are options here.
B: images, L: tokens, h, w: tokens down and across, D: width, P: phrases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vislang.config import to_dict
from vislang.devices import autocast, pick_device, pick_precision
from vislang.errors import UserError
from vislang.localize.protocol import (
    PLAIN,
    Located,
    Phrases,
    batches,
    checked,
    stretched,
    with_options,
)
from vislang.localize.search import boxes_of
from vislang.localize.vit import Vit, open_vit

if TYPE_CHECKING:
    from vislang.models.dual import DualEncoder

METHODS = ("maskclip", "sclip", "naclip")


@dataclass(frozen=True)
class DenseOptions:
    """Options of `maskclip`, `sclip` and `naclip`.

    Args:
        alpha: price of a box's area.
        temperature: of exp(cosine / temperature).
        gaussian: standard deviation of naclip's neighbourhood, in tokens.
        against: phrases that stand for what is not meant; the heat is then the softmax over them
            and the phrase, the map of an open-vocabulary segmentation.
        upsample: tokens per patch and axis (overlapping patches).
        size: pixels of the longer side; 0 takes the tower's.
        aspect: squash, or keep.
        search: exact or coarse_to_fine.
        boxes: at most so many a phrase.
        least: share of the best box's objective that a further one must reach.
        templates: prompts with {} whose embeddings are averaged.
        batch: pictures in one pass.
        precision: auto, fp32, bf16.
        heat: give heat-maps, too.
    """

    alpha: float = 0.75
    temperature: float = 0.02
    gaussian: float = 5.0
    against: tuple[str, ...] = ()
    upsample: int = 1
    size: int = 0
    aspect: str = "squash"
    search: str = "exact"
    boxes: int = 1
    least: float = 0.3
    templates: tuple[str, ...] = PLAIN
    batch: int = 8
    precision: str = "fp32"
    heat: bool = True


def dense_features(
    vit: Vit, images: Tensor, method: str, upsample: int = 1, gaussian: float = 5.0
) -> Tensor:
    """A row in the joint space for each token: uint8 [B, 3, H, W] -> [B, h, w, D]."""
    x, grid = vit.tokens(images, upsample)
    for block in vit.blocks[:-1]:
        x = block.finish(x + block.attend(block.qkv(x)))
    last = vit.blocks[-1]
    q, k, v = last.split(last.qkv(x))
    if method == "maskclip":
        seen = v
    elif method == "sclip":
        seen = _likeness(q).softmax(-1) @ v + _likeness(k).softmax(-1) @ v
    elif method == "naclip":
        near = torch.zeros(x.shape[1], x.shape[1], device=x.device)
        near[1:, 1:] = neighbourhood(grid, gaussian).to(x.device)
        seen = (_likeness(k) + near.to(k.dtype)).softmax(-1) @ v
    else:
        raise UserError(f"A dense method is one of {', '.join(METHODS)}, got {method!r}.")
    out = last.joined(seen)
    if method != "naclip":
        out = last.finish(x + out)
    return vit.project(out[:, 1:]).unflatten(1, grid)


def _likeness(x: Tensor) -> Tensor:
    """Scaled products of all tokens with all: [B, heads, L, d] -> [B, heads, L, L]."""
    return x @ x.transpose(-2, -1) * x.shape[-1] ** -0.5


def neighbourhood(grid: tuple[int, int], sigma: float) -> Tensor:
    """exp(-distance² / 2 sigma²) of every token from every other: [h·w, h·w]."""
    rows, columns = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], 1).float()
    squares = (places[:, None] - places[None]).square().sum(-1)
    return torch.exp(-squares / (2 * sigma**2))


class Dense:
    """Localizer that reads one heat-map per phrase off the patches."""

    def __init__(self, model: DualEncoder, method: str, **options: Any):
        if method not in METHODS:
            raise UserError(f"A dense method is one of {', '.join(METHODS)}, got {method!r}.")
        self.options: DenseOptions = with_options(DenseOptions, options, "localize.options")
        if self.options.temperature <= 0 or self.options.gaussian <= 0:
            raise UserError("temperature and gaussian must be above 0.")
        if self.options.aspect not in ("squash", "keep"):
            raise UserError(f"aspect must be squash or keep, got {self.options.aspect!r}.")
        self.name, self.settings = method, to_dict(self.options)
        self.model = model.eval()
        self.vit = open_vit(model.side("image"), method)
        self.phrases = Phrases(model, self.options.templates)

    def __call__(
        self, images: Sequence[np.ndarray], phrases: Sequence[Sequence[str]]
    ) -> list[list[Located]]:
        """For each picture and each of its phrases, where that is."""
        pictures = checked(images, phrases)
        out: list[list[Located]] = []
        for rows in batches(len(pictures), self.options.batch):
            features = self.features([pictures[i] for i in rows])
            for i, feature in zip(rows, features):
                out.append(self._locate(pictures[i], phrases[i], feature))
        return out

    def features(self, pictures: Sequence[np.ndarray]) -> list[Tensor]:
        """Rows of length 1 for each token of each picture: [h, w, D]."""
        o = self.options
        small = [resized(picture, self.vit, o.size, o.aspect) for picture in pictures]
        device = self.vit.class_embedding.device
        out: list[Any] = [None] * len(small)
        for shape in dict.fromkeys(s.shape for s in small):
            alike = [i for i, s in enumerate(small) if s.shape == shape]
            stack = torch.from_numpy(np.stack([small[i] for i in alike])).permute(0, 3, 1, 2)
            with torch.no_grad(), autocast(device, pick_precision(o.precision, device)):
                found = dense_features(
                    self.vit, stack.to(device), self.name, o.upsample, o.gaussian
                )
            for i, feature in zip(alike, F.normalize(found.float(), dim=-1)):
                out[i] = feature
        return out

    def _locate(
        self, picture: np.ndarray, phrases: Sequence[str], feature: Tensor
    ) -> list[Located]:
        if not len(phrases):
            return []
        o = self.options
        texts, notes = self.phrases(phrases)
        cosine = (feature @ texts.to(feature.device).T).permute(2, 0, 1)
        if o.against:
            others = feature @ self.phrases(o.against)[0].to(feature.device).T
            rest = torch.logsumexp(others / o.temperature, -1)
            maps = torch.sigmoid(cosine / o.temperature - rest)
        else:
            top = cosine.flatten(1).max(1).values[:, None, None]
            maps = torch.exp((cosine - top) / o.temperature)
        # At 8 times the grid boxes may end between tokens, and the search stays quick.
        size = tuple(min(224, 8 * n) if n < 224 else n for n in maps.shape[1:])
        maps = F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]
        low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        heats = ((maps - low) / (high - low + 1e-8)).cpu().numpy()
        return [
            located(heat, picture.shape[:2], o.alpha, o.boxes, o.search, o.least, told, o.heat)
            for heat, told in zip(heats, notes)
        ]


def located(
    heat: np.ndarray,
    size: Sequence[int],
    alpha: float,
    most: int,
    search: str,
    least: float,
    notes: tuple[str, ...],
    with_heat: bool = True,
) -> Located:
    """The boxes of a heat-map in a picture of `size` (height, width)."""
    found = boxes_of(heat, alpha, most=most, search=search, least=least)
    shape = (heat.shape[0], heat.shape[1])
    boxes = stretched(np.array([f.box for f in found]), (size[0], size[1]), shape)
    scores = np.array([f.value for f in found], np.float32)
    return Located(boxes, scores, heat if with_heat else None, notes)


def resized(picture: np.ndarray, vit: Vit, size: int, aspect: str) -> np.ndarray:
    """The picture as the tower sees it, by Pillow's bicubic filter; sides multiples of a patch.

    Args:
        picture: uint8 [H, W, 3].
        vit: whose size and patch count.
        size: pixels of the longer side; 0 takes the tower's.
        aspect: squash, or keep: the shorter side in proportion.
    """
    from PIL import Image

    height, width = (size, size) if size else vit.size
    if aspect == "keep":
        longer, own = max(height, width), max(picture.shape[:2])
        height, width = (
            max(2, round(longer * side / own / vit.patch)) * vit.patch for side in picture.shape[:2]
        )
    if picture.shape[:2] == (height, width):
        return np.ascontiguousarray(picture)
    image = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _build(spec: Any, device: str, method: str, options: dict[str, Any]) -> Dense:
    from vislang.models.pretrained import load_model

    model = load_model(spec, pick_device(device)) if isinstance(spec, str) else spec
    return Dense(model, method, **options)


def maskclip(spec: Any, device: str = "auto", **options: Any) -> Dense:
    """Patches that see themselves alone in the last block (MaskCLIP)."""
    return _build(spec, device, "maskclip", options)


def sclip(spec: Any, device: str = "auto", **options: Any) -> Dense:
    """Patches that see what has like queries and keys (SCLIP)."""
    return _build(spec, device, "sclip", options)


def naclip(spec: Any, device: str = "auto", **options: Any) -> Dense:
    """Patches that see like keys near by (NACLIP)."""
    return _build(spec, device, "naclip", options)
