"""Our own vision transformer, of any size.

B: images, H, W: pixels, h, w: patches down and across, D: width.

The architecture is CLIP's ViT (arXiv:2103.00020 and Dosovitskiy et al. 2020, arXiv:2010.11929):
patches by a strided convolution, a class token, norms before and after.  Its weights map one to
one onto open_clip's `VisionTransformer`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vislang.config import from_dict, to_dict
from vislang.errors import UserError
from vislang.models.pixels import Pixels, prepare_image
from vislang.models.towers.named import IMAGE_SIZES, of_size
from vislang.models.towers.sides import check_side, choose
from vislang.models.towers.sizes import patch_grid, resize_positions
from vislang.models.transformer import Transformer
from vislang.models.weights import load_pretrained
from vislang.preprocess import CLIP_MEAN, CLIP_STD, Preprocess


@dataclass(frozen=True)
class VitOptions:
    """Options of `scratch_vit`; the defaults are ViT-B/16.

    Args:
        image_size: pixels, one number for squares or (height, width); a multiple of `patch`.
        patch: side of a patch in pixels.
        width: features of a token.
        depth: blocks.
        heads: attention heads; 0 takes one for each 64 features.
        mlp_ratio: hidden width of a block's MLP, in widths.
        channels: 3 for colour, 1 to see only the luminance.
        pool: cls (the class token) or mean (of the patches).
        positions: learned, or sincos (fixed, two-dimensional).
        dropout: on the output of each attention and MLP.
        mean: of the pixels, per channel.
        std: of the pixels, per channel.
        interpolation: with which images are resized.
        size: M/14@112, S/16@112, S/8@112, B/16@112, B/32@224 or L/14@224 sets image_size, patch,
            width, depth, heads and mlp_ratio, unless they are given, too.
    """

    image_size: int | tuple[int, int] = 224
    patch: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 0
    mlp_ratio: float = 4.0
    channels: int = 3
    pool: str = "cls"
    positions: str = "learned"
    dropout: float = 0.0
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    interpolation: str = "bicubic"
    size: str = ""


class ScratchVit(nn.Module):
    """Image tower: [B, 3, H, W] -> [B, D]; of other sizes than its own, too.

    H and W must be multiples of the patch; positions are then interpolated.
    """

    def __init__(self, options: VitOptions):
        super().__init__()
        size = options.image_size
        size = (size, size) if isinstance(size, int) else size
        _check(options, size)
        self.options, self.width = options, options.width
        self.preprocess = Preprocess(size, options.mean, options.std, options.interpolation)
        self.grid = (size[0] // options.patch, size[1] // options.patch)
        width, tokens = options.width, self.grid[0] * self.grid[1] + 1
        self.pixels = Pixels(self.preprocess)
        self.conv1 = nn.Conv2d(options.channels, width, options.patch, options.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        if options.positions == "learned":
            self.positional_embedding = nn.Parameter(torch.randn(tokens, width) * width**-0.5)
        else:
            self.register_buffer("positional_embedding", sincos(self.grid, width))
        self.ln_pre = nn.LayerNorm(width)
        heads = options.heads or max(1, width // 64)
        mlp_width = int(width * options.mlp_ratio)
        self.transformer = Transformer(width, options.depth, heads, mlp_width, options.dropout)
        self.ln_post = nn.LayerNorm(width)
        self.drop = nn.Dropout(options.dropout)

    @property
    def settings(self) -> dict[str, Any]:
        """Options that rebuild this tower."""
        return to_dict(self.options)

    def prepare(self, image: Any) -> Tensor:
        """One picture -> uint8 [3, H, W]."""
        return prepare_image(image, self.preprocess)

    def set_grad_checkpointing(self, on: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        self.transformer.grad_checkpointing = on

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] uint8, or float in [0, 1] -> [B, D]."""
        tokens = self._tokens(images)
        if self.options.pool == "cls":
            first = torch.zeros(len(tokens), dtype=torch.int64, device=tokens.device)
            return self.ln_post(self.transformer(tokens, row=first))
        return self.ln_post(self.transformer(tokens))[:, 1:].mean(1)

    def dense(self, images: Tensor) -> Tensor:
        """Features of each patch: [B, 3, H, W] -> [B, h, w, D]."""
        return self.with_dense(images)[1]

    def with_dense(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` and `dense` give, in one pass."""
        x = self.ln_post(self.transformer(self._tokens(images)))
        pooled = x[:, 0] if self.options.pool == "cls" else x[:, 1:].mean(1)
        patch = self.options.patch
        grid = (images.shape[2] // patch, images.shape[3] // patch)
        return pooled, x[:, 1:].unflatten(1, grid)

    def _tokens(self, images: Tensor) -> Tensor:
        x = self.pixels(images)
        if self.options.channels == 1:
            x = (x * x.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
        patch = self.options.patch
        grid = patch_grid((images.shape[2], images.shape[3]), (patch, patch))
        positions = resize_positions(self.positional_embedding, self.grid, grid)
        x = self.conv1(x)
        x = x.flatten(2).transpose(1, 2)
        first = self.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        return self.ln_pre(self.drop(torch.cat([first, x], 1) + positions.to(x.dtype)))


def sincos(grid: tuple[int, int], width: int) -> Tensor:
    """Fixed positions [h * w + 1, D]: for each axis D/4 sines and D/4 cosines of falling
    frequency 10000^(-4k/D); the class token's are zero.

    >>> sincos((2, 2), 8).shape
    torch.Size([5, 8])
    """
    frequency = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    rows, columns = (torch.arange(n, dtype=torch.float64)[:, None] * frequency for n in grid)
    rows = torch.cat([rows.sin(), rows.cos()], 1)[:, None].expand(-1, grid[1], -1)
    columns = torch.cat([columns.sin(), columns.cos()], 1)[None].expand(grid[0], -1, -1)
    patches = torch.cat([columns, rows], -1).flatten(0, 1)
    return torch.cat([torch.zeros(1, width), patches.float()])


def _check(options: VitOptions, size: tuple[int, int]) -> None:
    choose("pool of scratch_vit", options.pool, ("cls", "mean"))
    choose("positions of scratch_vit", options.positions, ("learned", "sincos"))
    if options.patch < 1 or size[0] % options.patch or size[1] % options.patch:
        raise UserError(
            f"image_size must be a multiple of patch, got {size[0]} x {size[1]} pixels and"
            f" patches of {options.patch}."
        )
    if options.channels not in (1, 3):
        raise UserError(f"channels must be 3 (colour) or 1 (luminance), got {options.channels}.")
    if options.positions == "sincos" and options.width % 4:
        raise UserError(f"positions sincos needs a width divisible by 4, got {options.width}.")


def build(*, side: str, pretrained: str = "", weights: bool = True, **options: Any) -> ScratchVit:
    """Our own vision transformer of any size (image)."""
    check_side(side, ("image",), "scratch_vit")
    options = of_size(options, IMAGE_SIZES)
    tower = ScratchVit(from_dict(VitOptions, options, f"model.{side}.options"))
    if pretrained and weights:
        load_pretrained(tower, pretrained, side)
    return tower
