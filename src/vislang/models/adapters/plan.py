"""What a method wants to put into a tower, and the sizes that it may ask for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from vislang.errors import UserError
from vislang.models.anatomy import Block

SEATS = ("query", "key", "value", "out", "ffn_in", "ffn_out", "hidden", "ffn", "norm", "prefix")


@dataclass
class Plan:
    """Parts by seat for each block, and parts of the tower as a whole.

    Attributes:
        blocks: seat -> part, one mapping a block.
        shared: name -> part that several blocks use; "embedding" acts on the input of the first.
    """

    blocks: Sequence[Mapping[str, nn.Module]]
    shared: dict[str, nn.Module] = field(default_factory=dict)


def sizes(block: Block, seat: str) -> tuple[int, int]:
    """(input features, output features) of the layer at a seat."""
    layers = {"out": block.out, "ffn_in": block.ffn_in, "ffn_out": block.ffn_out}
    if seat in layers:
        return layers[seat].in_features, layers[seat].out_features
    if block.kind == "separate":
        layer = block.projections[("query", "key", "value").index(seat)]
        return layer.in_features, layer.out_features
    if block.kind == "layer":
        return block.projections[0].in_features, block.projections[0].out_features // 3
    return block.width, block.width


def same_width(blocks: list[Block], what: str) -> int:
    """The width that all blocks have, or a UserError."""
    widths = {block.width for block in blocks}
    if len(widths) > 1:
        raise UserError(
            f"{what} needs blocks of one width; this tower's have {sorted(widths)}."
            " Use lora, ia3, bottleneck or compacter."
        )
    return widths.pop()


def positive(what: str, **values: int) -> None:
    """Refuse options that must be at least 1."""
    for name, value in values.items():
        if value < 1:
            raise UserError(f"{name} of the adapter {what} must be at least 1, got {value}.")


def divided(width: int, reduction: int, what: str) -> int:
    """width / reduction, at least 1."""
    positive(what, reduction=reduction)
    if reduction > width:
        raise UserError(
            f"reduction of the adapter {what} is {reduction}, but a block has only {width}"
            " features. Give a smaller one."
        )
    return width // reduction
