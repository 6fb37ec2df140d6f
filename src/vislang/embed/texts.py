"""Texts to embeddings, each distinct string once.

m: texts, D: width of the shared space, L: tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vislang.devices import autocast, pick_device, pick_precision
from vislang.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float

    from vislang.models.dual import DualEncoder


def embed_texts(
    model: DualEncoder,
    texts: Sequence[str],
    *,
    batch_size: int = 256,
    device: str | torch.device = "auto",
    precision: str = "auto",
) -> Float[np.ndarray, "m D"]:
    """Embeddings of texts in the shared space, float32, not normalised.

    A string that occurs many times is embedded once. Strings of like length share a batch, so
    that a tokenizer that pads to the longest pads little.

    Args:
        model: a dual encoder with a text side.
        texts: any strings; an empty list gives no rows.
        batch_size: strings in one forward pass.
        device: auto, cpu, cuda or cuda:N.
        precision: auto, fp32 or bf16.
    """
    side = model.side("text")
    for text in texts:
        if not isinstance(text, str):
            raise UserError(f"texts must be strings, got {text!r} ({type(text).__name__}).")
    device = pick_device(device) if isinstance(device, str) else device
    precision = pick_precision(precision, device)
    distinct = dict.fromkeys(texts)
    order = sorted(distinct, key=lambda text: (len(text), text))
    place = {text: row for row, text in enumerate(order)}
    rows = np.empty((len(order), side.width), np.float32)
    tokenizer: Any = side.tower.tokenizer
    with evaluating(model, device), autocast(device, precision):
        for first in range(0, len(order), batch_size):
            tokens = tokenizer(order[first : first + batch_size])
            rows[first : first + batch_size] = side(tokens.to(device)).float().cpu().numpy()
    return rows[[place[text] for text in texts]] if len(texts) else rows


class evaluating:
    """Eval mode on `device` and no graph inside the block; modes are put back afterwards."""

    def __init__(self, model: torch.nn.Module, device: torch.device):
        self.model, self.device = model, device

    def __enter__(self) -> None:
        self._modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        parameter = next(self.model.parameters(), None)
        if parameter is not None and parameter.device != self.device:
            self.model.to(self.device)
        # Not inference_mode: what a tower caches there could not be trained with afterwards.
        self._no_graph = torch.no_grad()
        self._no_graph.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._no_graph.__exit__(*error)
        for module, mode in self._modes:
            module.training = mode
