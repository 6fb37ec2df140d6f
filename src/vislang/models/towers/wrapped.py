"""An image tower around a library's model, and looking into a model without computing."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vislang.errors import UserError
from vislang.models.pixels import Pixels, prepare_image
from vislang.preprocess import Preprocess


class WrappedImage(nn.Module):
    """Image tower: the library's `model` behind our pixels, [B, 3, H, W] -> [B, width].

    Args:
        model: takes normalised float images and returns features [B, width] (or a tuple that
            begins with them).
        width: features of a row.
        preprocess: how it wants its images.
        settings: options that rebuild the architecture.
    """

    def __init__(
        self, model: nn.Module, width: int, preprocess: Preprocess, settings: dict[str, Any]
    ):
        super().__init__()
        self.model, self.width, self.preprocess, self.settings = model, width, preprocess, settings
        self.pixels = Pixels(preprocess)

    def prepare(self, image: Any) -> Tensor:
        """One picture -> uint8 [3, H, W]."""
        return prepare_image(image, self.preprocess)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] uint8, or float in [0, 1] -> [B, width]."""
        out = self.model(self.pixels(images))
        out = out if isinstance(out, Tensor) else out[0]
        return out.flatten(1)

    def set_grad_checkpointing(self, on: bool = True) -> None:
        """Recompute activations in the backward pass, where the library can."""
        switch = getattr(self.model, "set_grad_checkpointing", None)
        if switch is not None:
            switch(on)
        elif on:
            raise UserError(
                f"{type(self.model).__name__} cannot recompute its activations."
                " Set run.grad_checkpoint to false; data.chunk also bounds the memory."
            )


def run_on_meta(model: nn.Module, size: tuple[int, int]) -> Any:
    """The output of `model` for one image, shapes only: no memory, no arithmetic."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    empty = {name: tensor.to("meta") for name, tensor in tensors.items()}
    mode = model.training
    model.eval()
    try:
        with torch.no_grad():
            return functional_call(model, empty, (torch.zeros(1, 3, *size, device="meta"),))
    finally:
        model.train(mode)


def output_width(model: nn.Module, size: tuple[int, int]) -> int:
    """How many features `model` returns for an image of `size`."""
    out = run_on_meta(model, size)
    return int((out if isinstance(out, Tensor) else out[0]).flatten(1).shape[1])
