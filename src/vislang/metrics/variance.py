"""How much of the variance of embeddings class, domain and their interaction explain.

N: images, C: classes, E: domains, D: width, R: resamples; n_c: images of class c.

Every image is there in every domain, so the parts are orthogonal and add up to 1 of the total,
Σ ‖x_id - mean‖²:

    class        E Σ n_c ‖m_c - m‖²
    domain       N Σ ‖m_d - m‖²
    interaction  Σ n_c ‖m_cd - m_c - m_d + m‖²    a domain moves classes differently
    image        E Σ ‖x_i - m_c‖²                 images of a class differ, in all domains alike
    rest         what remains                     a domain moves images of a class differently
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.metrics.intervals import Interval, from_draws
from vislang.metrics.true_class import unit64

if TYPE_CHECKING:
    from jaxtyping import Float, Int

SMALL = 512  # images of a class up to which their products are kept
PARTS = ("class", "domain", "interaction", "image", "rest")


def variance_shares(
    rows: Callable[[Any], Any],
    domains: Sequence[Any],
    label: Int[np.ndarray, " N"],
    *,
    normalise: bool = True,
    resamples: int = 200,
    seed: int = 0,
) -> dict[str, Interval]:
    """Share of each part, with a bootstrap over the images of each class.

    Resampled means hold some images twice, which looks like more variance between them; the
    draws are therefore moved to the estimate (`from_draws(centred=True)`).

    Args:
        rows: domain -> embeddings [N, D], the same images in the same order.
        domains: two or more.
        label: class of each image; gaps are allowed.
        normalise: take rows of length 1.
        resamples, seed: R, and the seed of the draws.
    """
    label = np.asarray(label)
    from threadpoolctl import threadpool_limits

    if len(domains) < 2 or not len(label):
        raise ValueError("variance_shares needs two domains and an image")
    order = np.argsort(label, kind="stable")
    weight = _weights(label[order], resamples, seed)  # the first row: the images as they are
    sums = _Sums(weight, np.unique(label[order], return_index=True)[1])
    with threadpool_limits(1):  # many small products, for which several threads only wait
        for domain in domains:
            x = unit64(rows(domain)) if normalise else np.array(rows(domain), np.float64)
            sums.add(x[order].astype(np.float32))
        shares = sums.shares(len(domains))
    return {
        name: from_draws(value[0], value[1:], len(label), "bootstrap over images", centred=True)
        for name, value in zip(PARTS, shares)
    }


def _weights(label: np.ndarray, resamples: int, seed: int) -> Float[np.ndarray, "R N"]:
    """How often each image is drawn; every class keeps its number of images."""
    rng = np.random.default_rng(seed)
    weight = np.ones((resamples + 1, len(label)), np.float32)
    for part in _classes(np.unique(label, return_index=True)[1], len(label)):
        size = part.stop - part.start
        drawn = rng.integers(0, size, (resamples, size)) + np.arange(resamples)[:, None] * size
        counts = np.bincount(drawn.ravel(), minlength=resamples * size)
        weight[1:, part] = counts.reshape(resamples, size)
    return weight


def _classes(starts: np.ndarray, count: int) -> list[slice]:
    return [slice(a, b) for a, b in zip(starts.tolist(), [*starts[1:].tolist(), count])]


class _Sums:
    """Sums of squares of all resamples at once, fed one domain at a time.

    Kept are the sum of each image over domains [N, D], and for each class of at most SMALL images
    their products, summed over domains [n_c, n_c]: then ‖Σ w x‖² is wᵀ(products)w, once a class
    instead of once a class and domain. Nothing grows with E.
    """

    def __init__(self, weight: Float[np.ndarray, "R N"], starts: Int[np.ndarray, " C"]):
        self.weight, self.classes = weight, _classes(starts, weight.shape[1])
        self.of_rows = np.zeros(len(weight))  # Σ w ‖x‖²
        self.of_pairs = np.zeros(len(weight))  # Σ n_c ‖m_cd‖²
        self.of_domains = np.zeros(len(weight))  # Σ over domains ‖Σ w x‖²
        self.products: dict[int, Any] = {}
        self.image: Any = 0.0

    def add(self, x: Float[np.ndarray, "N D"]) -> None:
        self.of_domains += _squares(self.weight @ x)
        self.of_rows += self.weight @ np.einsum("nd,nd->n", x, x)
        for number, part in enumerate(self.classes):
            size = part.stop - part.start
            if size <= SMALL:
                self.products[number] = self.products.get(number, 0.0) + x[part] @ x[part].T
            else:
                self.of_pairs += _squares(self.weight[:, part] @ x[part]) / size
        self.image = self.image + x

    def shares(self, domains: int) -> Float[np.ndarray, "P R"]:
        n, of_class = len(self.image), np.zeros(len(self.weight))
        for number, part in enumerate(self.classes):
            w, size = self.weight[:, part], part.stop - part.start
            of_class += _squares(w @ self.image[part]) / (domains * size)
            if number in self.products:
                of_pair = np.einsum("rn,rn->r", w @ self.products[number], w)
                self.of_pairs += of_pair / size
        mean = _squares(self.weight @ self.image) / (n * domains)
        of_image = self.weight @ np.einsum("nd,nd->n", self.image, self.image) / domains
        by_class, by_domain = of_class - mean, self.of_domains / n - mean
        interaction = self.of_pairs - mean - by_class - by_domain
        image = of_image - of_class
        rest = self.of_rows - self.of_pairs - image
        parts = np.stack([by_class, by_domain, interaction, image, rest])
        whole = self.of_rows - mean
        return np.divide(parts, whole, out=np.zeros_like(parts), where=whole > 1e-9 * self.of_rows)


def _squares(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return np.einsum("rd,rd->r", rows, rows)


def grid_shares(cells: Float[np.ndarray, "C E D"]) -> dict[str, float]:
    """Shares of class, domain and interaction for one vector a pair, such as class vectors.

    >>> {k: round(v, 3) for k, v in grid_shares(np.array([[[0.0], [1.0]], [[2.0], [3.0]]])).items()}
    {'class': 0.8, 'domain': 0.2, 'interaction': 0.0}
    """
    cells = np.asarray(cells, np.float64)
    mean = cells.mean(axis=(0, 1))
    of_class, of_domain = cells.mean(axis=1) - mean, cells.mean(axis=0) - mean
    rest = cells - mean - of_class[:, None] - of_domain[None]
    whole = float(np.sum((cells - mean) ** 2))
    found = {
        "class": cells.shape[1] * float(np.sum(of_class**2)),
        "domain": cells.shape[0] * float(np.sum(of_domain**2)),
        "interaction": float(np.sum(rest**2)),
    }
    return {name: value / whole if whole else 0.0 for name, value in found.items()}
