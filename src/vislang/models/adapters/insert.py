"""Putting adapters into a tower."""

from typing import Any

import torch
from torch import Tensor, nn

from vislang.errors import UserError
from vislang.lookup import lookup
from vislang.models.adapters import ADAPTERS
from vislang.models.adapters.attention import PROJECTIONS, BlockAdapters, take_over
from vislang.models.adapters.plan import sizes
from vislang.models.anatomy import Block, require_blocks
from vislang.models.build import call

TRANSFORMERS_NAME = "vislang_prefix"


class Adapters(nn.Module):
    """The adapters of one tower, its child `adapters`.

    Attributes:
        name: of the method.
        options: its options.
        blocks: the parts of each block by seat.
    """

    def __init__(self, name: str, options: dict[str, Any], blocks: list[BlockAdapters]):
        super().__init__()
        self.name, self.options = name, dict(options)
        self.blocks = nn.ModuleList(blocks)
        self.handles: list[Any] = []
        self._watching: list[Any] = []
        self._unused: set[str] = set()

    def watch(self, tower: nn.Module) -> None:
        """Have the tower's first forward pass tell whether every part was reached.

        A library may use the weights of a layer without calling it; a hook there would never
        run, and the part would stay as it was without a word.
        """
        parts = {
            f"{i}.{seat}": part
            for i, block in enumerate(self.blocks)
            for seat, part in block.items()  # type: ignore[operator]
        }
        if hasattr(self, "embedding"):
            parts["0.embedding"] = self.embedding
        self._unused = set(parts)
        for name, part in parts.items():
            self._watching.append(part.register_forward_hook(_Seen(self, name).seen))
        self._watching.append(tower.register_forward_hook(self.check_use))

    def check_use(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Hook behind the tower's first forward pass."""
        for handle in self._watching:
            handle.remove()
        self._watching.clear()
        if self._unused:
            seats = sorted({name.partition(".")[2] for name in self._unused})
            raise UserError(
                f"The adapter {self.name!r} has parts at {', '.join(seats)} that this tower never"
                " runs through: its library uses those weights without calling the layer. Use"
                " another adapter, such as bottleneck."
            )

    def before_first(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Hook on the first block: its input goes through the shared part `embedding`."""
        part: Any = self.embedding
        if args:
            return (part(args[0]), *args[1:]), kwargs
        key = next(iter(kwargs))
        return args, kwargs | {key: part(kwargs[key])}


def insert_adapters(
    tower: nn.Module, name: str, options: dict[str, Any] | None = None, trusted: bool = True
) -> Adapters:
    """Put adapters into a tower, as its child `adapters`; the tower's own names stay.

    The tower's own weights are left as they are, trainable or not (`lock_tower` locks them).

    Args:
        tower: any tower made of transformer blocks.
        name: a key of ADAPTERS.
        options: the method's own.
        trusted: whether the user typed the name; only then may it name any import.

    Raises:
        UserError: no blocks, an unknown method or option, adapters are there already, or the
            method cannot sit in this tower's attention.
    """
    if isinstance(getattr(tower, "adapters", None), Adapters):
        raise UserError("The tower has adapters already. Merge them first, or build it anew.")
    build = lookup("adapter", ADAPTERS, name, trusted=trusted)
    what = f"The adapter {name!r}"
    blocks = require_blocks(tower, what)
    own = next(tower.parameters())
    with torch.device(own.device):
        plan = call(build, f"adapter {name!r}", options or {}, blocks=blocks)
    placed = [BlockAdapters(block, dict(parts)) for block, parts in zip(blocks, plan.blocks)]
    adapters = Adapters(name, options or {}, placed)
    for key, part in plan.shared.items():
        adapters.add_module(key, part)
    tower.adapters = adapters.to(own.dtype)
    for parts in placed:
        adapters.handles += _attach(parts, what)
    if "embedding" in plan.shared:
        first = blocks[0].module
        adapters.handles.append(
            first.register_forward_pre_hook(adapters.before_first, with_kwargs=True)
        )
    if any("prefix" in parts for parts in placed):
        _tell_transformers(tower, placed, what)
    adapters.watch(tower)
    return adapters


def _attach(parts: BlockAdapters, what: str) -> list[Any]:
    """Hooks for the parts of one block, and its attention taken over where hooks do not reach."""
    block = parts.block
    handles = []
    projected = any(seat in parts for seat in PROJECTIONS)
    if block.kind == "weight":
        called = not isinstance(block.attention, nn.MultiheadAttention)
        if projected or "prefix" in parts or ("out" in parts and not called):
            take_over(parts, what)
    elif block.kind == "layer":
        if projected:
            if block.projections[0].out_features % 3:
                raise UserError(f"{what} needs queries, keys and values of one size ({block.name})")
            handles.append(block.projections[0].register_forward_hook(parts.after_packed))
        if "prefix" in parts:
            take_over(parts, what)
    else:
        for seat, layer in zip(PROJECTIONS, block.projections):
            if seat in parts:
                handles.append(layer.register_forward_hook(_Hook(parts[seat]).after))
    layers = {"out": block.out, "ffn_in": block.ffn_in, "ffn_out": block.ffn_out}
    for seat, layer in layers.items():
        if seat in parts:
            handles.append(layer.register_forward_hook(_Hook(parts[seat]).after))
    if "hidden" in parts:
        hook = _Hook(parts["hidden"]).hidden
        handles.append(block.ffn_out.register_forward_pre_hook(hook))
    if "norm" in parts:
        assert block.closing_norm is not None
        handles.append(block.closing_norm.register_forward_hook(_Hook(parts["norm"]).norm))
    if "ffn" in parts:
        handles.append(_beside_ffn(block, _Hook(parts["ffn"]), what))
    return handles


class _Seen:
    """Takes a part off the list of those that were not reached."""

    def __init__(self, adapters: Adapters, name: str):
        self.adapters, self.name = adapters, name

    def seen(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Hook behind the part."""
        self.adapters._unused.discard(self.name)


class _Hook:
    """A part's ways of being called by a module that it hooks.

    Bound methods, unlike closures, are copied along with the model (`copy.deepcopy`), and then
    call the copy's part.
    """

    def __init__(self, part: nn.Module):
        self.part = part

    def after(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Behind a layer: x its input, y its output."""
        return self.part(args[0], output)

    def hidden(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Before a layer: y its input."""
        return (self.part(None, args[0]), *args[1:])

    def norm(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """At a norm: norm(y + change(norm(y))), y being its input."""
        return module.forward(self.part(output, args[0]))

    def closing(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Before BERT's `output`, which ends in norm(ffn_out(hidden) + x): x is changed."""
        hidden, x = args
        return hidden, self.part(x, x)


def _beside_ffn(block: Block, hook: _Hook, what: str) -> Any:
    if block.ffn is not None:
        return block.ffn.register_forward_hook(hook.after)
    if block.closing is not None:
        return block.closing.register_forward_pre_hook(hook.closing)
    raise UserError(
        f"{what} sits beside the feed-forward network, which {type(block.module).__name__} does"
        " not have as a part of its own. Use bottleneck, lora or prefix_tuning."
    )


def _tell_transformers(tower: nn.Module, placed: list[BlockAdapters], what: str) -> None:
    """Let attentions of transformers see the prefix, through the library's own interface."""
    separate = [parts for parts in placed if parts.block.kind == "separate"]
    for parts in placed:
        key = sizes(parts.block, "key")[1]
        if not parts.block.heads or key != parts.block.width:
            raise UserError(
                f"{what} needs keys as wide as the tokens, {parts.block.width}; those of"
                f" {parts.block.name} have {key}. Use lora, bottleneck or compacter."
            )
    if not separate:
        return
    if not any(getattr(module, "_supports_attention_backend", False) for module in tower.modules()):
        raise UserError(
            f"{what} cannot sit in {type(separate[0].block.attention).__name__}: this model of"
            " transformers has an attention of its own. Use lora, bottleneck or compacter."
        )
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(TRANSFORMERS_NAME, _attention_of_transformers)
    AttentionMaskInterface.register(TRANSFORMERS_NAME, sdpa_mask)
    for parts in separate:
        attention: Any = parts.block.attention
        attention.prefix_parts = (parts,)
        attention.config._attn_implementation = TRANSFORMERS_NAME


def _attention_of_transformers(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The library's fused attention over the prefix and the keys."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    causal = bool(causal) and attention_mask is None and query.shape[2] > 1
    found: Any = getattr(module, "prefix_parts", None)
    if found:
        key, value, attention_mask, causal = found[0].widen(
            key, value, attention_mask, causal, query.shape[2]
        )
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, is_causal=causal, **kwargs
    )
