"""One embedding for each segment of a picture, from one pass through a vision transformer.

Each segment gets a token that starts as the class token and, in every block, attends to the patch
tokens under the segment and to itself; it changes nothing else (Li et al. 2022, arXiv:2204.03647).
The published code gives that attention an N x (patches + N) mask for N segments. Here:

* segments that own the same tokens are one (of a ViT-B/32's 3,731 segments 333 remain);
* attention is computed for the pairs (segment, token) that exist, some 10,000, not N · patches;
* in the first block all segments of a picture share queries, keys and values;
* the patch tokens are not computed beyond the last block's keys and values.

S: distinct segments of all pictures, P: pairs, N: segments, L: levels, D: width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vislang.errors import UserError
from vislang.localize.vit import Vit, VitBlock

if TYPE_CHECKING:
    from jaxtyping import Float, Int

MEMBERSHIPS = ("sampled", "area")


@dataclass(frozen=True)
class Pairs:
    """Which tokens the distinct segments of one picture own.

    Args:
        segment: int64 [P], ascending: which distinct segment.
        token: int64 [P]: which patch token.
        bias: float32 [P] added to the attention's logits, or None.
        distinct: S.
        index: int64 [N]: the distinct segment of each segment.
        starts: int64 [L]: the first segment of each level.
    """

    segment: np.ndarray
    token: np.ndarray
    bias: np.ndarray | None
    distinct: int
    index: np.ndarray
    starts: np.ndarray


def pair_up(
    maps: Int[np.ndarray, "L H W"], grid: tuple[int, int], membership: str = "sampled"
) -> Pairs:
    """The tokens of each segment.

    Args:
        maps: label maps, from 0 on in each level.
        grid: tokens (down, across).
        membership: sampled: a token belongs to the segment that lies at its cell's corner
            (published; small segments then own nothing). area: it belongs to every segment that
            reaches into its cell, by the share of the cell (added to the logits as its log).
    """
    counts = np.array([int(m.max()) + 1 for m in maps])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    if membership == "sampled":
        return _sampled(maps, grid, counts, starts)
    if membership != "area":
        raise UserError(f"membership must be one of {', '.join(MEMBERSHIPS)}, got {membership!r}.")
    height, width = maps.shape[1:]
    rows, columns = (np.arange(n) * g // n for n, g in zip((height, width), grid))
    cell = rows[:, None] * grid[1] + columns[None]
    size = np.bincount(cell.ravel(), minlength=grid[0] * grid[1])
    segment, token, share = [], [], []
    for labels, count, start in zip(maps, counts, starts):
        tokens = grid[0] * grid[1]
        both = np.bincount((labels * tokens + cell).ravel(), minlength=count * tokens)
        there = np.flatnonzero(both)
        segment.append(there // tokens + start)
        token.append(there % tokens)
        share.append(both[there] / size[there % tokens])
    bias = np.log(np.concatenate(share)).astype(np.float32)
    total = int(counts.sum())
    return Pairs(
        np.concatenate(segment), np.concatenate(token), bias, total, np.arange(total), starts
    )


def _sampled(
    maps: np.ndarray, grid: tuple[int, int], counts: np.ndarray, starts: np.ndarray
) -> Pairs:
    rows, columns = (np.arange(g) * n // g for n, g in zip(maps.shape[1:], grid))
    seen: dict[bytes, int] = {}
    lists: list[np.ndarray] = []
    index = np.empty(int(counts.sum()), np.int64)
    for labels, count, start in zip(maps, counts, starts):
        at = labels[np.ix_(rows, columns)].ravel()
        order = np.argsort(at, kind="stable")
        edges = np.searchsorted(at[order], np.arange(count + 1))
        for label in range(count):
            tokens = order[edges[label] : edges[label + 1]]
            key = tokens.tobytes()
            if key not in seen:
                seen[key] = len(lists)
                lists.append(tokens)
            index[start + label] = seen[key]
    segment = np.repeat(np.arange(len(lists)), [len(tokens) for tokens in lists])
    return Pairs(segment, np.concatenate(lists), None, len(lists), index, starts)


def embed_segments(
    vit: Vit,
    images: Tensor,
    pairs: Sequence[Pairs],
    *,
    upsample: int = 2,
    start_block: int = 0,
    half: bool = False,
) -> list[Tensor]:
    """Embeddings [S, D'] of each picture's distinct segments, not normalised.

    Args:
        vit: the transformer.
        images: uint8 [B, 3, H, W].
        pairs: for each picture, on the token grid that `upsample` leads to.
        upsample: tokens per patch and axis.
        start_block: the block in which segments start as the class token is there.
        half: see `Vit.tokens`.
    """
    if not 0 <= start_block < len(vit.blocks):
        raise UserError(f"start_block must be in 0 ... {len(vit.blocks) - 1}, got {start_block}.")
    x, grid = vit.tokens(images, upsample, padded=True, half=half)
    patches = grid[0] * grid[1]
    device = x.device
    sizes = [p.distinct for p in pairs]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    segment = torch.from_numpy(np.concatenate([p.segment + o for p, o in zip(pairs, offsets)]))
    token = torch.from_numpy(np.concatenate([p.token + b * patches for b, p in enumerate(pairs)]))
    owner = torch.repeat_interleave(torch.arange(len(pairs)), torch.tensor(sizes)).to(device)
    bias = None
    if pairs[0].bias is not None:
        bias = torch.from_numpy(np.concatenate([p.bias for p in pairs if p.bias is not None]))
        bias = bias.to(device)
    segment, token = segment.to(device), token.to(device)
    g: Tensor | None = None
    for place, block in enumerate(vit.blocks):
        qkv = block.qkv(x)
        if place >= start_block:
            if g is None:
                g, own = x[owner, 0], qkv[owner, 0]
            else:
                own = block.qkv(g)
            seen = _attend(block, own, qkv[:, 1:].flatten(0, 1), segment, token, bias)
            g = block.finish(g + block.scale1(block.out(seen)))
        if place + 1 < len(vit.blocks):
            x = block.finish(x + block.attend(qkv))
    assert g is not None
    return list(vit.project(g).split(sizes))


def _attend(
    block: VitBlock,
    own: Float[Tensor, "S D3"],
    patches: Float[Tensor, "T D3"],
    segment: Int[Tensor, " P"],
    token: Int[Tensor, " P"],
    bias: Float[Tensor, " P"] | None,
) -> Tensor:
    """softmax(q · [keys of its tokens, own key] / sqrt(d)) · values, for each segment [S, D].

    Pairs are walked through in pieces, so that memory stays small for many pictures.
    """
    q, k, v = own.unflatten(-1, (3, block.heads, -1)).unbind(1)
    keys, values = patches.unflatten(-1, (3, block.heads, -1))[:, 1:].unbind(1)
    scale = q.shape[-1] ** -0.5
    itself = (q * k).sum(-1).float() * scale
    logits = (
        torch.cat(
            [
                (q[s] * keys[t]).sum(-1).float()
                for s, t in zip(segment.split(1 << 14), token.split(1 << 14))
            ]
        )
        * scale
    )
    if bias is not None:
        logits = logits + bias[:, None]
    rows = segment[:, None].expand_as(logits)
    top = itself.scatter_reduce(0, rows, logits, "amax")
    part, alone = (logits - top[segment]).exp(), (itself - top).exp()
    norm = alone.index_add(0, segment, part)
    out = (alone / norm)[..., None] * v
    weight = (part / norm[segment])[..., None]
    for at in range(0, len(segment), 1 << 14):
        piece = slice(at, at + (1 << 14))
        out = out.index_add(0, segment[piece], (weight[piece] * values[token[piece]]).to(out.dtype))
    return out.flatten(1).to(own.dtype)
