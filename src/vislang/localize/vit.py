"""The inside of a vision transformer, laid open for methods that change its attention.

B: images, L: tokens with the class token first, D: width, h, w: tokens down and across.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislang.errors import UserError
from vislang.models.dual import Side


@dataclass(frozen=True)
class VitBlock:
    """x + attention(norm1(x)), then x + mlp(norm2(x)), each behind a scale."""

    norm1: nn.Module
    weight: Tensor
    bias: Tensor | None
    out: nn.Linear
    heads: int
    norm2: nn.Module
    mlp: nn.Module
    scale1: nn.Module
    scale2: nn.Module

    def qkv(self, x: Tensor) -> Tensor:
        """[..., D] before the norm -> [..., 3 D]."""
        return F.linear(self.norm1(x), self.weight, self.bias)

    def attend(self, qkv: Tensor) -> Tensor:
        """The plain attention of tokens [B, L, 3 D] -> [B, L, D]."""
        q, k, v = self.split(qkv)
        return self.joined(F.scaled_dot_product_attention(q, k, v))

    def split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, L, 3 D] -> three times [B, heads, L, D / heads]."""
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def joined(self, heads: Tensor) -> Tensor:
        """[B, heads, L, d] -> the output layer's [B, L, D], scaled."""
        return self.scale1(self.out(heads.transpose(1, 2).flatten(2)))

    def finish(self, x: Tensor) -> Tensor:
        """The second half: x + mlp(norm2(x))."""
        return x + self.scale2(self.mlp(self.norm2(x)))


@dataclass(frozen=True)
class Vit:
    """The parts of an image side's vision transformer."""

    side: Side
    pixels: nn.Module
    conv: nn.Conv2d
    class_embedding: Tensor
    positions: Tensor
    grid: tuple[int, int]
    norm_pre: nn.Module
    blocks: tuple[VitBlock, ...]
    norm_post: nn.Module
    projection: Tensor | None
    pool: str

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return int(self.conv.kernel_size[0])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) that the tower was trained on."""
        return self.grid[0] * self.patch, self.grid[1] * self.patch

    def tokens(
        self, images: Tensor, upsample: int = 1, padded: bool = False, half: bool = False
    ) -> tuple[Tensor, tuple[int, int]]:
        """Tokens [B, L, D] behind the first norm, and their grid (h, w).

        Args:
            images: [B, 3, H, W] uint8, or float in [0, 1]; H, W multiples of the patch.
            upsample: tokens per patch and axis; the stride of the patches shrinks by it.
            padded: pad by (patch - 1) // 2, as the overlapping patches need it.
            half: round the position embeddings to float16, as the published code does.
        """
        patch = self.patch
        if upsample < 1 or patch % upsample:
            raise UserError(f"upsample must divide the patch of {patch} pixels, got {upsample}.")
        if images.shape[2] % patch or images.shape[3] % patch:
            raise UserError(
                f"Images of {images.shape[2]} x {images.shape[3]} pixels do not divide into"
                f" patches of {patch}: use multiples of {patch}."
            )
        x = self.pixels(images)
        if self.conv.in_channels == 1:
            x = (x * x.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
        pad = (patch - 1) // 2 if padded or upsample > 1 else 0
        x = F.conv2d(x, self.conv.weight, self.conv.bias, patch // upsample, pad)
        grid = (images.shape[2] // patch * upsample, images.shape[3] // patch * upsample)
        x = x[:, :, : grid[0], : grid[1]].flatten(2).transpose(1, 2)
        # Under autocast patches come in bf16; the sum that all blocks add to must not.
        x = x.to(self.class_embedding.dtype)
        positions = enlarged(self.positions, self.grid, grid)
        if half:
            positions = positions.half()
        first = self.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        return self.norm_pre(torch.cat([first, x], 1) + positions.to(x.dtype)), grid

    def project(self, tokens: Tensor) -> Tensor:
        """Tokens [..., D] of the last block -> rows in the joint space, not normalised."""
        # A cosine divided by 0.01 shows what bf16 would lose in these last two products.
        with torch.autocast(tokens.device.type, enabled=False):
            x = self.norm_post(tokens.to(self.class_embedding.dtype))
            x = x if self.projection is None else x @ self.projection
            flat = self.side.head(x.flatten(0, -2))
        return flat.unflatten(0, x.shape[:-1])


def enlarged(positions: Tensor, grid: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Position embeddings [1 + h·w, D] for another grid, bilinear; the class token's stays."""
    if new == grid:
        return positions
    patches = positions[1:].unflatten(0, grid).permute(2, 0, 1)[None].float()
    patches = F.interpolate(patches, new, mode="bilinear", align_corners=False)
    return torch.cat([positions[:1].float(), patches[0].flatten(1).T])


def open_vit(side: Side, what: str) -> Vit:
    """The parts of a vision transformer of open_clip or of our own, or a UserError.

    Args:
        side: the image side of a model.
        what: the method that needs them, for the error message.
    """
    tower: Any = side.tower
    inner: Any = getattr(tower, "model", tower)
    stack = getattr(getattr(inner, "transformer", None), "resblocks", None)
    if stack is None or not isinstance(getattr(inner, "conv1", None), nn.Conv2d):
        raise UserError(
            f"{what} needs a vision transformer of open_clip or scratch_vit, not"
            f" {type(inner).__name__}. Choose the localizer resnet for a ResNet of open_clip."
        )
    if getattr(inner, "attn_pool", None) is not None:
        raise UserError(f"{what} cannot look behind this tower's attention pool.")
    if "adapters" in dict(tower.named_children()):
        raise UserError(f"{what} does not see adapters: export the model with them merged first.")
    patch = inner.conv1.kernel_size[0]
    grid = getattr(inner, "grid_size", None) or inner.grid
    options = getattr(inner, "options", None)
    pool = options.pool if options is not None else getattr(inner, "pool_type", "tok")
    assert inner.conv1.stride[0] == patch
    return Vit(
        side=side,
        pixels=tower.pixels,
        conv=inner.conv1,
        class_embedding=inner.class_embedding,
        positions=inner.positional_embedding,
        grid=(int(grid[0]), int(grid[1])),
        norm_pre=inner.ln_pre,
        blocks=tuple(_block(block, what) for block in stack),
        norm_post=inner.ln_post,
        projection=getattr(inner, "proj", None),
        pool="cls" if pool in ("cls", "tok") else str(pool),
    )


def _block(block: Any, what: str) -> VitBlock:
    attention = block.attn
    heads = getattr(attention, "num_heads", None) or getattr(attention, "heads", None)
    plain = isinstance(getattr(attention, "in_proj_weight", None), nn.Parameter) and heads
    if not plain or getattr(attention, "scaled_cosine", False):
        raise UserError(f"{what} does not know the attention {type(attention).__name__}.")
    return VitBlock(
        norm1=block.ln_1,
        weight=attention.in_proj_weight,
        bias=attention.in_proj_bias,
        out=attention.out_proj,
        heads=int(heads or 1),
        norm2=block.ln_2,
        mlp=block.mlp,
        scale1=getattr(block, "ls_1", nn.Identity()),
        scale2=getattr(block, "ls_2", nn.Identity()),
    )
