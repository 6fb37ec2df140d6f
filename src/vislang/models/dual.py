"""A dual encoder: an image side and a text side that meet in one space.

B: samples, F: features of a tower, D: joint width, N: patches, L: tokens, V: vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn

from vislang.config import ModelConfig
from vislang.errors import UserError
from vislang.models.decoder import Decoder
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

    def features_and_patches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The tower's output [B, F] and that of each patch [B, N, F], in one pass where it can."""
        both = getattr(self.tower, "with_dense", None)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features, maps = both(x) if both else (self.tower(x), self.tower.dense(x))  # type: ignore[operator]
        return features, maps.flatten(1, 2)

    def patches(self, x: Tensor) -> Tensor:
        """The tower's output for each patch: [B, 3, H, W] -> [B, N, F]."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.tower.dense(x).flatten(1, 2)  # type: ignore[operator]


class DualEncoder(nn.Module):
    """Two sides; one may be missing. Both may have a text decoder, which writes captions.

    Attributes:
        image, text: the sides, or None.
        decoder: the decoder, or None.
        config: what `build_model` made it from, when it did.
    """

    config: ModelConfig | None = None

    def __init__(self, image: Side | None, text: Side | None, decoder: Decoder | None = None):
        super().__init__()
        if image is None and text is None:
            raise UserError("A model needs an image side, a text side, or both; it has neither.")
        if image is not None and text is not None and image.width != text.width:
            raise UserError(
                f"Both sides must end in one width, got {image.width} (image) and"
                f" {text.width} (text)."
            )
        self.image, self.text, self.decoder = image, text, decoder
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

    def caption(self, image: Tensor, text: Tensor) -> dict[str, Tensor]:
        """What the decoder makes of the captions of images, for objectives that need it.

        Args:
            image: [B, 3, H, W], uint8 or float in [0, 1].
            text: int64 [B, L], their captions by the text tower's tokenizer.

        Returns:
            caption_logits [B, L - 1, V], of the tokens from the second on, and caption_ids
            int64 [B, L - 1], those tokens, -1 behind the end of a text.

        Raises:
            UserError: the model has no decoder.
        """
        decoder = self._decoder()
        logits = decoder(self.side("image").patches(image), text)
        return {"caption_logits": logits, "caption_ids": decoder.targets(text)}

    def caption_ids(self, text: Tensor) -> Tensor:
        """The tokens that `caption` is to predict, alone: int64 [B, L] -> [B, L - 1]."""
        return self._decoder().targets(text)

    def embed_and_caption(self, image: Tensor, text: Tensor) -> dict[str, Tensor]:
        """The numbers of `forward` and of `caption`, the image tower being run once.

        Towers without `with_dense` are run twice; with dropout they then draw it twice.
        """
        decoder, side = self._decoder(), self.side("image")
        features, patches = side.features_and_patches(image)
        return {
            "image": side.head(features),
            "text": self.side("text")(text),
            "caption_logits": decoder(patches, text),
            "caption_ids": decoder.targets(text),
        }

    def generate(self, image: Tensor, max_tokens: int = 32) -> list[list[int]]:
        """A caption for each image, the likeliest token at a time; ids without start and end.

        Args:
            image: [B, 3, H, W], uint8 or float in [0, 1].
            max_tokens: longest caption.
        """
        decoder, mode = self._decoder(), self.training
        self.eval()
        try:
            with torch.no_grad():
                return decoder.generate(self.side("image").patches(image), max_tokens)
        finally:
            self.train(mode)

    def _decoder(self) -> Decoder:
        if self.decoder is None:
            raise UserError(
                "This model has no text decoder, so it cannot write captions."
                " Set model.decoder.name to transformer, or choose another objective."
            )
        return self.decoder

    def set_grad_checkpointing(self, on: bool = True) -> None:
        """Recompute activations of what is trained in the backward pass."""
        for side in (self.image, self.text):
            if side is not None and not side.frozen:
                side.tower.set_grad_checkpointing(on)  # type: ignore[operator]
        if self.decoder is not None:
            self.decoder.set_grad_checkpointing(on)


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
