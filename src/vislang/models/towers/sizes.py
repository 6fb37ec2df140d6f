"""Images of another size than a tower's own, such as the small crops of DINO and SwAV.

h, w: patches down and across, D: width.
"""

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislang.errors import UserError
from vislang.models.towers.wrapped import run_on_meta


def resize_positions(positions: Tensor, grid: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Position embeddings [1 + h·w, D] of one grid for another; the first (class token's) stays.

    Bicubic, antialiased where the grid shrinks, as timm does it; the same tensor where the grid
    is the same. Gradients reach the embeddings through it.
    """
    if new == grid:
        return positions
    first, patches = positions[:1], positions[1:]
    exact = positions.dtype if positions.dtype == torch.float64 else torch.float32
    patches = patches.unflatten(0, grid).permute(2, 0, 1)[None].to(exact)
    patches = F.interpolate(patches, new, mode="bicubic", antialias=True)
    return torch.cat([first, patches[0].flatten(1).T.to(first.dtype)])


def patch_grid(size: tuple[int, int], patch: tuple[int, int]) -> tuple[int, int]:
    """Patches down and across of an image; UserError where they do not fill it.

    >>> patch_grid((96, 96), (16, 16))
    (6, 6)
    """
    if min(size) < 1 or size[0] % patch[0] or size[1] % patch[1]:
        raise UserError(
            f"An image of {size[0]} x {size[1]} pixels does not divide into patches of"
            f" {patch[0]} x {patch[1]}: use multiples of {patch[0]}."
        )
    return size[0] // patch[0], size[1] // patch[1]


def check_image_size(tower: nn.Module, size: tuple[int, int], name: str = "") -> None:
    """Refuse a size of images that the tower cannot take; costs no arithmetic.

    Args:
        tower: an image tower.
        size: (height, width) in pixels.
        name: what the user calls it (`model.image.name`).

    Raises:
        UserError: names the tower, its size, this one, and what to do.
    """
    own: tuple[int, int] = tower.preprocess.size  # type: ignore[assignment, union-attr]
    if tuple(size) == tuple(own):
        return
    modes = [(module, module.training) for module in tower.modules()]
    try:
        with _uncompiled(tower):
            out = run_on_meta(tower, size)
        why = "" if out.shape == (1, tower.width) else f"it gives features {list(out.shape)}"
    except Exception as error:
        why = (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(".!")
    finally:
        for module, mode in modes:  # a locked batch norm may be in another than its tower
            module.training = mode
    if why:
        settings: dict = getattr(tower, "settings", {})  # type: ignore[assignment]
        inner = settings.get("name", "")
        named = f"{name} ({inner})" if name and inner else name or inner or type(tower).__name__
        raise UserError(
            f"The image tower {named} takes images of {own[0]} x {own[1]} pixels, not"
            f" {size[0]} x {size[1]} (data.crop_size): {why}. Set data.crop_size=0 for small crops"
            " of the tower's own size, another multiple of its patch, or a tower that takes any:"
            " scratch_vit, the vision transformers of timm and open_clip, convolutional nets."
        )


def _uncompiled(tower: nn.Module) -> contextlib.AbstractContextManager:
    """Keeps torch.compile from compiling the tower for tensors without content."""
    if getattr(tower, "_compiled_call_impl", None) is None:
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")
