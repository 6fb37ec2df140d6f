"""OWL-ViT and OWLv2 through transformers, with what their boxes need to be useful.

Minderer et al. 2022 (arXiv:2205.06230) and 2023 (arXiv:2306.09683).  Against the library's own
pipeline: pictures keep their aspect also for the first version (it was trained on pictures padded
to squares), boxes are clipped, near-duplicates suppressed, texts are embedded once and in batches.
B: pictures, Q: phrases, N: patches.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vislang.config import to_dict
from vislang.devices import autocast, pick_device, pick_precision
from vislang.errors import UserError
from vislang.localize.protocol import Located, batches, checked, noted, with_options
from vislang.metrics.boxes import areas, clip_boxes, suppress

if TYPE_CHECKING:
    from jaxtyping import Float

TYPES = ("owlvit", "owlv2")


@dataclass(frozen=True)
class OwlOptions:
    """Options of `owlvit` and `owlv2`.

    Args:
        threshold: least score, a sigmoid in (0, 1).
        overlap: of suppression; 1 leaves near-duplicates in, as the library does.
        boxes: at most so many a phrase.
        at_least_one: give the best box where none reaches the threshold.
        fit: pad (to a square, as in training), or squash (the library, owlvit only).
        templates: prompts with {} whose logits are averaged.
        batch: pictures in one pass.
        precision: auto, fp32, bf16.
    """

    threshold: float = 0.1
    overlap: float = 0.5
    boxes: int = 10
    at_least_one: bool = True
    fit: str = "pad"
    templates: tuple[str, ...] = ("a photo of a {}",)
    batch: int = 4
    precision: str = "fp32"


def corners(boxes: Float[Tensor, "N 4"], scale: tuple[float, float]) -> Float[Tensor, "N 4"]:
    """Centre and size in [0, 1] -> corners, in pixels of (width, height) = `scale`."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    factor = boxes.new_tensor([*scale, *scale])
    return torch.cat([centre - half, centre + half], 1) * factor


