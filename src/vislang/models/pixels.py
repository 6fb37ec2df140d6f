"""From a picture to what a tower's first layer sees.

B: images, C: 3 colours, H, W: pixels.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from vislang import resize
from vislang.errors import UserError
from vislang.preprocess import Preprocess

if TYPE_CHECKING:
    from PIL import Image


class Pixels(nn.Module):
    """Bring uint8, or float in [0, 1], to zero mean and unit variance: (x - mean) / std.

    It has no parameters and nothing in the state dict; its numbers move with the module.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocess: Preprocess):
        super().__init__()
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (preprocess.mean, preprocess.std))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] uint8 or float -> [B, 3, H, W] in the module's own float type."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise UserError(
                f"An image tower takes images [B, 3, H, W], got {list(images.shape)}."
                " Features that were computed earlier go into the batch as image_features."
            )
        scale = 255.0 if images.dtype == torch.uint8 else 1.0
        return (images.to(self.mean.dtype) / scale - self.mean) / self.std


def prepare_image(image: "Image.Image | np.ndarray", preprocess: Preprocess) -> Tensor:
    """One picture, resized and cropped as the tower wants it -> uint8 [3, H, W].

    Args:
        image: a PIL image, or uint8 [H, W, 3].
        preprocess: the tower's.
    """
    from PIL import Image

    pixels = image.convert("RGB") if isinstance(image, Image.Image) else image
    return resize.prepare_image(np.array(pixels), preprocess)
