"""Where the parts of a transformer are: blocks, attention, feed-forward network, in any library.

B: samples, L: tokens, D: width, H: heads.

Nothing here goes by the class of a model.  A *block* is an item of a list of modules that holds an
attention and a feed-forward network; an attention is known by its projections, which have one
packed weight (`in_proj_weight`), one packed layer (`qkv`), or a layer each (`query`, `key` ...).
"""

from dataclasses import dataclass

from torch import nn

from vislang.errors import UserError

SEPARATE = (
    ("query", "key", "value"),
    ("query_proj", "key_proj", "value_proj"),
    ("q_proj", "k_proj", "v_proj"),
    ("q_lin", "k_lin", "v_lin"),
    ("q", "k", "v"),
)
PACKED = ("qkv", "Wqkv", "qkv_proj", "in_proj")
OUT = ("out_proj", "proj", "o_proj", "out_lin", "Wo", "o", "dense")
HEADS = ("num_heads", "heads", "num_attention_heads", "n_heads")
LISTS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)


@dataclass(frozen=True, eq=False)
class Block:
    """The parts of one block.

    Attributes:
        name: dotted name in the tower.
        module: the block.
        attention: the module that holds the projections.
        kind: "weight" (packed parameter), "layer" (packed layer) or "separate".
        projections: the layers of queries, keys and values; the packed layer alone; or nothing.
        out: the layer behind the attention.
        ffn_in, ffn_out: the first and the last layer of the feed-forward network.
        ffn: what is called as ffn(x) -> y with both layers inside; None if nothing is.
        closing: where there is no `ffn`, the module that is called with the hidden features and
            with the network's input, and ends in norm(ffn_out(hidden) + input): BERT's.
        closing_norm: the norm inside `closing`.
        width: D.
        heads: H, or 0 where it cannot be told.
    """

    name: str
    module: nn.Module
    attention: nn.Module
    kind: str
    projections: tuple[nn.Linear, ...]
    out: nn.Linear
    ffn_in: nn.Linear
    ffn_out: nn.Linear
    ffn: nn.Module | None
    closing: nn.Module | None
    closing_norm: nn.Module | None
    width: int
    heads: int


def find_blocks(tower: nn.Module) -> list[Block]:
    """The transformer blocks of a tower, from its input to its output; none if it has none."""
    names = {module: name for name, module in tower.named_modules()}
    blocks: dict[str, Block] = {}
    for name, module in tower.named_modules():
        kind = attention_kind(module)
        if kind and (block := _block_around(tower, name, module, kind, names)):
            blocks.setdefault(block.name, block)
    return list(blocks.values())


def require_blocks(tower: nn.Module, what: str) -> list[Block]:
    """The blocks of a tower that must have some, or a UserError that says for what."""
    blocks = find_blocks(tower)
    if not blocks:
        inner = type(getattr(tower, "model", tower)).__name__
        raise UserError(
            f"{what} needs a tower made of transformer blocks; {inner} has none that could be"
            " found. Choose a transformer (scratch_vit, scratch_text, a ViT of open_clip or timm,"
            " a BERT of huggingface), or leave it out."
        )
    return blocks


def attention_kind(module: nn.Module) -> str:
    """ "weight", "layer", "separate", or "" for what is no attention."""
    if isinstance(getattr(module, "in_proj_weight", None), nn.Parameter):
        return "weight"
    if any(isinstance(module._modules.get(name), nn.Linear) for name in PACKED):
        return "layer"
    return "separate" if _separate(module) else ""


def _separate(module: nn.Module) -> tuple[nn.Linear, ...]:
    for names in SEPARATE:
        found = [module._modules.get(name) for name in names]
        if all(isinstance(layer, nn.Linear) for layer in found):
            return tuple(found)  # type: ignore[arg-type]
    return ()


def _block_around(
    tower: nn.Module, name: str, attention: nn.Module, kind: str, names: dict[nn.Module, str]
) -> Block | None:
    """The nearest enclosing item of a list that also holds a feed-forward network."""
    out = _out_layer(tower, name, attention)
    if out is None:
        return None
    width = out.out_features
    path = name.split(".") if name else []
    for end in range(len(path), 0, -1):
        if not isinstance(tower.get_submodule(".".join(path[: end - 1])), LISTS):
            continue
        block = tower.get_submodule(".".join(path[:end]))
        inside = set(attention.modules()) | {out}
        layers = [m for m in block.modules() if isinstance(m, nn.Linear) and m not in inside]
        first = next((m for m in layers if m.in_features == width), None)
        last = next((m for m in reversed(layers) if m.out_features == width), None)
        if first is None or last is None or first is last:
            continue
        ffn = _smallest_with(block, names[first], names[last], tower, names)
        closing = None if ffn else tower.get_submodule(names[last].rpartition(".")[0])
        norm = None
        if closing is not None and closing is not block:
            norm = next((m for m in closing.children() if "norm" in type(m).__name__.lower()), None)
        return Block(
            name=".".join(path[:end]),
            module=block,
            attention=attention,
            kind=kind,
            projections=_projections(attention, kind),
            out=out,
            ffn_in=first,
            ffn_out=last,
            ffn=ffn,
            closing=closing if norm is not None else None,
            closing_norm=norm,
            width=width,
            heads=next((int(getattr(attention, h)) for h in HEADS if hasattr(attention, h)), 0),
        )
    return None


def _projections(attention: nn.Module, kind: str) -> tuple[nn.Linear, ...]:
    if kind == "layer":
        packed = (attention._modules.get(name) for name in PACKED)
        return (next(layer for layer in packed if isinstance(layer, nn.Linear)),)
    return _separate(attention) if kind == "separate" else ()


def _out_layer(tower: nn.Module, name: str, attention: nn.Module) -> nn.Linear | None:
    """The output layer inside the attention, or in a module beside it (BERT's `output.dense`)."""
    for key in OUT:
        if isinstance(layer := attention._modules.get(key), nn.Linear):
            return layer
    beside = tower.get_submodule(name.rpartition(".")[0])._modules.get("output") if name else None
    layer = None if beside is None else beside._modules.get("dense")
    return layer if isinstance(layer, nn.Linear) else None


def _smallest_with(
    block: nn.Module, first: str, last: str, tower: nn.Module, names: dict[nn.Module, str]
) -> nn.Module | None:
    """The smallest module below `block` that holds the layers of both names."""
    left, right = first.split("."), last.split(".")
    shared = 0
    while left[shared] == right[shared]:
        shared += 1
    found = tower.get_submodule(".".join(left[:shared]))
    return None if found is block or isinstance(found, nn.ModuleList) else found
