"""Vectors on a grid of classes x domains: how far they add up, where they vary, at what angles.

C: classes, E: domains, D: width, n: pairs (class, domain) that are there, K: components.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


@dataclass(frozen=True)
class Principal:
    """Principal components.

    Args:
        deviations: standard deviation along each, falling [D].
        components: directions of length 1 in rows [D, D]; their signs mean nothing, and neither
            do those along which nothing varies.
    """

    deviations: Float[np.ndarray, " D"]
    components: Float[np.ndarray, "D D"]

    @property
    def spread(self) -> float:
        """Root of the total variance, √(trace of the covariance)."""
        return float(np.linalg.norm(self.deviations))

    @property
    def shares(self) -> Float[np.ndarray, " D"]:
        """Share of the variance along each component; zeros where nothing varies."""
        variance = self.deviations**2
        return variance / (variance.sum() or 1.0)


def principal(rows: Float[np.ndarray, "n D"]) -> Principal:
    """Principal components of rows, covariance with n - 1.

    >>> principal(np.array([[1.0, 0.0], [-1.0, 0.0]])).deviations.round(3)
    array([1.414, 0.   ])
    """
    rows = np.asarray(rows, np.float64)
    centred = rows - rows.mean(axis=0)
    return of_covariance(centred.T @ centred / max(len(rows) - 1, 1))


def of_covariance(covariance: Float[np.ndarray, "D D"]) -> Principal:
    """Principal components of a covariance matrix."""
    _, values, components = np.linalg.svd(covariance, hermitian=True)
    return Principal(np.sqrt(values), components)


@dataclass(frozen=True)
class Additive:
    """v[c, d] ≈ offset + class_part[c] + domain_part[d].

    Args:
        offset: [D].
        class_part: sums to 0 over classes [C, D].
        domain_part: sums to 0 over domains [E, D].
        residual: prediction less data of each pair that is there, by class, then domain [n, D].
    """

    offset: Float[np.ndarray, " D"]
    class_part: Float[np.ndarray, "C D"]
    domain_part: Float[np.ndarray, "E D"]
    residual: Float[np.ndarray, "n D"]


def additive(
    cells: Float[np.ndarray, "C E D"], there: Bool[np.ndarray, "C E"] | None = None
) -> Additive:
    """The additive model of least squares; on a complete grid it is made of plain means.

        minimise Σ over pairs ‖o + a_c + b_d - v_cd‖²  with  Σ a_c = 0, Σ b_d = 0

    Args:
        cells: one vector a pair; those of missing pairs may hold anything.
        there: which pairs there are; None: all. Every class and domain needs one.
    """
    cells = np.asarray(cells, np.float64)
    classes, domains, _ = cells.shape
    there = np.ones((classes, domains), bool) if there is None else np.asarray(there, bool)
    if not (there.any(axis=1).all() and there.any(axis=0).all()):
        raise ValueError("every class and every domain needs at least one pair")
    if there.all():
        offset = cells.mean(axis=(0, 1))
        class_part, domain_part = cells.mean(axis=1) - offset, cells.mean(axis=0) - offset
    else:
        solution = _solve(cells, there)
        offset, class_part = solution[0], solution[1 : classes + 1]
        domain_part = solution[classes + 1 :]
    row, column = np.nonzero(there)
    residual = offset + class_part[row] + domain_part[column] - cells[row, column]
    return Additive(offset, class_part, domain_part, residual)


def _solve(cells: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Normal equations of the pairs and of the two sums: (C + E + 1)², however many pairs.

    Their pseudo-inverse also serves grids that fall into unconnected parts (shortest solution).
    """
    classes, domains, width = cells.shape
    size, held = classes + domains + 1, there.astype(np.float64)
    matrix, right = np.zeros((size, size)), np.zeros((size, width))
    of_class, of_domain = slice(1, classes + 1), slice(classes + 1, size)
    matrix[0, 0] = held.sum()
    matrix[0, of_class], matrix[0, of_domain] = held.sum(axis=1), held.sum(axis=0)
    matrix[of_class, of_class] = np.diag(held.sum(axis=1)) + 1.0  # + 1: the row Σ a_c = 0
    matrix[of_domain, of_domain] = np.diag(held.sum(axis=0)) + 1.0
    matrix[of_class, of_domain] = held
    matrix = np.triu(matrix) + np.triu(matrix, 1).T
    filled = np.where(there[..., None], cells, 0.0)
    right[0] = filled.sum(axis=(0, 1))
    right[of_class], right[of_domain] = filled.sum(axis=1), filled.sum(axis=0)
    return np.linalg.pinv(matrix, rcond=1e-12, hermitian=True) @ right


