"""The pre-norm transformer that both towers from scratch are made of.

B: samples, L: tokens, D: width, H: heads.

Parameters carry the names that CLIP gave them, so that a checkpoint maps onto open_clip's
without a table.  Radford et al. 2021, arXiv:2103.00020; Vaswani et al. 2017, arXiv:1706.03762.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vislang.errors import UserError


class Attention(nn.Module):
    """Multi-head attention: softmax(Q Kᵀ / sqrt(D / H)) V, then a linear layer."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """[B, L, D] -> [B, L, D]; `mask` is true where a key may be seen."""
        batch, length, width = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.out_proj(x.transpose(1, 2).reshape(batch, length, width))

    def one(self, query: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
        """The output of a single query a sample: query [B, 1, D], keys x [B, L, D]."""
        batch, length, width = x.shape
        weight, bias = self.in_proj_weight, self.in_proj_bias
        q = F.linear(query, weight[:width], bias[:width])
        kv = F.linear(x, weight[width:], bias[width:])
        q = q.view(batch, 1, self.heads, -1).transpose(1, 2)
        k, v = kv.view(batch, length, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(x.transpose(1, 2).reshape(batch, 1, width))


class Mlp(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        return self.c_proj(F.gelu(self.c_fc(x)))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, mlp_width: int, dropout: float):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, mlp_width)
        self.drop = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, mask: Tensor | None, causal: bool, row: Tensor | None = None
    ) -> Tensor:
        """[B, L, D] -> [B, L, D], or with `row` [B] only that token of each sample, [B, D]."""
        if row is not None:  # in here, so that hooks on the block see the last one, too
            return self.one(x, row, mask)
        x = x + self.drop(self.attn(self.ln_1(x), mask, causal))
        return x + self.drop(self.mlp(self.ln_2(x)))

    def one(self, x: Tensor, row: Tensor, mask: Tensor | None) -> Tensor:
        """Only the token `row` [B] of each sample: [B, L, D] -> [B, D], the same numbers."""
        pick = row.view(-1, 1, 1).expand(-1, 1, x.shape[-1])
        normed = self.ln_1(x)
        x = x.gather(1, pick) + self.drop(self.attn.one(normed.gather(1, pick), normed, mask))
        return (x + self.drop(self.mlp(self.ln_2(x)))).squeeze(1)


class Transformer(nn.Module):
    """`depth` blocks, initialised as CLIP's: the deeper, the smaller each residual's share."""

    def __init__(self, width: int, depth: int, heads: int, mlp_width: int, dropout: float):
        super().__init__()
        if width % heads:
            raise UserError(f"heads must divide width, got heads {heads} and width {width}.")
        if depth < 1:
            raise UserError(f"depth must be at least 1, got {depth}.")
        blocks = [Block(width, heads, mlp_width, dropout) for _ in range(depth)]
        self.resblocks = nn.ModuleList(blocks)
        self.grad_checkpointing = False
        for block in blocks:
            nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=(2 * depth * width) ** -0.5)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=(2 * depth * width) ** -0.5)
            for layer in (block.attn.out_proj, block.mlp.c_fc, block.mlp.c_proj):
                nn.init.zeros_(layer.bias)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        row: Tensor | None = None,
        row_mask: Tensor | None = None,
    ) -> Tensor:
        """[B, L, D] -> [B, L, D], or with `row` [B] only that token of each sample, [B, D].

        When a single token is pooled, the last block need not compute the others: of a
        6-block tower that is about a tenth of the time.

        Args:
            x: tokens.
            mask: true where a key may be seen, broadcastable to [B, H, L, L].
            causal: a token sees itself and those before it; not together with `mask`.
            row: which token of each sample is wanted.
            row_mask: the mask of that token's own query, broadcastable to [B, H, 1, L].
        """
        blocks: list[Block] = list(self.resblocks)  # type: ignore[arg-type]
        last = blocks.pop() if row is not None else None
        for block in blocks:
            x = self._run(block, x, mask, causal)
        return x if last is None else self._run(last, x, row_mask, False, row)

    def _run(self, block: Callable[..., Tensor], x: Tensor, *arguments: Any) -> Tensor:
        if self.grad_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(block, x, *arguments, use_reentrant=False)  # type: ignore
        return block(x, *arguments)
