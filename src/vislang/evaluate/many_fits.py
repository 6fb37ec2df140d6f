"""Many logistic regressions on the same rows at once: every fold and every cost in one product.

n: rows, D: width, d: axes in use, F: sets of rows to learn from, P: problems, K: columns of one
(1 for two classes, else the classes), C: scikit-learn's weight of the data.

Problem p minimises  mean over its rows of the cross-entropy + l2_p/2 ‖W_p‖²,  l2 = 1 / (C n_p).
All P weights are the columns of one matrix, so that a step costs two matrix products of rows that
are read once, where one fit after the other reads them P times.

The steps are Nesterov's with a restart for each problem, on the axes of the rows' covariance. There
the curvature of every problem is below a diagonal one, whatever its rows: ¼ (two classes) or ½ of
the variance of all rows, times n / n_p, plus l2 (Böhning 1992, Ann. Inst. Stat. Math. 44, 197-200).
So no step is searched for, and none can go uphill for long (O'Donoghue & Candès 2015).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

Weights = tuple[np.ndarray, np.ndarray]  # [d, P, K] and [P, K]

# Of the gradient's norm, for rows whose mean squared length is 1: of an answer, and of a search
# for the cost, where it is still below scikit-learn's (1e-4 of the largest part of the gradient).
TOLERANCE, ROUGH = 1e-5, 1e-4
MOST = 5000  # steps
TOGETHER = 256  # columns solved together
TILE = 1024  # rows
COMPACT = 8  # steps between two looks at which problems are done


class ManyFits:
    """Rows with classes, ready for many fits on parts of them.

    Args:
        x: features of the rows that fits learn from.
        y: classes 0 ... classes - 1.
        classes: how many.
        threads: of the products; None for all cores.
    """

    def __init__(
        self,
        x: Float[np.ndarray, "n D"],
        y: Int[np.ndarray, " n"],
        classes: int,
        threads: int | None = None,
    ):
        self.classes, self.threads = classes, threads
        with _threads(threads):
            # The bias is free, so that moving the rows changes nothing but the conditioning.
            x = np.asarray(x)
            self.mean = x.mean(axis=0, dtype=np.float64).astype(x.dtype)
            x = x - self.mean
            gram = (x.T @ x).astype(np.float64) / len(x)
            variance, axes = np.linalg.eigh(gram)
            kept = variance > max(variance[-1], 0) * 1e-7
            self.scale = float(np.sqrt(variance[kept].sum())) or 1.0
            self.axes = (axes[:, kept] / self.scale).astype(x.dtype)
            self.z = (x @ self.axes).astype(np.float32)
        self.variance = variance[kept] / self.scale**2
        self.columns = 1 if classes == 2 else classes
        wanted = np.asarray(y)[:, None] == np.arange(classes)[None]
        self.target = wanted[:, 1:2] if classes == 2 else wanted

    def fit(
        self,
        learn: Bool[np.ndarray, "n F"],
        of: Int[np.ndarray, " P"],
        cost: Float[np.ndarray, " P"],
        tolerance: float = TOLERANCE,
        start: Weights | None = None,
    ) -> Weights:
        """Weights [d, P, K] and biases [P, K] of all problems.

        Args:
            learn: sets of rows to learn from.
            of: the set of each problem.
            cost: C of each problem.
            tolerance: of the gradients' norms.
            start: where each begins; zero if not given.
        """
        if start is None:
            shape = (self.z.shape[1], len(of), self.columns)
            start = np.zeros(shape, np.float32), np.zeros(shape[1:], np.float32)
        w, b = (part.copy() for part in start)
        at_once = max(1, TOGETHER // self.columns)
        with _threads(self.threads):
            for first in range(0, len(of), at_once):
                part = slice(first, first + at_once)
                costs = np.asarray(cost[part], np.float64)
                begin = w[:, part], b[part]
                w[:, part], b[part] = self._solve(learn[:, of[part]], costs, tolerance, begin)
        return w, b

    def said(
        self, weights: Weights, x: Float[np.ndarray, "m D"] | None = None
    ) -> Int[np.ndarray, "m P"]:
        """What each problem's classifier says of each of the rows, or of other rows x."""
        w, b = weights
        found = np.empty((len(self.z if x is None else x), w.shape[1]), np.int16)
        at_once = max(1, TOGETHER // self.columns)
        with _threads(self.threads):
            for first in range(0, w.shape[1], at_once):
                part = slice(first, first + at_once)
                some, bias, rows = w[:, part], b[part], self.z
                if x is not None:  # the few weights go back to the features, not rows to the axes
                    flat = self.axes @ some.reshape(len(some), bias.size)
                    bias = bias - (self.mean @ flat).reshape(bias.shape)
                    some, rows = flat.reshape(-1, *bias.shape), x
                logits = _logits(rows, some, bias)
                found[:, part] = logits[..., 0] > 0 if self.columns == 1 else logits.argmax(-1)
        return found

    def _solve(
        self, learn: np.ndarray, cost: np.ndarray, tolerance: float, start: Weights
    ) -> Weights:
        """Weights [d, P, K] and biases [P, K] whose gradients are within the tolerance."""
        used = learn.any(axis=1)
        z, target = self.z, self.target
        if not used.all():
            z, target, learn = z[used], target[used], learn[used]
        w, b = start
        done_w, done_b = w.copy(), b.copy()
        left = np.arange(len(cost))
        rows = learn.sum(axis=0)
        l2 = (1 / (cost * rows * self.scale**2)).astype(np.float32)
        share = (learn / rows).astype(np.float32)
        bend = (0.25 if self.columns == 1 else 0.5) * len(self.z) / rows
        ahead_w, ahead_b, pace = w, b, np.ones(len(cost))
        for step in range(MOST):
            of_w, of_b = self._gradient(z, target, ahead_w, ahead_b, share, l2)
            norm = np.sqrt((of_w**2).sum(axis=(0, 2)) + (of_b**2).sum(axis=1))
            small = norm <= tolerance
            done_w[:, left[small]], done_b[left[small]] = ahead_w[:, small], ahead_b[small]
            bound = self.variance[:, None] * bend[None] + l2[None]
            next_w = ahead_w - of_w / bound[..., None].astype(np.float32)
            next_b = ahead_b - of_b / bend[:, None].astype(np.float32)
            uphill = (of_w * (next_w - w)).sum((0, 2)) + (of_b * (next_b - b)).sum(1) > 0
            pace[uphill] = 1.0
            later = (1 + np.sqrt(1 + 4 * pace**2)) / 2
            push = ((pace - 1) / later).astype(np.float32)[:, None]
            ahead_w, ahead_b = next_w + push * (next_w - w), next_b + push * (next_b - b)
            w, b, pace = next_w, next_b, later
            if step % COMPACT == COMPACT - 1 and small.any():
                kept = ~small
                left, l2, bend, pace = left[kept], l2[kept], bend[kept], pace[kept]
                w, ahead_w, share = w[:, kept], ahead_w[:, kept], share[:, kept]
                b, ahead_b = b[kept], ahead_b[kept]
            if not len(left) or small.all():
                break
        else:  # not reached with a penalty; the last point is the best there is
            done_w[:, left], done_b[left] = w, b
        return done_w, done_b

    def _gradient(
        self,
        z: np.ndarray,
        target: np.ndarray,
        w: np.ndarray,
        b: np.ndarray,
        share: np.ndarray,
        l2: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        # By tiles: rows come from memory once a step, and what is made of them stays in the cache.
        w = np.ascontiguousarray(w)
        of_w, of_b = l2[None, :, None] * w, np.zeros_like(b)
        for first in range(0, len(z), TILE):
            rows = slice(first, first + TILE)
            p = self._residual(_logits(z[rows], w, b), target[rows], share[rows])
            of_w += (z[rows].T @ p.reshape(len(p), -1)).reshape(w.shape)
            of_b += p.sum(axis=0)
        return of_w, of_b

    def _residual(self, p: np.ndarray, target: np.ndarray, share: np.ndarray) -> np.ndarray:
        """share · (probabilities - target), made in the memory of the logits p [n, P, K]."""
        if self.columns == 1:
            np.clip(p, -60, 60, out=p)
            np.negative(p, out=p)
            np.exp(p, out=p)
            p += 1
            np.reciprocal(p, out=p)
        else:
            p -= p.max(axis=-1, keepdims=True)
            np.exp(p, out=p)
            p /= p.sum(axis=-1, keepdims=True)
        p -= target[:, None]
        p *= share[..., None]
        return p


def _logits(
    z: Float[np.ndarray, "n d"], w: Float[np.ndarray, "d P K"], b: Float[np.ndarray, "P K"]
) -> Float[np.ndarray, "n P K"]:
    d, problems, columns = w.shape
    found = (z @ w.reshape(d, problems * columns)).reshape(len(z), problems, columns)
    found += b
    return found


def _threads(count: int | None):
    from threadpoolctl import threadpool_limits

    return threadpool_limits(count)