def detections(
    logits: Float[Tensor, "N Q"], boxes: Float[Tensor, "N 4"], scale: tuple[float, float],
    threshold: float = 0.1,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The library's own post-processing: scores, labels and boxes of the patches above it.

    Each patch has the phrase that it fits best; nothing is suppressed or clipped.
    """
    best, labels = logits.max(-1)
    scores = best.sigmoid()
    keep = scores > threshold
    return scores[keep], labels[keep], corners(boxes, scale)[keep]


class Owl:
    """Localizer that detects phrases; several phrases of a picture share its forward pass."""

    def __init__(self, model: Any, kind: str, **options: Any):
        if kind not in TYPES:
            raise UserError(f"An OWL model is one of {', '.join(TYPES)}, got {kind!r}.")
        self.options: OwlOptions = with_options(OwlOptions, options, "localize.options")
        o = self.options
        if o.fit not in ("pad", "squash") or (o.fit == "squash" and kind == "owlv2"):
            raise UserError(f"fit must be pad, or squash for owlvit, got {o.fit!r} for {kind}.")
        if not o.templates or any("{}" not in t for t in o.templates):
            raise UserError(f"Templates need a {{}} for the phrase, got {o.templates}.")
        from vislang.models.tokenizers import build_tokenizer

        self.name, self.settings = kind, to_dict(o)
        self.model = model.eval()
        self.context = int(model.config.text_config.max_position_embeddings)
        self.size = int(model.config.vision_config.image_size)
        self.tokenizer = build_tokenizer("clip", self.context)
        self.processor = _processor(kind, self.size)
        self._texts: dict[str, Tensor] = {}
        self._cut: dict[str, tuple[str, ...]] = {}

    def __call__(
        self, images: Sequence[np.ndarray], phrases: Sequence[Sequence[str]]
    ) -> list[list[Located]]:
        """For each picture and each of its phrases, the boxes above the threshold."""
        pictures = checked(images, phrases)
        out: list[list[Located]] = []
        for rows in batches(len(pictures), self.options.batch):
            some = [pictures[i] for i in rows]
            for i, (features, boxes) in zip(rows, self.look(some)):
                out.append(self._locate(pictures[i], phrases[i], features, boxes))
        return out

    def pixels(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """What the model sees: [B, 3, S, S]."""
        if self.options.fit == "pad" and self.name == "owlvit":
            pictures = [_squared(p) for p in pictures]
        made = self.processor(images=[p.copy() for p in pictures], return_tensors="pt")
        return made["pixel_values"]

    def look(self, pictures: Sequence[np.ndarray]) -> list[tuple[Tensor, Tensor]]:
        """Features [N, D] and boxes [N, 4] (centre, size in [0, 1]) of each picture's patches."""
        device = self.model.device
        with torch.no_grad(), autocast(device, pick_precision(self.options.precision, device)):
            maps, *_ = self.model.image_embedder(self.pixels(pictures).to(device))
            features = maps.flatten(1, 2)
            boxes = self.model.box_predictor(features, maps)
        return list(zip(features, boxes.float()))

    def texts(self, phrases: Sequence[str]) -> Tensor:
        """Query embeddings [Q, templates, D]."""
        missing = [p for p in dict.fromkeys(phrases) if p not in self._texts]
        if missing:
            t = self.options.templates
            ids = self.tokenizer([one.replace("{}", p) for p in missing for one in t])
            told = (f"the phrase fills all {self.context} tokens: its end may be cut off",)
            full = (ids[:, -1] != 0).unflatten(0, (len(missing), len(t))).any(1).tolist()
            self._cut |= {p: told for p, long in zip(missing, full) if long}
            ids = ids.to(self.model.device)
            with torch.no_grad():
                inner = getattr(self.model, "owlvit", None) or self.model.owlv2
                out = inner.text_model(input_ids=ids, attention_mask=(ids != 0).long())
                rows = inner.text_projection(out.pooler_output)
                rows = rows / rows.norm(dim=-1, keepdim=True)
            self._texts |= dict(zip(missing, rows.unflatten(0, (len(missing), len(t)))))
        return torch.stack([self._texts[p] for p in phrases])

    def logits(self, features: Tensor, phrases: Sequence[str]) -> Tensor:
        """[N, Q], the mean over templates."""
        queries = self.texts(phrases)
        with torch.no_grad():
            found, _ = self.model.class_predictor(features[None], queries.flatten(0, 1)[None])
        return found[0].float().unflatten(1, queries.shape[:2]).mean(-1)

    def _locate(self, picture, phrases: Sequence[str], features, boxes) -> list[Located]:
        if not len(phrases):
            return []
        o, (height, width) = self.options, picture.shape[:2]
        side = float(max(height, width))
        scale = (float(width), float(height)) if o.fit == "squash" else (side, side)
        places = clip_boxes(corners(boxes, scale).cpu().numpy(), (height, width))
        full = areas(places) > 0
        out = []
        columns = self.logits(features, phrases).sigmoid().T.cpu().numpy()
        for phrase, scores in zip(phrases, columns):
            rows = np.flatnonzero(full & (scores > o.threshold))
            if not len(rows) and o.at_least_one and full.any():
                rows = np.array([np.flatnonzero(full)[np.argmax(scores[full])]])
            rows = rows[suppress(places[rows], scores[rows], o.overlap)][: o.boxes]
            found = Located(places[rows].astype(np.float32), scores[rows].astype(np.float32))
            out.append(noted(found, self._cut.get(phrase, ())))
        return out


def _squared(picture: np.ndarray) -> np.ndarray:
    """The picture on a black square, at its top left."""
    side = max(picture.shape[:2])
    square = np.zeros((side, side, 3), np.uint8)
    square[: picture.shape[0], : picture.shape[1]] = picture
    return square


def _processor(kind: str, size: int) -> Any:
    from transformers import Owlv2ImageProcessor, OwlViTImageProcessor

    square = {"height": size, "width": size}
    if kind == "owlvit":
        return OwlViTImageProcessor(size=square, crop_size=square, do_center_crop=False)
    return Owlv2ImageProcessor(size=square)


def build(spec: Any, device: str = "auto", **options: Any) -> Owl:
    """OWL-ViT or OWLv2 from a folder in transformers' format."""
    from transformers import Owlv2ForObjectDetection, OwlViTForObjectDetection

    if not isinstance(spec, str | Path):
        kind = spec.config.model_type
        return Owl(spec, kind, **options)
    folder = Path(str(spec).partition("local-dir:")[2] or spec).expanduser()
    file = folder / "config.json"
    if not file.is_file() or not (folder / "model.safetensors").is_file():
        raise UserError(
            f"{folder} must hold config.json and model.safetensors of an OWL-ViT or OWLv2, as"
            " transformers saves them. Download the model, or give its folder."
        )
    kind = json.loads(file.read_text()).get("model_type", "")
    classes = {"owlvit": OwlViTForObjectDetection, "owlv2": Owlv2ForObjectDetection}
    if kind not in classes:
        raise UserError(f"{folder} is a {kind or 'model of no type'}, not an OWL-ViT or OWLv2.")
    model = classes[kind].from_pretrained(folder, local_files_only=True, use_safetensors=True)
    return Owl(model.to(pick_device(device)), kind, **options)
