"""Objectives one part of which looks at samples one by one, so that it need not be gathered.

A contrast compares every row with every other, so the seam gathers embeddings, D numbers a row.
Token logits of a caption are L · V numbers a row and compare with nothing: gathering them, or
keeping those of all chunks, would only cost memory. Such an objective splits its loss,

    loss = across(gathered keys) + Σ over pieces of within(total, piece)

where a piece is any set of rows (a chunk of one process) and `total` counts the terms of the
global batch. The seam may then, on each process,

1. add up `count` of its rows, sum over processes: `total`;
2. gather only the keys that are not `per_sample`, take the gradient of `across` for its rows;
3. when it replays a chunk, back-propagate  Σ e·dL/de + within(total, chunk)  at once.

Chunked = whole and many processes = one hold exactly, as for everything else. `forward` is the
same loss for those who hold the whole batch.
"""

from __future__ import annotations

from torch import Tensor

from vislang.objectives.objective import Objective


class PerSample(Objective):
    """An objective with a part that is a sum over samples.

    Attributes:
        per_sample: those of `needs` that are not gathered.
        counted: those of `per_sample` that `count` looks at, the cheap ones.
    """

    per_sample: tuple[str, ...] = ()
    counted: tuple[str, ...] = ()

    @property
    def gathered(self) -> tuple[str, ...]:
        """Those of `needs` whose global batch `across` wants."""
        return tuple(key for key in self.needs if key not in self.per_sample)

    def count(self, **rows: Tensor) -> Tensor:
        """Number of terms in these rows (a scalar, or a vector for a sum of such objectives); takes
        the `counted` keys. Counts of pieces and processes add up to the `total` of `within`."""
        raise NotImplementedError

    def across(self, **rows: Tensor) -> Tensor:
        """The part of the loss that sees the global batch; takes the `gathered` keys."""
        raise NotImplementedError

    def within(self, total: Tensor, **rows: Tensor) -> Tensor:
        """The part of these rows alone, given the number of terms in the global batch."""
        raise NotImplementedError

    def forward(self, **rows: Tensor) -> Tensor:
        """The whole loss, for a batch that is all there."""
        own = {key: rows[key] for key in self.per_sample}
        total = self.count(**{key: rows[key] for key in self.counted})
        loss = self.across(**{key: rows[key] for key in self.gathered})
        rest = self.within(total, **own)
        self.parts = {**self.parts, "per_sample": rest.detach()}
        return loss + rest
