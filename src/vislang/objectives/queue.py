"""A first-in-first-out memory of embeddings.  K: rows it holds, D: width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislang.errors import UserError


class Queue(nn.Module):
    """The newest K rows, written in place over the oldest; saved with the objective.

    `push` only notes the rows; `commit`, called from `Objective.after_step`, writes them. The
    logits of a step are made with `rows` as they were before it, and autograd reads `rows`
    again in the backward pass, so writing earlier would either be an error or need a copy of
    the whole memory every step. K need not be a multiple of the batch: writing wraps around,
    and of a batch longer than K the last K rows stay.

    Args:
        size: K.
        width: D.

    Attributes:
        rows: [K, D]; unit rows of Gaussian noise until they are overwritten.
        position: where the next row goes, in [0, K).
        written: rows written so far, at most K.
    """

    def __init__(self, size: int, width: int):
        super().__init__()
        if size < 1:
            raise UserError(f"A queue must hold at least 1 row, got {size!r}.")
        self.rows: Tensor
        self.position: Tensor
        self.written: Tensor
        self.register_buffer("rows", F.normalize(torch.randn(size, width), dim=-1))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))
        self.register_buffer("written", torch.zeros((), dtype=torch.int64))
        self._waiting: Tensor | None = None

    @property
    def full(self) -> bool:
        """Whether no noise is left."""
        return int(self.written) == len(self.rows)

    def push(self, rows: Tensor) -> None:
        """Note the rows [B, D] that the next `commit` will write."""
        self._waiting = rows.detach()

    @torch.no_grad()
    def commit(self) -> None:
        """Write the noted rows, if any, in place."""
        if self._waiting is None:
            return
        new = self._waiting[-len(self.rows) :]
        places = torch.arange(len(new), device=new.device) + self.position
        self.rows.index_copy_(0, places % len(self.rows), new.to(self.rows.dtype))
        self.position.copy_((self.position + len(new)) % len(self.rows))
        self.written.add_(len(new)).clamp_(max=len(self.rows))
        self._waiting = None

    @torch.no_grad()
    def nearest(self, rows: Tensor, block: int = 4096) -> Tensor:
        """The stored row with the largest cosine to each of `rows` [B, D], found in blocks of
        the queue so that B x K scores are never held at once."""
        rows = F.normalize(rows.detach(), dim=-1)
        best = rows.new_full((len(rows),), -torch.inf)
        place = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
        for start in range(0, len(self.rows), block):
            value, index = (rows @ self.rows[start : start + block].T).max(1)
            better = value > best
            best = torch.where(better, value, best)
            place = torch.where(better, index + start, place)
        return self.rows[place]
