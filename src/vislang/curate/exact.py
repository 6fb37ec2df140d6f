"""Exact nearest neighbours of rows among themselves, faster than comparing all with all.

Three things save work, and none changes the answer:

1. cos(i, j) = cos(j, i): only the blocks on and above the diagonal are multiplied.
2. An upper bound is multiplied instead of the rows. On the leading principal axes P,
   x_i·x_j <= (P x_i)·(P x_j) + r_i r_j  (Cauchy-Schwarz on what P leaves out, r its length),
   which is a product of rows [P x, r] of a quarter of the width. In bf16 its rounding is added.
3. Only pairs whose bound beats the worst neighbour found so far are computed, in float64.

So similarities and the order of ties depend on the two rows alone, not on blocks or threads.

n: rows, D: width, d: width of the bound, K: neighbours kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Float32, Int

# (rows, rows) of pairs -> which of them are allowed
Allowed = Callable[[np.ndarray, np.ndarray], np.ndarray]
Rows = slice | np.ndarray  # from:to, or row numbers
R = TypeVar("R", slice, np.ndarray, Rows)
BLOCK = 1024  # a block of bounds is 4 MB, near to what the second-level caches hold
SAMPLE = 1024  # rows that everything is compared with first, so that later blocks have few hits
_GATHERED = 1 << 16  # pairs computed at a time


class Nearest:
    """The K best pairs of every row so far.

    Equal similarities: the lower row number is the better one.
    """

    def __init__(self, n: int, k: int, threshold: float = -1.0):
        self.threshold = threshold
        self.index = np.full((n, k), -1, np.int64)
        self.similarity = np.full((n, k), -np.inf)

    def worst(self, rows: Rows) -> Float[np.ndarray, " r"]:
        """What a further neighbour of these rows has to reach."""
        return np.maximum(self.similarity[rows, -1], self.threshold)

    def add(
        self,
        row: Int[np.ndarray, " p"],
        column: Int[np.ndarray, " p"],
        similarity: Float[np.ndarray, " p"],
    ) -> None:
        """Offer pairs, known ones among them; each counts for its row only."""
        keep = similarity >= self.worst(row)
        row, column, similarity = row[keep], column[keep], similarity[keep]
        if not len(row):
            return
        touched, local = np.unique(row, return_inverse=True)
        k = self.index.shape[1]
        rows = np.concatenate([np.repeat(np.arange(len(touched)), k), local])
        columns = np.concatenate([self.index[touched].ravel(), column])
        values = np.concatenate([self.similarity[touched].ravel(), similarity])
        order = np.lexsort((columns, -values, rows))
        rows, columns, values = rows[order], columns[order], values[order]
        # A pair that is offered twice has the same similarity, so its twin stands beside it.
        same = (rows[1:] == rows[:-1]) & (columns[1:] == columns[:-1]) & (columns[1:] >= 0)
        fresh = np.concatenate([[True], ~same])
        rows, columns, values = rows[fresh], columns[fresh], values[fresh]
        starts = np.searchsorted(rows, np.arange(len(touched)))
        place = np.arange(len(rows)) - starts[rows]
        best = place < k
        self.index[touched] = -1
        self.similarity[touched] = -np.inf
        self.index[touched[rows[best]], place[best]] = columns[best]
        self.similarity[touched[rows[best]], place[best]] = values[best]

    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(row, column, similarity) of everything found."""
        row, place = np.nonzero(self.index >= 0)
        return row, self.index[row, place], self.similarity[row, place]


@dataclass(frozen=True)
class Bound:
    """Rows whose products are never below the cosines, up to `margin`.

    Args:
        rows: [n, d], a torch tensor on the device that multiplies them.
        margin: most that rounding takes away from a product.
        axes: principal axes in use; D means that the rows are used as they are.
    """

    rows: object
    margin: float
    axes: int


def make_bound(
    x: Float32[np.ndarray, "n D"], precision: str = "fp32", device: str = "cpu"
) -> Bound:
    """The bound that makes the search of unit rows cheapest, by a trial on a sample.

    Args:
        x: rows of length 1.
        precision: fp32 or bf16, of the products.
        device: where they are multiplied.
    """
    import torch

    width = x.shape[1]
    basis, axes = _choose_axes(x)
    if axes < width:
        left = x @ basis[:, :axes]
        rest = np.sqrt(np.maximum(0, 1 + 4e-6 - np.einsum("nd,nd->n", left, left)))
        rows = np.concatenate([left, rest[:, None].astype(np.float32)], axis=1)
    else:
        rows = x
    # The absolute products of two rows sum to at most about 1. Each sum of d of them loses d
    # roundings of 2^-24; bf16 rounds both factors and the result, by 2^-8 each.
    margin = (rows.shape[1] + 8) * 2.0**-24 + (3.05 * 2.0**-8 if precision == "bf16" else 0.0)
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    tensor = torch.from_numpy(np.ascontiguousarray(rows)).to(device=device, dtype=kind)
    return Bound(tensor, margin, axes)


