"""Folding LoRA and (IA)³ into the weights: the same function without a part more."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from vislang.errors import UserError
from vislang.models.adapters.attention import PROJECTIONS, BlockAdapters
from vislang.models.adapters.ia3 import Scale
from vislang.models.adapters.insert import Adapters
from vislang.models.adapters.lora import Lora
from vislang.models.dual import DualEncoder


def merge_adapters(model: DualEncoder) -> DualEncoder:
    """Fold the adapters of both sides into the towers' weights, in place; returns the model.

        lora: W + (alpha / rank) B A        ia3: diag(s) W and diag(s) b; W diag(s) for `hidden`

    Raises:
        UserError: there are none, or they are no matrices (only lora and ia3 are).
    """
    sides = [s for s in ("image", "text") if getattr(model, s) is not None]
    found = [s for s in sides if hasattr(getattr(model, s).tower, "adapters")]
    if not found:
        raise UserError("The model has no adapters to merge.")
    for name in found:
        check_mergeable(getattr(model, name).tower, name)
    for name in found:
        merge_tower(getattr(model, name).tower)
    if model.config is not None:
        parts = {
            name: replace(getattr(model.config, name), adapter="", adapter_options={})
            for name in found
        }
        model.config = replace(model.config, **parts)
    return model


def check_mergeable(tower: nn.Module, name: str) -> None:
    """Refuse adapters that are not matrices."""
    adapters: Adapters = tower.adapters  # type: ignore[assignment]
    for part in (part for parts in adapters.blocks for part in parts.values()):  # type: ignore
        if not isinstance(part, Scale) and not (isinstance(part, Lora) and part.gate is None):
            raise UserError(
                f"The {name} side's adapter {adapters.name!r} does not merge: only lora and ia3"
                " are changes of matrices. Keep it beside the tower (save_adapters, save_model)."
            )


@torch.no_grad()
def merge_tower(tower: nn.Module) -> None:
    """Fold and remove the adapters of one tower."""
    adapters: Adapters = tower.adapters  # type: ignore[assignment]
    for parts in adapters.blocks:
        for seat, part in parts.items():  # type: ignore[operator]
            _fold(parts, seat, part)  # type: ignore[arg-type]
    remove_adapters(tower)


def remove_adapters(tower: nn.Module) -> None:
    """Take the adapters out of a tower; its weights stay as they are."""
    adapters: Adapters = tower.adapters  # type: ignore[assignment]
    for handle in adapters.handles:
        handle.remove()
    for parts in adapters.blocks:
        attention = parts.block.attention  # type: ignore[union-attr]
        for name in {"forward", "one", "prefix_parts"} & set(vars(attention)):
            delattr(attention, name)
    del tower.adapters


def _fold(parts: BlockAdapters, seat: str, part: nn.Module) -> None:
    block = parts.block
    if seat == "hidden":
        assert isinstance(part, Scale)
        block.ffn_out.weight.mul_(part.scale)  # [out, in] times [in]: the columns
        return
    weight, bias = _rows(parts, seat)
    if isinstance(part, Lora):
        weight.add_(part.delta())
        return
    assert isinstance(part, Scale)
    weight.mul_(part.scale[:, None])
    if bias is not None:
        bias.mul_(part.scale)


def _rows(parts: BlockAdapters, seat: str) -> tuple[Tensor, Tensor | None]:
    """The weight and bias (views, to be changed in place) whose output the seat changes."""
    block = parts.block
    layers = {"out": block.out, "ffn_in": block.ffn_in, "ffn_out": block.ffn_out}
    if seat in layers:
        return layers[seat].weight, layers[seat].bias
    at = PROJECTIONS.index(seat)
    if block.kind == "separate":
        return block.projections[at].weight, block.projections[at].bias
    if block.kind == "layer":
        weight, bias = block.projections[0].weight, block.projections[0].bias
    else:
        weight, bias = block.attention.in_proj_weight, block.attention.in_proj_bias  # type: ignore
    return weight.chunk(3)[at], None if bias is None else bias.chunk(3)[at]  # type: ignore
