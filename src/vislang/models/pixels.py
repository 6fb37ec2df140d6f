"""From a picture to what a tower's first layer sees.

B: images, C: 3 colours, H, W: pixels.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

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


def prepare_image(image: "Image.Image | np.ndarray | Tensor", preprocess: Preprocess) -> Tensor:
    """One picture, resized and cropped as the tower wants it -> uint8 [3, H, W].

    The arithmetic of sizes is torchvision's and open_clip's (the longer side rounded down, the
    crop's corner rounded), so that their models see the same pixels here.

    Args:
        image: a PIL image, or uint8 [H, W, 3].
        preprocess: the tower's.
    """
    from PIL import Image

    if not isinstance(image, Image.Image):
        image = Image.fromarray(np.asarray(image))
    image = image.convert("RGB")
    height, width = preprocess.size
    modes = Image.Resampling
    mode = {"bicubic": modes.BICUBIC, "bilinear": modes.BILINEAR, "nearest": modes.NEAREST}
    new_height, new_width = _scaled(image.height, image.width, preprocess)
    image = image.resize((new_width, new_height), mode[preprocess.interpolation])
    if (new_height, new_width) != (height, width):
        image = _centre(image, height, width, preprocess.fill)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _scaled(height: int, width: int, preprocess: Preprocess) -> tuple[int, int]:
    to_height, to_width = preprocess.size
    if preprocess.fit == "squash":
        return to_height, to_width
    if preprocess.fit == "longest":
        ratio = min(to_height / height, to_width / width)
        return max(1, round(height * ratio)), max(1, round(width * ratio))
    if to_height == to_width:
        short = int(to_height / preprocess.crop_fraction)
        if height <= width:
            return short, max(short, int(short * width / height))
        return max(short, int(short * height / width)), short
    ratio = max(to_height / height, to_width / width) / preprocess.crop_fraction
    return max(to_height, round(height * ratio)), max(to_width, round(width * ratio))


def _centre(image: "Image.Image", height: int, width: int, fill: int) -> "Image.Image":
    """Cut the middle out, or set the picture into the middle of a `fill` ground."""
    from PIL import Image

    top, left = round((image.height - height) / 2), round((image.width - width) / 2)
    if image.height >= height and image.width >= width:
        return image.crop((left, top, left + width, top + height))
    ground = Image.new("RGB", (width, height), (fill,) * 3)
    ground.paste(image, (-left, -top))
    return ground
