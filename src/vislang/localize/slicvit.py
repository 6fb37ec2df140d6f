"""SLICViT: superpixels at many scales, each scored against the phrase, and the best box.

Li, Shakhnarovich, Yeh 2022, "Adapting CLIP for phrase localization without further training",
arXiv:2204.03647.  `PUBLISHED` are its published configurations, number for number; the defaults
here differ where that is better: exact box search, edges of pixels, tokens by area.
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
from vislang.errors import UserError
from vislang.localize.dense import resized
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
from vislang.localize.segments import Pairs, embed_segments, pair_up
from vislang.localize.superpixels import LEVELS, Superpixels
from vislang.localize.vit import open_vit

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from vislang.models.dual import DualEncoder

AGGREGATIONS = ("mean", "median", "max", "min", "negative_min")
_THEIRS = {
    "search": "coarse_to_fine", "corners": "indices", "membership": "sampled", "half": True
}  # fmt: skip


def _configuration(alpha: float, temperature: float, last: int = 600) -> dict[str, Any]:
    levels = tuple(range(100, last + 1, 50))
    return {"alpha": alpha, "temperature": temperature, "levels": levels} | _THEIRS


PUBLISHED: dict[str, dict[str, Any]] = {
    "vit14/flickr": _configuration(0.75, 0.02),
    "vit14/vg": _configuration(0.80, 0.01),
    "vit16/flickr": _configuration(0.80, 0.01),
    "vit16/vg": _configuration(0.85, 0.01),
    "vit32/flickr": _configuration(0.90, 0.009, 400),
    "vit32/vg": _configuration(0.90, 0.008, 400),
}


@dataclass(frozen=True)
class SlicVitOptions:
    """Options of `slicvit`.

    Args:
        published: published configuration whose values are the defaults of all others:
            vit14/flickr,
            vit14/vg, vit16/flickr, vit16/vg, vit32/flickr, vit32/vg.
        alpha: price of a box's area.
        levels: numbers of superpixels; one that occurs twice counts twice.
        temperature: of exp(cosine / temperature).
        aggregation: over levels: mean, median, max, min, or negative_min (the published "min").
        upsample: tokens per patch and axis.
        start_block: block in which segments start.
        compactness, sigma: of the superpixels.
        membership: of tokens: area, or sampled (published).
        search: exact, or coarse_to_fine (published).
        corners: edges of pixels, or indices (published: the last pixel's far edge is left out).
        half: round position embeddings to float16 (published).
        size: pixels of the longer side; 0 takes the tower's.
        aspect: squash (published) or keep: the shorter side in proportion, a multiple of the patch.
        boxes: at most so many a phrase.
        least: share of the best box's objective that a further one must reach.
        templates: prompts with {} whose embeddings are averaged.
        batch: pictures in one pass.
        workers: processes for superpixels.
        precision: auto, fp32, bf16.
        heat: give heat-maps, too.
    """

    published: str = ""
    alpha: float = 0.75
    levels: tuple[int, ...] = LEVELS
    temperature: float = 0.02
    aggregation: str = "mean"
    upsample: int = 2
    start_block: int = 0
    compactness: float = 50.0
    sigma: float = 0.0
    membership: str = "area"
    search: str = "exact"
    corners: str = "edges"
    half: bool = False
    size: int = 0
    aspect: str = "squash"
    boxes: int = 1
    least: float = 0.3
    templates: tuple[str, ...] = PLAIN
    batch: int = 4
    workers: int = 0
    precision: str = "fp32"
    heat: bool = True


class SlicVit:
    """Localizer on any vision transformer of open_clip, or scratch_vit, without training."""

    def __init__(self, model: DualEncoder, **options: Any):
        published = options.get("published", "")
        if published and published not in PUBLISHED:
            raise UserError(f"published must be one of {', '.join(PUBLISHED)}, got {published!r}.")
        given = (PUBLISHED[published] if published else {}) | options
        self.options: SlicVitOptions = with_options(SlicVitOptions, given, "localize.options")
        _check(self.options)
        self.name, self.settings = "slicvit", to_dict(self.options)
        self.model = model.eval()
        self.vit = open_vit(model.side("image"), "SLICViT")
        if self.vit.pool != "cls":
            raise UserError(
                "SLICViT starts segments as the class token, which this tower does not pool"
                f" ({self.vit.pool}). Choose maskclip, sclip or naclip."
            )
        self.phrases = Phrases(model, self.options.templates)
        o = self.options
        self.superpixels = Superpixels(o.levels, o.compactness, o.sigma, o.workers)

    def __call__(
        self, images: Sequence[np.ndarray], phrases: Sequence[Sequence[str]]
    ) -> list[list[Located]]:
        """For each picture and each of its phrases, where that is."""
        pictures = checked(images, phrases)
        out: list[list[Located]] = []
        for rows in batches(len(pictures), self.options.batch):
            made = self.embed([pictures[i] for i in rows])
            for i, (maps, pairs, rows_of) in zip(rows, made):
                out.append(self._locate(pictures[i], phrases[i], maps, pairs, rows_of))
        return out

    def embed(self, pictures: Sequence[np.ndarray]) -> list[tuple[np.ndarray, Pairs, torch.Tensor]]:
        """Label maps, pairs and embeddings (not normalised) of the distinct segments."""
        o = self.options
        small = [self._resized(picture) for picture in pictures]
        maps = self.superpixels(small)
        grids = [
            (s.shape[0] // self.vit.patch * o.upsample, s.shape[1] // self.vit.patch * o.upsample)
            for s in small
        ]
        pairs = [pair_up(m, grid, o.membership) for m, grid in zip(maps, grids)]
        rows: list[Any] = [None] * len(small)
        device = self.vit.class_embedding.device
        precision = pick_precision(o.precision, device)
        for shape in dict.fromkeys(s.shape for s in small):
            alike = [i for i, s in enumerate(small) if s.shape == shape]
            stack = torch.from_numpy(np.stack([small[i] for i in alike])).permute(0, 3, 1, 2)
            with torch.no_grad(), autocast(device, precision):
                found = embed_segments(
                    self.vit, stack.to(device), [pairs[i] for i in alike],
                    upsample=o.upsample, start_block=o.start_block, half=o.half,
                )  # fmt: skip
            for i, embedding in zip(alike, found):
                rows[i] = embedding.float()
        return list(zip(maps, pairs, rows))

    def scores(self, rows: torch.Tensor, phrases: Sequence[str]) -> tuple[np.ndarray, list]:
        """Cosines [S, P] of distinct segments with phrases, and the phrases' notes."""
        texts, notes = self.phrases(phrases)
        return (F.normalize(rows, dim=-1) @ texts.to(rows.device).T).cpu().numpy(), notes

    def segments(self, picture: np.ndarray) -> np.ndarray:
        """The label maps [L, h, w] of a picture, as its shrunken form has them."""
        return self.superpixels([self._resized(picture)])[0]

    def _resized(self, picture: np.ndarray) -> np.ndarray:
        return resized(picture, self.vit, self.options.size, self.options.aspect)

    def _locate(
        self, picture: np.ndarray, phrases: Sequence[str], maps: np.ndarray, pairs: Pairs, rows
    ) -> list[Located]:
        if not len(phrases):
            return []
        o = self.options
        scores, notes = self.scores(rows, phrases)
        size = (picture.shape[0], picture.shape[1])
        out = []
        for column, told in zip(scores.T, notes):
            heat = heat_map(column, maps, pairs, o.temperature, o.aggregation)
            found = boxes_of(heat, o.alpha, most=o.boxes, search=o.search, least=o.least)
            boxes = np.array([f.box for f in found], np.float32)
            if o.corners == "indices":
                scale = [size[1] / heat.shape[1], size[0] / heat.shape[0]] * 2
                boxes = (boxes * np.array(scale, np.float32)).astype(np.float32)
            else:
                boxes = stretched(boxes, size, (heat.shape[0], heat.shape[1]))
            value = np.array([f.value for f in found], np.float32)
            out.append(Located(boxes, value, heat if o.heat else None, told))
        return out


def heat_map(
    scores: Float[np.ndarray, " S"],
    maps: Int[np.ndarray, "L H W"],
    pairs: Pairs,
    temperature: float,
    aggregation: str = "mean",
) -> Float[np.ndarray, "H W"]:
    """exp(score / T) of the segments over each pixel, aggregated over levels, stretched to [0, 1].

    A look-up in each level; nothing of N x H x W is held.
    """
    scores = scores.astype(np.float32)
    # The stretch cancels a common factor: without the largest score nothing overflows.
    shift = max(0.0, float(scores.max()) / temperature - 80.0)
    warm = np.exp(scores / np.float32(temperature) - np.float32(shift))[pairs.index]
    levels = (warm[labels + start] for labels, start in zip(maps, pairs.starts))
    if aggregation == "mean":
        heat = sum(levels) / np.float32(len(maps))
    elif aggregation == "median":
        heat = np.median(np.stack(list(levels)), axis=0)
    elif aggregation == "max":
        heat = np.stack(list(levels)).max(0)
    else:
        heat = np.stack(list(levels)).min(0)
        heat = -heat if aggregation == "negative_min" else heat
    low, high = heat.min(), heat.max()
    return ((heat - low) / (high - low + np.float32(1e-8))).astype(np.float32)


def _check(o: SlicVitOptions) -> None:
    for name, value, allowed in (
        ("aggregation", o.aggregation, AGGREGATIONS),
        ("corners", o.corners, ("edges", "indices")),
        ("aspect", o.aspect, ("squash", "keep")),
    ):
        if value not in allowed:
            raise UserError(f"{name} must be one of {', '.join(allowed)}, got {value!r}.")
    if o.temperature <= 0 or not 0 < o.alpha <= 2:
        raise UserError(
            f"temperature must be above 0 and alpha in (0, 2], got {o.temperature} and {o.alpha}."
        )


def build(spec: Any, device: str = "auto", **options: Any) -> SlicVit:
    """Superpixels scored by any CLIP-type vision transformer (SLICViT)."""
    from vislang.models.pretrained import load_model

    model = load_model(spec, pick_device(device)) if isinstance(spec, str) else spec
    return SlicVit(model, **options)
