"""A dual encoder: an image side and a text side that meet in one space.

B: samples, F: features of a tower, D: joint width.
"""

from typing import Any

import torch
from torch import Tensor, nn

from vislang.config import ModelConfig
from vislang.errors import UserError
from vislang.models.locks import hold_statistics

FEATURES = "_features"


class Side(nn.Module):
    """A tower and the head that maps its features onto the joint width.

    A frozen tower keeps its weights: they require no gradient, it stays in eval mode whatever
    `train()` says, and it runs without a graph. Its head learns all the same.
    """

    def __init__(self, tower: nn.Module, head: nn.Module, width: int, frozen: bool = False):
        super().__init__()
        self.tower, self.head, self.width, self.frozen = tower, head, width, frozen
        if frozen:
            tower.requires_grad_(False)
            tower.eval()

    def train(self, mode: bool = True) -> "Side":
        """Set the mode of the head, and of the tower unless it is frozen."""
        super().train(mode)
        if self.frozen:
            self.tower.eval()
        elif mode:
            hold_statistics(self.tower)
        return self

    def features(self, x: Tensor) -> Tensor:
        """The tower's output: images [B, 3, H, W] or tokens [B, L] -> [B, F]."""
        if self.frozen:
            with torch.no_grad():
                return self.tower(x)
        return self.tower(x)

    def forward(self, x: Tensor, from_features: bool = False) -> Tensor:
        """The embedding in the joint space, not normalised: [B, D].

        Args:
            x: images, tokens, or (if `from_features`) the tower's output [B, F].
            from_features: run the head alone.
        """
        if not from_features:
            return self.head(self.features(x))
        expected = getattr(self.tower, "width", None)
        if x.ndim != 2 or x.shape[1] != expected:
            raise UserError(
                f"Stored features must be [B, {expected}], the tower's width;"
                f" got {list(x.shape)}. They were made by another tower: make them anew."
            )
        parameter = next(self.head.parameters(), None)
        return self.head(x if parameter is None else x.to(parameter.dtype))


class DualEncoder(nn.Module):
    """Two sides; one may be missing.

    Attributes:
        image, text: the sides, or None.
        config: what `build_model` made it from, when it did.
    """

    config: ModelConfig | None = None

    def __init__(self, image: Side | None, text: Side | None):
        super().__init__()
        if image is None and text is None:
            raise UserError("A model needs an image side, a text side, or both; it has neither.")
        if image is not None and text is not None and image.width != text.width:
            raise UserError(
                f"Both sides must end in one width, got {image.width} (image) and"
                f" {text.width} (text)."
            )
        self.image, self.text = image, text
        self.width = image.width if image is not None else text.width  # type: ignore[union-attr]

    def side(self, name: str) -> Side:
        """The side "image" or "text"; a missing one is a UserError."""
        found = self.image if name == "image" else self.text
        if found is None:
            raise UserError(
                f"This model has no {name} side, so it cannot embed {name}s."
                f" Use a model with both sides, or leave the {name} part out."
            )
        return found

    def forward(self, **batch: Any) -> dict[str, Any]:
        """The batch with every tensor `image*` and `text*` embedded, the rest passed through.

        `image_features` and `text_features` (`image_2_features` ...) hold a tower's output that
        was computed earlier. They go through the head alone and come back under the plain name;
        where both are given the features are taken, so that a frozen tower need not run.
        """
        out: dict[str, Any] = {}
        for key, value in batch.items():
            name = "image" if key.startswith("image") else "text" if key.startswith("text") else ""
            if not name or not isinstance(value, Tensor):
                out[key] = value
            elif key.endswith(FEATURES):
                out[key.removesuffix(FEATURES)] = self.side(name)(value, from_features=True)
            elif key + FEATURES not in batch:
                out[key] = self.side(name)(value)
        return out

    def set_grad_checkpointing(self, on: bool = True) -> None:
        """Recompute activations of the trained towers in the backward pass."""
        for side in (self.image, self.text):
            if side is not None and not side.frozen:
                side.tower.set_grad_checkpointing(on)  # type: ignore[operator]


def count_parameters(model: nn.Module) -> dict[str, int]:
    """How many numbers the model holds, and how many of them are trained.

    >>> count_parameters(nn.Linear(3, 2))
    {'total': 8, 'trainable': 8}
    """
    parameters = list(model.parameters())
    return {
        "total": sum(p.numel() for p in parameters),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
    }
