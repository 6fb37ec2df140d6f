"""Attention with parts at its seats, for every library's way of calling it.

B: samples, L: tokens, D: width, H: heads, P: prefix length.

Where an attention keeps the weights of queries, keys and values in one packed parameter, no layer
is called that a hook could watch; and a prefix needs the keys and values themselves.  There the
attention's `forward` is computed here, with the attention's own weights under their own names.
"""

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislang.errors import UserError
from vislang.models.anatomy import Block
from vislang.models.transformer import Attention

PROJECTIONS = ("query", "key", "value")


class BlockAdapters(nn.ModuleDict):
    """The parts of one block by seat; `attach` puts them to work."""

    def __init__(self, block: Block, parts: dict[str, nn.Module]):
        super().__init__(parts)
        self._block = (block,)  # in a tuple: the block stays a part of the tower alone

    @property
    def block(self) -> Block:
        """Where the parts sit."""
        return self._block[0]

    def change(self, seat: str, x: Tensor, y: Tensor) -> Tensor:
        """What the part at `seat` makes of y, which came of x; y itself if there is none."""
        return self[seat](x, y) if seat in self else y

    def widen(
        self, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, queries: int
    ) -> tuple[Tensor, Tensor, Tensor | None, bool]:
        """The prefix before keys and values [B, H, L, d], which every query may see."""
        if "prefix" not in self:
            return key, value, mask, causal
        length = key.shape[2]
        if causal and mask is None:
            mask = torch.ones(queries, length, dtype=torch.bool, device=key.device).tril()
        key, value = self["prefix"](key, value)
        if mask is not None:
            mask = F.pad(mask, (key.shape[2] - length, 0), value=mask.dtype == torch.bool)
        return key, value, mask, False

    def project(self, x_q: Tensor, x_k: Tensor, x_v: Tensor) -> list[Tensor]:
        """Queries, keys and values [B, L, D] by a packed weight, changed at their seats."""
        attention: Any = self.block.attention
        weight, bias = attention.in_proj_weight, attention.in_proj_bias
        inputs = (x_q, x_k, x_v)
        if x_q is x_k and x_k is x_v:
            made = F.linear(x_q, weight, bias).chunk(3, dim=-1)
        else:
            biases = (None, None, None) if bias is None else bias.chunk(3)
            made = [F.linear(*parts) for parts in zip(inputs, weight.chunk(3), biases)]
        return [self.change(seat, x, y) for seat, x, y in zip(PROJECTIONS, inputs, made)]

    def attend(
        self, made: list[Tensor], mask: Tensor | None, causal: bool = False, dropout: float = 0.0
    ) -> Tensor:
        """softmax(Q [P; K]ᵀ / sqrt(d)) [P'; V], heads joined: [B, L, D].

        Args:
            made: queries, keys and values [B, L, D].
            mask: true where a key may be seen, or added to the logits.
            causal: a token sees itself and those before it; not together with `mask`.
            dropout: of the attention weights.
        """
        q, k, v = (rows.unflatten(-1, (self.block.heads, -1)).transpose(1, 2) for rows in made)
        k, v, mask, causal = self.widen(k, v, mask, causal, q.shape[2])
        x = F.scaled_dot_product_attention(q, k, v, mask, dropout, causal)
        return x.transpose(1, 2).flatten(2)

    # How each library calls its attention.

    def scratch(self, x: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """`transformer.Attention.forward`."""
        return self.block.out(self.attend(self.project(x, x, x), mask, causal))

    def scratch_one(self, query: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
        """`transformer.Attention.one`."""
        return self.block.out(self.attend(self.project(query, x, x), mask))

    def open_clip(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """open_clip's own attention."""
        attention: Any = self.block.attention
        q, k, v = self.project(x, x, x)
        heads = (self.block.heads, -1)
        q = attention.ln_q(q.unflatten(-1, heads)).flatten(2)
        k = attention.ln_k(k.unflatten(-1, heads)).flatten(2)
        mask = _visible(attn_mask, x)
        if mask is not None and mask.ndim == 3:
            mask = mask.unflatten(0, (len(x), -1))
        dropout = attention.attn_drop.p if attention.training else 0.0
        return attention.out_drop(self.block.out(self.attend([q, k, v], mask, False, dropout)))

    def multihead(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """torch.nn.MultiheadAttention; the weights that it would also return are not given."""
        attention: Any = self.block.attention
        self_attention = query is key and key is value
        if not attention.batch_first:
            query, key, value = (rows.transpose(0, 1) for rows in (query, key, value))
        if self_attention:
            key = value = query
        mask = _visible(attn_mask, query)
        if mask is not None and mask.ndim == 3:
            mask = mask.unflatten(0, (len(query), -1))
        if key_padding_mask is not None:
            hidden = _visible(key_padding_mask, query)
            hidden = hidden[:, None, None]  # type: ignore[index]
            mask = hidden if mask is None else mask + hidden
        dropout = attention.dropout if attention.training else 0.0
        x = self.attend(self.project(query, key, value), mask, False, dropout)
        x = self.block.out(x)
        return (x if attention.batch_first else x.transpose(0, 1)), None

    def timm(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """timm's attention; its packed layer is called, so that hooks on it work."""
        attention: Any = self.block.attention
        q, k, v = attention.qkv(x).unflatten(-1, (3, self.block.heads, -1)).unbind(2)
        made = [attention.q_norm(q).flatten(2), attention.k_norm(k).flatten(2), v.flatten(2)]
        dropout = attention.attn_drop.p if attention.training else 0.0
        x = self.attend(made, attn_mask, is_causal, dropout)
        norm = getattr(attention, "norm", None)
        return attention.proj_drop(self.block.out(x if norm is None else norm(x)))

    def after_packed(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Hook on a packed layer: each third of its output is changed at its seat."""
        parts = zip(PROJECTIONS, output.chunk(3, dim=-1))
        return torch.cat([self.change(seat, args[0], y) for seat, y in parts], dim=-1)


def _visible(mask: Tensor | None, x: Tensor) -> Tensor | None:
    """PyTorch's mask (true: hidden) as one that is added to the logits."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=x.dtype).masked_fill(mask, float("-inf"))


def take_over(adapters: BlockAdapters, what: str) -> None:
    """Have the attention of a block with packed weights, or a prefix, computed here."""
    attention = adapters.block.attention
    found: Any = attention  # assigning a method is what is meant
    takes = list(inspect.signature(attention.forward).parameters)
    if isinstance(attention, Attention):
        found.forward, found.one = adapters.scratch, adapters.scratch_one
    elif isinstance(attention, nn.MultiheadAttention) and _none(attention, "bias_k", "bias_v"):
        found.forward = adapters.multihead
    elif takes == ["x", "attn_mask"] and _is_open_clip(attention):
        found.forward = adapters.open_clip
    elif (
        takes[:2] == ["x", "attn_mask"] and takes[2:] in ([], ["is_causal"]) and _is_timm(attention)
    ):
        found.forward = adapters.timm
    else:
        raise UserError(
            f"{what} cannot sit in the attention {type(attention).__name__} of"
            f" {adapters.block.name}. Use an adapter that stays outside of it: bottleneck,"
            " language or compacter."
        )


def _is_open_clip(attention: Any) -> bool:
    plain = _none(attention, "logit_scale", "head_scale")
    return plain and isinstance(getattr(attention, "ln_inner", None), nn.Identity)


def _is_timm(attention: Any) -> bool:
    parts = ("qkv", "q_norm", "k_norm", "attn_drop", "proj_drop")
    return all(hasattr(attention, part) for part in parts) and _none(attention, "gate")


def _none(attention: nn.Module, *names: str) -> bool:
    return all(getattr(attention, name, None) is None for name in names)
