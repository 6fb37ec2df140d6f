"""Opening a localizer by the names of model and method, here or in another process."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vislang.localize.protocol import Localizer
from vislang.lookup import lookup


def open_localizer(model: str, method: str, device: str, options: dict[str, Any]) -> Localizer:
    """The localizer `method` on MODEL; without a name the one that fits what is there.

    Args:
        model: a run folder, a checkpoint, a name, or a detector's folder of transformers.
        method: a key of LOCALIZERS, or nothing.
        device: auto, cpu, cuda or cuda:N.
        options: of the method.
    """
    from vislang.localize import LOCALIZERS

    if method:
        return lookup("localizer", LOCALIZERS, method)(model, device, **options)
    folder = Path(model.partition("local-dir:")[2] or model).expanduser()
    if (folder / "config.json").is_file() and not (folder / "open_clip_config.json").is_file():
        fits = "grounding_dino" if _type(folder) == "grounding-dino" else "owlvit"
        return lookup("localizer", LOCALIZERS, fits)(model, device, **options)
    from vislang.devices import pick_device
    from vislang.models.pretrained import load_model

    dual = load_model(model, pick_device(device))
    inner = getattr(dual.side("image").tower, "model", None)
    fits = "resnet" if hasattr(inner, "attnpool") and hasattr(inner, "layer4") else "slicvit"
    return lookup("localizer", LOCALIZERS, fits)(dual, device, **options)


def _type(folder: Path) -> str:
    return str(json.loads((folder / "config.json").read_text()).get("model_type", ""))


@dataclass(frozen=True)
class Opening:
    """What another process needs to open the same localizer; it travels, a model does not.

    Args:
        model, method, device: see `open_localizer`; a method is named.
        options: of the method, as JSON.
    """

    model: str
    method: str
    device: str
    options: str

    @classmethod
    def of(cls, localizer: Localizer, model: str, device: str) -> Opening:
        """How to open `localizer`, built on MODEL, somewhere else."""
        return cls(model, localizer.name, device, json.dumps(localizer.settings))

    @property
    def name(self) -> str:
        """The localizer's name."""
        return self.method

    @property
    def settings(self) -> dict[str, Any]:
        """The localizer's settings."""
        return json.loads(self.options)


@functools.lru_cache(maxsize=1)
def opened(opening: Opening) -> Localizer:
    """The localizer, opened once in each process, which then works on one thread."""
    import torch

    torch.set_num_threads(1)  # as many processes as cores; and OpenMP does not survive a fork
    return open_localizer(opening.model, opening.method, opening.device, opening.settings)