@dataclass(frozen=True)
class Entanglement:
    """The additive model of a grid, taken apart.

    Args:
        class_means: of the class means over domains.
        domain_means: of the domain means over classes.
        pairs: of all vectors of the grid.
        residuals: of what the additive model misses.
        classes, domains: of its class parts and domain parts.
        model: the additive model itself.
        deviations: of images from the mean of their pair; None for texts.
    """

    class_means: Principal
    domain_means: Principal
    pairs: Principal
    residuals: Principal
    classes: Principal
    domains: Principal
    model: Additive
    deviations: Principal | None = None

    @cached_property
    def cosines(self) -> Float[np.ndarray, "D D"]:
        """Inner products of every class component (rows) with every domain component."""
        return self.classes.components @ self.domains.components.T

    @property
    def ranks(self) -> tuple[int, int]:
        """Components of classes and of domains along which anything varies."""
        return _rank(self.classes), _rank(self.domains)

    def angles(self, most: int = 10) -> Float[np.ndarray, " K"]:
        """Principal angles in degrees, smallest first, between the two spans.

        Each span is that of its leading components, at most `most`. 90 everywhere: naming the
        domain never moves a vector along a direction that tells classes apart.
        """
        rows, columns = (min(rank, most) for rank in self.ranks)
        if not rows or not columns:
            return np.empty(0)
        cosines = np.linalg.svd(self.cosines[:rows, :columns], compute_uv=False)
        return np.degrees(np.arccos(np.clip(cosines, 0.0, 1.0)))

    def overlap(self, most: int = 10) -> tuple[float, float]:
        """Mean squared cosine of these angles, and what random spans of this size would have.

        In D dimensions a fixed span of k and a random one of l ≤ k have l k / D of squared
        cosines on average, k / D for each angle.
        """
        angles = self.angles(most)
        if not len(angles):
            return float("nan"), float("nan")
        larger = max(min(rank, most) for rank in self.ranks)
        squared = float(np.mean(np.cos(np.radians(angles)) ** 2))
        return squared, larger / len(self.classes.deviations)


def _rank(found: Principal) -> int:
    top = found.deviations[0] if len(found.deviations) else 0.0
    return int((found.deviations > 1e-6 * top).sum()) if top > 0 else 0


def entanglement(
    cells: Float[np.ndarray, "C E D"],
    there: Bool[np.ndarray, "C E"] | None = None,
    deviation: Float[np.ndarray, "D D"] | None = None,
) -> Entanglement:
    """How far class and domain are added up, and at what angles they lie.

    Args:
        cells: one vector a pair (class, domain).
        there: which pairs there are; None: all.
        deviation: covariance of images about the mean of their pair.
    """
    cells = np.asarray(cells, np.float64)
    if there is None:
        there = np.ones(cells.shape[:2], bool)
    model = additive(cells, there)
    filled = np.where(there[..., None], cells, 0.0)
    return Entanglement(
        class_means=principal(filled.sum(axis=1) / there.sum(axis=1)[:, None]),
        domain_means=principal(filled.sum(axis=0) / there.sum(axis=0)[:, None]),
        pairs=principal(cells[there]),
        residuals=principal(model.residual),
        classes=principal(model.class_part),
        domains=principal(model.domain_part),
        model=model,
        deviations=None if deviation is None else of_covariance(deviation),
    )
