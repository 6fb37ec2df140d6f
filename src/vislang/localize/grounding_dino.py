"""Grounding DINO through transformers: boxes for the phrases of a text, in one pass for several.

Liu et al. 2023, arXiv:2303.05499.  The model reads "a mug. a spoon." and scores each of its
queries against each token; a phrase's score is the largest among its own tokens.
Q: queries, L: tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vislang.config import to_dict
from vislang.devices import autocast, pick_device, pick_precision
from vislang.errors import UserError
from vislang.localize.owl import corners
from vislang.localize.protocol import Located, checked, with_options
from vislang.metrics.boxes import areas, clip_boxes, suppress


@dataclass(frozen=True)
class DinoOptions:
    """Options of `grounding_dino`.

    Args:
        threshold: least score, a sigmoid in (0, 1).
        overlap: of suppression; 1 leaves near-duplicates in.
        boxes: at most so many a phrase.
        at_least_one: give the best box where none reaches the threshold.
        together: phrases in one text; 1 gives each a pass of its own, in which it sees no other.
        precision: auto, fp32, bf16.
    """

    threshold: float = 0.25
    overlap: float = 0.5
    boxes: int = 10
    at_least_one: bool = True
    together: int = 20
    precision: str = "fp32"


class GroundingDino:
    """Localizer that detects phrases; it needs the model's own tokenizer and picture settings."""

    name = "grounding_dino"

    def __init__(self, model: Any, tokenizer: Any, processor: Any, **options: Any):
        self.options: DinoOptions = with_options(DinoOptions, options, "localize.options")
        if self.options.together < 1:
            raise UserError(f"together must be at least 1, got {self.options.together}.")
        self.settings = to_dict(self.options)
        self.model, self.tokenizer, self.processor = model.eval(), tokenizer, processor

    def __call__(
        self, images: Sequence[np.ndarray], phrases: Sequence[Sequence[str]]
    ) -> list[list[Located]]:
        """For each picture and each of its phrases, the boxes above the threshold."""
        return [
            [one for part in self._parts(some) for one in self._look(picture, part)]
            for picture, some in zip(checked(images, phrases), phrases)
        ]

    def _parts(self, phrases: Sequence[str]) -> list[list[tuple[list[int], tuple[str, ...]]]]:
        """Token ids and notes of the phrases, in texts that are not too long."""
        most = int(self.model.config.max_text_len) - 2
        parts: list[list[tuple[list[int], tuple[str, ...]]]] = []
        room = 0
        for phrase in phrases:
            ids = self.tokenizer(phrase.lower().strip(" ."), add_special_tokens=False)["input_ids"]
            notes = (f"the phrase was cut to {most - 1} tokens",) if len(ids) >= most else ()
            ids = ids[: most - 1]
            if not parts or len(parts[-1]) == self.options.together or len(ids) + 1 > room:
                parts.append([])
                room = most
            parts[-1].append((ids, notes))
            room -= len(ids) + 1
        return parts

    def _look(self, picture: np.ndarray, part: Any) -> list[Located]:
        t = self.tokenizer
        stop = t.convert_tokens_to_ids(".")
        ids, spans = [t.cls_token_id], []
        for own, _ in part:
            spans.append(slice(len(ids), len(ids) + len(own)))
            ids += [*own, stop]
        # A picture of one row would be resized to none: it is seen on top of black ones.
        least = -(-max(picture.shape[:2]) // 20)
        more = [(0, max(0, least - side)) for side in picture.shape[:2]]
        shown = np.pad(picture, [*more, (0, 0)])
        logits, boxes = self.forward(shown, [*ids, t.sep_token_id])
        scale = (float(shown.shape[1]), float(shown.shape[0]))
        places = clip_boxes(corners(boxes, scale).cpu().numpy(), picture.shape[:2])
        scores = logits.sigmoid().cpu().numpy()
        return [
            self._chosen(places, scores[:, span].max(1), notes)
            if span.stop > span.start
            else Located(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), None, notes)
            for span, (_, notes) in zip(spans, part)
        ]

    def forward(self, picture: np.ndarray, ids: list[int]) -> tuple[Tensor, Tensor]:
        """Logits [Q, L] and boxes [Q, 4] (centre, size in [0, 1]) of a picture and a text."""
        device = self.model.device
        made = self.processor(
            images=[picture.copy()], return_tensors="pt", input_data_format="channels_last"
        )
        text = torch.tensor([ids], device=device)
        with torch.no_grad(), autocast(device, pick_precision(self.options.precision, device)):
            out = self.model(
                pixel_values=made["pixel_values"].to(device),
                pixel_mask=made["pixel_mask"].to(device),
                input_ids=text, attention_mask=torch.ones_like(text),
                token_type_ids=torch.zeros_like(text),
            )  # fmt: skip
        return out.logits[0].float(), out.pred_boxes[0].float()

    def _chosen(self, places: np.ndarray, scores: np.ndarray, notes: tuple[str, ...]) -> Located:
        o, full = self.options, areas(places) > 0
        rows = np.flatnonzero(full & (scores > o.threshold))
        if not len(rows) and o.at_least_one and full.any():
            rows = np.array([np.flatnonzero(full)[np.argmax(scores[full])]])
        rows = rows[suppress(places[rows], scores[rows], o.overlap)][: o.boxes]
        return Located(
            places[rows].astype(np.float32), scores[rows].astype(np.float32), None, notes
        )


def build(spec: Any, device: str = "auto", **options: Any) -> GroundingDino:
    """Grounding DINO from a folder in transformers' format."""
    folder = Path(str(spec).partition("local-dir:")[2] or spec).expanduser()
    needed = ("config.json", "model.safetensors", "tokenizer_config.json")
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder} lacks {', '.join(missing)}: it must be a Grounding DINO with its tokenizer,"
            " as transformers saves them. Download the model, or give its folder."
        )
    kind = json.loads((folder / "config.json").read_text()).get("model_type", "")
    if kind != "grounding-dino":
        raise UserError(f"{folder} is a {kind or 'model of no type'}, not a Grounding DINO.")
    from transformers import (
        AutoTokenizer,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
    )

    model: Any = GroundingDinoForObjectDetection.from_pretrained(
        folder, local_files_only=True, use_safetensors=True
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    processor = GroundingDinoImageProcessor()
    if (folder / "preprocessor_config.json").is_file():
        processor = GroundingDinoImageProcessor.from_pretrained(folder, local_files_only=True)
    return GroundingDino(model.to(pick_device(device)), tokenizer, processor, **options)