def _choose_axes(x: np.ndarray, sample: int = 2048) -> tuple[np.ndarray, int]:
    """(principal axes [D, D] by falling variance, how many to use).

    Costs a pair, measured on a two-core AVX2 machine: 0.03 ns an axis in the product, 600 ns for
    a pair whose bound is too high.
    """
    n, width = x.shape
    if n < 4 * BLOCK or width < 64:
        return np.eye(width, dtype=np.float32), width
    rows = x[np.linspace(0, n - 1, min(n, sample)).astype(int)]
    _, vectors = np.linalg.eigh(rows.T.astype(np.float64) @ rows)
    basis = vectors[:, ::-1].astype(np.float32)
    turned = rows @ basis
    exact = turned @ turned.T
    np.fill_diagonal(exact, -1)
    best = exact.max(1)
    costs = {width: 0.03 * width}
    for share in (1 / 8, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 2 / 3):
        axes = int(width * share)
        left = turned[:, :axes]
        rest = np.sqrt(np.maximum(0, 1 - (left**2).sum(1)))
        bound = left @ left.T + rest[:, None] * rest
        np.fill_diagonal(bound, -1)
        costs[axes] = 0.03 * (axes + 1) + 600 * float((bound > best[:, None]).mean())
    return basis, min(costs, key=lambda axes: costs[axes])


def seed(found: Nearest, x: np.ndarray, bound: Bound, allowed: Allowed) -> None:
    """Compare every row with a spread sample of rows, so that `worst` is high from the start."""
    n = len(x)
    chosen = np.unique(np.linspace(0, n - 1, min(n, SAMPLE)).astype(np.int64))
    for first in range(0, n, BLOCK):
        offer_best(found, x, bound, allowed, np.arange(first, min(first + BLOCK, n)), chosen)


def offer_best(
    found: Nearest,
    x: Float32[np.ndarray, "n D"],
    bound: Bound,
    allowed: Allowed,
    rows: Int[np.ndarray, " r"],
    others: Int[np.ndarray, " o"],
) -> None:
    """Offer each row those of the others whose bounds are highest."""
    k = min(found.index.shape[1] + 1, len(others))  # one more: a row may meet itself
    values = (bound.rows[rows] @ bound.rows[others].T).float().cpu().numpy()  # type: ignore[index]
    place = np.argpartition(-values, k - 1, axis=1)[:, :k]
    pairs = _near_enough(found, x, np.repeat(rows, k), others[place.ravel()], both=False)
    _offer(found, x, *pairs, allowed, both=False)


def scan(
    found: Nearest, x: np.ndarray, bound: Bound, allowed: Allowed, stripe: range
) -> Iterator[int]:
    """Compare the rows of a stripe with all rows from the stripe on; both sides learn of it.

    Stripes 0..a, a..b, ... of all rows together compare all pairs. Yields how many rows are done,
    after each block of rows.
    """
    n = len(x)
    blocks = (
        (slice(first, min(first + BLOCK, stripe.stop)), slice(other, min(other + BLOCK, n)))
        for first in range(stripe.start, stripe.stop, BLOCK)
        for other in range(first, n, BLOCK)
    )
    for rows, others in compare(found, x, bound, allowed, blocks):
        if others.stop == n:
            yield rows.stop - stripe.start


def compare(
    found: Nearest,
    x: Float32[np.ndarray, "n D"],
    bound: Bound,
    allowed: Allowed,
    blocks: Iterable[tuple[R, R]],
    both: bool = True,
) -> Iterator[tuple[R, R]]:
    """Compare blocks of rows with others, and yield each pair of blocks when it is done.

    Each of torch's threads multiplies blocks of its own, so that all steps of the work are shared
    out; what they find is added here. The order of that does not show in what is found.

    Args:
        found: what the pairs are added to.
        blocks: (rows, others): equal, or without a common row (with `both`).
        both: both sides of a pair learn of it; without it only `rows` do.
    """
    import torch

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "compare", partial(torch.set_num_threads, 1))
    pending: deque[tuple[tuple[R, R], Future[tuple[np.ndarray, np.ndarray]]]] = deque()

    def first_done() -> tuple[R, R]:
        done, future = pending.popleft()
        _offer(found, x, *future.result(), allowed, both)
        return done

    try:
        for rows, others in blocks:
            task = pool.submit(_candidates, found, x, bound, rows, others, both)
            pending.append(((rows, others), task))
            if len(pending) > 2 * threads:
                yield first_done()
        while pending:
            yield first_done()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # it is also that of threads that come later


