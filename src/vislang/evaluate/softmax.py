"""Softmax regression to a certified optimum, the same to the last bit for any number of threads.

n: samples, D: width of the features, K: classes.

    F(W, b) = mean cross-entropy(X Wᵀ + b, y) + l2/2 ‖W‖²,        l2 = 1 / (C n)

with scikit-learn's C. The bias is not penalised, so centring the features changes nothing but the
conditioning; turning them onto the axes of their covariance leaves ‖W‖ as it is. In that basis
scaling.py makes the problem round, and L-BFGS needs a fraction of the evaluations that it needs on
raw features. The sum over samples runs in fixed blocks, each on one BLAS thread, added in order.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from vislang.evaluate.lbfgs import minimise
from vislang.evaluate.scaling import Scaling, by_axis, by_curvature
from vislang.files import cores

if TYPE_CHECKING:
    from jaxtyping import Float, Int

BLOCK = 2048  # samples in one sum; part of the definition of the result's last bits
TOLERANCE = 1e-6  # of the gradient's norm
MOST = 10_000  # evaluations
# Problems of more products an evaluation than LARGE begin in float32, as far as its rounding is
# out of sight: a gradient of NEAR times that of F at 0.
LARGE, NEAR = 5e7, 3e-5
UNCERTAIN = 10  # uncertain samples an axis from which on their curvature scales the problem


@dataclass(frozen=True)
class Fit:
    """A solution and how good it is.

    Args:
        weight: [K, D] for the features as they were given.
        bias: [K].
        l2: strength of the penalty.
        objective: F.
        loss: its first part, the mean cross-entropy, in nats.
        gradient_norm: ‖∇F‖ over weight and bias at the solution.
        evaluations: of F and its gradient.
        converged: whether gradient_norm reached the tolerance.
        gap: how far F is above its minimum at most, to second order:
            ‖∇F‖² / (2 min(l2, smallest share of a class)), the least curvature there is in the
            weight and, where it matters, in the bias.
    """

    weight: Float[np.ndarray, "K D"]
    bias: Float[np.ndarray, " K"]
    l2: float
    objective: float
    loss: float
    gradient_norm: float
    evaluations: int
    converged: bool
    gap: float

    @property
    def weight_norm(self) -> float:
        """‖W‖, Frobenius."""
        return float(np.linalg.norm(self.weight))

    def scores(self, x: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n K"]:
        """Class scores (logits) in float64."""
        return np.asarray(x, np.float64) @ self.weight.T + self.bias


class SoftmaxRegression:
    """Fits for many penalties on one set of features, each started from the one before.

    Args:
        x: features [n, D].
        y: labels 0..classes-1 [n]; every class must occur, or its bias has no optimum.
        classes: K.
        threads: blocks worked on at the same time; None takes all cores.
    """

    def __init__(
        self,
        x: Float[np.ndarray, "n D"],
        y: Int[np.ndarray, " n"],
        classes: int,
        threads: int | None = None,
    ):
        x, self.y, self.classes = np.asarray(x), np.asarray(y), classes
        if len(np.unique(self.y)) != classes or self.y.min() < 0 or self.y.max() >= classes:
            raise ValueError(f"every label of 0..{classes - 1} must occur, and no other")
        self.n = len(x)
        self.threads = threads or cores()
        self.share = np.bincount(self.y, minlength=classes) / self.n
        self.mean = _mean(x)
        with _one_blas_thread():
            self.axes = self._axes(x)
            self.z = np.concatenate([(x[rows] - self.mean) @ self.axes for rows in self._blocks()])
            inside = self.mean @ self.axes
            self._mean_parts = inside, max(float(self.mean @ self.mean - inside @ inside), 0.0)
            self.variance = np.maximum(np.einsum("nd,nd->d", self.z, self.z) / self.n, 0)

    def _axes(self, x: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "D d"]:
        """Orthonormal axes of the centred features, along which they vary by turns.

        Directions without variance are left out: there the optimum has no weight. With fewer
        samples than dimensions they come from the samples' products, and d < n.
        """
        epsilon = max(x.shape) * np.finfo(float).eps
        if self.n > x.shape[1]:
            values, axes = np.linalg.eigh(self._sum(lambda rows: _gram(x[rows] - self.mean)))
            return axes[:, values > max(values[-1], 0) * epsilon]
        centred = x - self.mean
        values, left = np.linalg.eigh(centred @ centred.T)
        # The smallest ones are not quite orthogonal after this product; QR makes them so.
        return np.linalg.qr(centred.T @ left[:, values > max(values[-1], 0) * epsilon][:, ::-1])[0]

    def fit(
        self,
        l2: float,
        start: Fit | None = None,
        tolerance: float = TOLERANCE,
        most: int = MOST,
    ) -> Fit:
        """The optimum for one penalty.

        Args:
            l2: 1 / (C n), above 0.
            start: a fit to start from, for instance with another penalty; None starts at 0.
            tolerance: of ‖∇F‖.
            most: evaluations.
        """
        if not l2 > 0:
            raise ValueError(f"l2 must be above 0, got {l2}")
        with _one_blas_thread():
            u = np.zeros((self.classes, self.z.shape[1]))
            b = np.zeros(self.classes)
            if start is not None:
                u, b = start.weight @ self.axes, start.bias + start.weight @ self.mean
            scaling = self._scaling(u, b, l2)

            def objective(z: np.ndarray, flat: np.ndarray) -> tuple[float, np.ndarray]:
                u, b = scaling.outward(flat)
                loss, of_u, of_b = self.loss_and_gradient(u, b, z)
                of_u += l2 * u
                return loss + l2 / 2 * float((u**2).sum()), scaling.gradient(of_u, of_b)

            def small(limit: float, gradient: np.ndarray) -> bool:
                return self._norm(*scaling.gradient_outward(gradient)) <= limit

            begin, pairs, used = scaling.inward(u, b - b.mean()), None, 0
            if self.z.size * self.classes > LARGE:
                limit = max(tolerance, NEAR * self._at_zero)
                rough = partial(objective, self._z32)
                found = minimise(rough, begin, partial(small, limit), most // 2)
                begin, pairs, used = found.x, found.pairs, found.evaluations
            exact = partial(objective, self.z)
            found = minimise(exact, begin, partial(small, tolerance), most - used, pairs)
            u, b = scaling.outward(found.x)
            loss, of_u, of_b = self.loss_and_gradient(u, b)
            norm = self._norm(of_u + l2 * u, of_b)
            weight = u @ self.axes.T
            total = loss + l2 / 2 * float((u**2).sum())
            bias = b - weight @ self.mean
        gap = norm**2 / (2 * min(l2, float(self.share.min())))
        sure = norm <= 1.001 * tolerance
        return Fit(weight, bias, l2, total, loss, norm, used + found.evaluations, sure, gap)

    @cached_property
    def _z32(self) -> Float[np.ndarray, "n d"]:
        return self.z.astype(np.float32)

    @cached_property
    def _at_zero(self) -> float:
        """Norm of the gradient at no weight and the classes' own shares."""
        zero = np.zeros((self.classes, self.z.shape[1]))
        return self._norm(*self.loss_and_gradient(zero, np.log(self.share), self._z32)[1:])

    def loss_and_gradient(
        self,
        u: Float[np.ndarray, "K d"],
        b: Float[np.ndarray, " K"],
        rows_of: Float[np.ndarray, "n d"] | None = None,
    ) -> tuple[float, Float[np.ndarray, "K d"], Float[np.ndarray, " K"]]:
        """Mean cross-entropy and its gradient, in the basis of `axes`.

        Args:
            u, b: weights and bias.
            rows_of: the samples in the type in which to compute; by default float64.
        """
        every = self.z if rows_of is None else rows_of
        u, b = u.astype(every.dtype, copy=False), b.astype(every.dtype, copy=False)

        def one(rows: slice) -> tuple[float, np.ndarray, np.ndarray]:
            z, y = every[rows], self.y[rows]
            own = np.arange(len(y)), y
            logits = z @ u.T
            logits += b
            logits -= logits.max(axis=1, keepdims=True)
            of_own = logits[own]
            np.exp(logits, out=logits)
            total = logits.sum(axis=1)
            loss = float((np.log(total) - of_own).sum(dtype=np.float64))
            logits /= total[:, None]
            logits[own] -= 1
            return loss, logits.T @ z, logits.sum(axis=0)

        parts = self._each(one)
        loss, of_u, of_b = parts[0][0], *(part.astype(np.float64) for part in parts[0][1:])
        for other in parts[1:]:
            loss, of_u, of_b = loss + other[0], of_u + other[1], of_b + other[2]
        return loss / self.n, of_u / self.n, of_b / self.n

    def _scaling(self, u: np.ndarray, b: np.ndarray, l2: float) -> Scaling:
        """By the curvature at the start where enough samples are uncertain there, else by axis."""
        width = self.z.shape[1]

        def weigh(rows: slice) -> tuple[float, float]:
            w = self._uncertainty(rows, u, b)
            return float(w.sum()), float((w**2).sum())

        first, second = (sum(part) for part in zip(*self._each(weigh)))
        if first**2 <= UNCERTAIN * width * max(second, 1e-300) or not width:
            return by_axis(self.variance, l2, self.classes)

        def curvature(rows: slice) -> np.ndarray:
            z = self.z[rows]
            return (z * self._uncertainty(rows, u, b)[:, None]).T @ z

        return by_curvature(self._sum(curvature) / self.n, l2, self.classes)

    def _uncertainty(self, rows: slice, u: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Mean over classes of p(1-p) for each sample."""
        logits = self.z[rows] @ u.T + b
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        return (p * (1 - p)).mean(axis=1)

    def _norm(self, of_u: np.ndarray, of_b: np.ndarray) -> float:
        """‖∇F‖ with respect to the weight and bias of the features as they were given.

        There the gradient of W is that of the centred features plus (gradient of b) ⊗ mean.
        """
        inside, outside = self._mean_parts
        squared = ((of_u + np.outer(of_b, inside)) ** 2).sum()
        return float(np.sqrt(squared + (of_b**2).sum() * (1 + outside)))

    def _blocks(self) -> list[slice]:
        return [slice(at, at + BLOCK) for at in range(0, self.n, BLOCK)]

    def _each(self, work):
        """`work(rows)` of every block, in order; in threads where there are several."""
        blocks = self._blocks()
        if len(blocks) == 1 or self.threads == 1:
            return [work(rows) for rows in blocks]
        with ThreadPoolExecutor(min(self.threads, len(blocks))) as pool:
            return list(pool.map(work, blocks))

    def _sum(self, work) -> np.ndarray:
        total = None
        for part in self._each(work):
            total = part if total is None else total + part
        assert total is not None
        return total


def _mean(x: np.ndarray) -> np.ndarray:
    """Mean row in float64, added in blocks of fixed size."""
    total = np.zeros(x.shape[1])
    for at in range(0, len(x), BLOCK):
        total += x[at : at + BLOCK].sum(axis=0, dtype=np.float64)
    return total / len(x)


def _gram(rows: np.ndarray) -> np.ndarray:
    return rows.T @ rows


def _one_blas_thread():
    """A matrix product on several BLAS threads adds in another order than on one."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)


def unsquared_fit(
    problem: SoftmaxRegression, cost: float, start: Fit | None = None, tolerance: float = 1e-8
) -> Fit:
    """The optimum of mean cross-entropy + (1/cost) · ½ ‖W‖, the norm not squared.

    Both penalties walk along one path of solutions: this optimum is the squared one's for
    l2 = 1 / (2 cost ‖W‖), that is C = 2 cost ‖W‖ / n. The product l2 ‖W‖ rises with l2, so the l2
    at which it is 1 / (2 cost) is found by bracketed secants on its logarithm. Below a critical
    cost the optimum is W = 0 with the classes' log frequencies as bias.

    LGSSL's probe minimises this (language-guided pre-training, CVPR 2023); see
    docs/differences.md.
    """
    target = 1 / (2 * cost)
    bias = np.log(problem.share)
    _, at_zero, _ = problem.loss_and_gradient(
        np.zeros((problem.classes, len(problem.variance))), bias
    )
    critical = float(np.linalg.norm(at_zero))
    if target >= critical:
        weight = np.zeros((problem.classes, len(problem.mean)))
        loss = float(-(problem.share * bias).sum())
        return Fit(weight, bias, target, loss, loss, 0.0, 1, True, 0.0)
    log_l2 = float(np.log(target / max(start.weight_norm if start else 1.0, 1e-3)))
    low, high, slope, fit = -np.inf, np.inf, 0.8, start
    before: tuple[float, float] | None = None
    for _ in range(60):
        fit = problem.fit(float(np.exp(log_l2)), fit, tolerance)
        miss = float(np.log(fit.l2 * fit.weight_norm) - np.log(target))
        if abs(miss) < 1e-7 or high - low < 1e-12:
            break
        low, high = (log_l2, high) if miss < 0 else (low, log_l2)
        if before is not None and before[0] != log_l2:
            slope = float(np.clip((miss - before[1]) / (log_l2 - before[0]), 0.02, 1.0))
        before = (log_l2, miss)
        step = log_l2 - miss / slope
        inside = low < step < high
        log_l2 = step if inside else (low + high) / 2
    assert fit is not None
    return fit