def _candidates(
    found: Nearest, x: np.ndarray, bound: Bound, rows: Rows, others: Rows, both: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that may be good enough.

    What is found meanwhile only raises what is asked, so an old or empty place costs time alone.
    """
    left = (found.worst(rows) - bound.margin).astype(np.float32)
    right = (found.worst(others) - bound.margin).astype(np.float32) if both else None
    row, column = _hits(bound, rows, others, left, right)
    row, column = _numbers(rows)[row], _numbers(others)[column]
    if both and np.array_equal(_numbers(rows), _numbers(others)):
        once = row < column
        row, column = row[once], column[once]
    return _near_enough(found, x, row, column, both)


def _numbers(rows: Rows) -> np.ndarray:
    return np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows


def _hits(
    bound: Bound, rows: Rows, others: Rows, left: np.ndarray, right: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Places of pairs whose bound reaches what either row asks for."""
    import torch

    values = bound.rows[rows] @ bound.rows[others].T  # type: ignore[index]
    if values.device.type == "cpu" and values.dtype == torch.float32:
        # numpy's comparisons take a fifth of the time of torch's `nonzero` on a CPU.
        plain = values.numpy()
        mask = plain >= left[:, None]
        if right is not None:
            np.logical_or(mask, plain >= right, out=mask)
        return np.divmod(np.flatnonzero(mask), plain.shape[1])
    mask = values >= torch.from_numpy(left).to(values.device)[:, None]
    if right is not None:
        mask |= values >= torch.from_numpy(right).to(values.device)
    row, column = mask.nonzero().cpu().numpy().T
    return row, column


def _offer(found, x, row, column, allowed: Allowed, both: bool) -> None:
    """Compute pairs exactly and keep those that are allowed and good enough."""
    for at in range(0, len(row), _GATHERED):
        r, c = row[at : at + _GATHERED], column[at : at + _GATHERED]
        keep = allowed(r, c)
        r, c = r[keep], c[keep]
        values = cosines(x, r, c)
        found.add(r, c, values)
        if both:
            found.add(c, r, values)


def _near_enough(found, x, row, column, both: bool) -> tuple[np.ndarray, np.ndarray]:
    """Of pairs those that are, in float32 at half the cost: most bounds were too high."""
    low = found.worst(row)
    if both:
        low = np.minimum(low, found.worst(column))
    keep = (_roughly(x, row, column) >= low) & (row != column)
    return row[keep], column[keep]


def _roughly(x: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """x_row · x_column in float32, with its rounding added."""
    out = np.empty(len(row), np.float32)
    for at in range(0, len(row), 1024):  # 3 MB of gathered rows stay in the cache
        part = slice(at, at + 1024)
        np.einsum("nd,nd->n", x[row[part]], x[column[part]], out=out[part])
    return out + np.float32((x.shape[1] + 8) * 2.0**-24)


def cosines(x: Float32[np.ndarray, "n D"], row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """x_row · x_column, products and sums in float64: the same wherever it is computed."""
    out = np.empty(len(row))
    for at in range(0, len(row), 4096):
        part = slice(at, at + 4096)
        left, right = x[row[part]].astype(np.float64), x[column[part]].astype(np.float64)
        out[part] = np.einsum("nd,nd->n", left, right)
    return out


def nearest_among(
    x: Float32[np.ndarray, "n D"],
    k: int = 1,
    *,
    threshold: float = -1.0,
    allowed: Allowed | None = None,
    precision: str = "fp32",
    device: str = "cpu",
) -> Nearest:
    """The k nearest other rows of every row, exactly.

    Args:
        x: unit rows.
        k: neighbours a row; fewer where there are not so many.
        threshold: least similarity.
        allowed: (rows, rows) -> which pairs may be taken; must not depend on their order.
        precision: fp32 or bf16, of the bound; the result does not depend on it.
        device: where bounds are multiplied.

    >>> rows = np.eye(3, dtype=np.float32)[[0, 1, 0, 2]]
    >>> nearest_among(rows).index.ravel().tolist()
    [2, 0, 0, 0]
    """
    n = len(x)
    found = Nearest(n, k, threshold)
    if n < 2:
        return found
    everything = allowed or (lambda row, column: np.ones(len(row), bool))
    bound = make_bound(x, precision, device)
    if n > 4 * BLOCK:
        seed(found, x, bound, everything)
    for _ in scan(found, x, bound, everything, range(n)):
        pass
    return found
