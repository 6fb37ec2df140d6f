"""Subspaces: is the domain entangled with the class, in images and in texts?

Vectors v_cd of class c in domain d are explained by o + a_c + b_d; what that misses, how widely
each part spreads, and the angles between the spans of the a_c and of the b_d say how far a model
treats the two as separate things. C: classes, E: domains, D: width, N: images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vislang.errors import UserError
from vislang.evaluate.domains import Complete, DomainEmbeddings, complete
from vislang.evaluate.scores import Scores
from vislang.metrics.grid import Entanglement, entanglement
from vislang.metrics.intervals import Interval
from vislang.metrics.true_class import unit64
from vislang.metrics.variance import PARTS, grid_shares, variance_shares

MOST = 10  # leading components whose angles are taken
DRAWN = 30  # leading components whose shares are listed


@dataclass(frozen=True)
class Subspaces:
    """Entanglement of images and of texts, as they are and normalised.

    Args:
        n: images.
        found: ("normalized" or "unnormalized", "image" or "text") -> its entanglement.
        shares: part of the variance of normalised images -> its share.
        text_shares: the same for class vectors; empty without texts.
    """

    n: int
    found: dict[tuple[str, str], Entanglement]
    shares: dict[str, Interval]
    text_shares: dict[str, float]


class Subspace:
    """Entanglement of class and domain: additive model, spreads, principal angles, variance shares.

    Args:
        resamples: of the bootstrap of the variance shares.
        seed: of its draws.
    """

    name = "subspace"

    def __init__(self, resamples: int = 200, seed: int = 0):
        if resamples < 10:
            raise UserError(f"subspace: resamples must be at least 10, got {resamples}.")
        self.resamples, self.seed = resamples, seed

    def settings(self) -> dict[str, Any]:
        """All options."""
        return {"resamples": self.resamples, "seed": self.seed}

    def measure(self, rows: DomainEmbeddings) -> tuple[Complete, Subspaces]:
        """The complete part of the store, and its numbers."""
        part = complete(rows, self.name, plain=False)
        if len(np.unique(part.labels)) < 2:
            raise UserError(
                "subspace needs images of at least two classes: with one, nothing tells class and"
                " domain apart. Use a source with more class folders."
            )
        found = {}
        for norm in ("normalized", "unnormalized"):
            found[norm, "image"] = of_images(part, norm == "normalized")
            vectors = text_cells(part, norm == "normalized")
            if vectors is not None:
                found[norm, "text"] = entanglement(vectors)
        shares = variance_shares(
            part.rows, part.domains, part.labels, resamples=self.resamples, seed=self.seed
        )
        texts = text_cells(part, True)
        text_shares = {} if texts is None else grid_shares(texts)
        return part, Subspaces(len(part.labels), found, shares, text_shares)

    def score(self, rows: DomainEmbeddings) -> Scores:
        """Shares with intervals, spreads, components, angles, and what they say."""
        return self.scores(*self.measure(rows))

    def scores(self, part: Complete, found: Subspaces) -> Scores:
        """What was measured in the form of a scores file."""
        return as_scores(part, found)


def of_images(part: Complete, normalise: bool) -> Entanglement:
    """Entanglement of the images' pair means, with their deviations from these means.

    One domain is held at a time; the deviations are summed up as a D x D product.
    """
    domains = sorted(part.domains)
    classes, inverse = np.unique(part.labels, return_inverse=True)
    cells, product, count = [], 0.0, 0
    for domain in domains:
        x = unit64(part.rows(domain)) if normalise else np.array(part.rows(domain), np.float64)
        mean = class_means(x, inverse, len(classes))
        x -= mean[inverse]
        cells.append(mean)
        product, count = product + x.T @ x, count + len(x)
    deviation: Any = product / max(count - 1, 1)
    return entanglement(np.stack(cells, axis=1), None, deviation)


def class_means(x: np.ndarray, label: np.ndarray, classes: int) -> np.ndarray:
    """Mean row of each class [C, D]; every class must occur."""
    order = np.argsort(label, kind="stable")
    starts = np.searchsorted(label[order], np.arange(classes))
    return np.add.reduceat(x[order], starts, axis=0) / np.bincount(label)[:, None]


def text_cells(part: Complete, normalise: bool) -> np.ndarray | None:
    """One vector a class and domain [C, E, D], the mean over words and templates of the domain.

    None where the store has no prompts: the source has no classes, or the model no text side.
    """
    try:
        found = [part.class_vectors("own", d, raw=not normalise) for d in sorted(part.domains)]
    except UserError:
        return None
    return np.stack(found, axis=1)


def as_scores(part: Complete, found: Subspaces) -> Scores:
    """The numbers in the form of a scores file."""
    values = {f"{name}_share": found.shares[name] for name in PARTS}
    tables: dict[str, Any] = {"spreads": _spreads(found), "overlap": _overlap(found)}
    for side in ("image", "text"):
        if ("normalized", side) in found.found:
            held = found.found["normalized", side]
            tables[f"{side}_angles"] = _angles(held)
            tables[f"{side}_components"] = _components(held)
    tables["variance_shares"] = _shares(found)
    return Scores(
        "subspace", found.n, values, tables=tables, notes=[*sentences(found), *part.notes]
    )


def _shares(found: Subspaces) -> dict[str, list]:
    rows = [
        [name, v.value, v.low, v.high, found.text_shares.get(name)]
        for name, v in found.shares.items()
    ]
    return {"columns": ["part", "images", "low", "high", "class vectors"], "rows": rows}


def spreads(held: Entanglement) -> dict[str, float | None]:
    """Spread of each part of a grid."""
    return {
        "residual": held.residuals.spread,
        "pairs": held.pairs.spread,
        "classes": held.classes.spread,
        "domains": held.domains.spread,
        "deviations": None if held.deviations is None else held.deviations.spread,
    }


def _spreads(found: Subspaces) -> dict[str, list]:
    rows = []
    for (norm, side), held in found.found.items():
        of = spreads(held)
        rows.append([f"{side}, {norm}", *of.values(), of["residual"] / (of["pairs"] or np.nan)])  # type: ignore[operator]
    columns = ["of", "residual", "all pairs", "classes", "domains", "images about their pair",
               "residual / all pairs"]  # fmt: skip
    return {"columns": columns, "rows": rows}


def _overlap(found: Subspaces) -> dict[str, list]:
    rows = []
    for (norm, side), held in found.found.items():
        squared, chance = held.overlap(MOST)
        angles = held.angles(MOST)
        ends = [float(angles[0]), float(angles[-1])] if len(angles) else [None, None]
        rows.append([f"{side}, {norm}", *ends, squared, chance])
    columns = ["of", "smallest angle", "largest angle", "mean squared cosine", "of random spans"]
    return {"columns": columns, "rows": rows}


def leading(held: Entanglement, most: int = MOST) -> np.ndarray:
    """|cosine| between leading class components (rows) and domain components [K, K]."""
    return np.abs(held.cosines[:most, :most])


def _angles(held: Entanglement) -> dict[str, list]:
    cosines = np.clip(leading(held), 0.0, 1.0)
    rows, columns = (min(rank, MOST) for rank in held.ranks)
    degrees = np.degrees(np.arccos(cosines[:rows, :columns]))
    names = [f"domain {j + 1}" for j in range(degrees.shape[1])]
    body = [[f"class {i + 1}", *row] for i, row in enumerate(degrees.tolist())]
    return {"columns": ["component", *names], "rows": body}


def _components(held: Entanglement) -> dict[str, list]:
    count = min(DRAWN, len(held.classes.deviations))
    rows = [
        [i + 1, held.classes.shares[i], held.classes.deviations[i], held.domains.shares[i],
         held.domains.deviations[i]]
        for i in range(count)
    ]  # fmt: skip
    columns = ["component", "class share", "class sd", "domain share", "domain sd"]
    return {"columns": columns, "rows": [[float(v) for v in row] for row in rows]}


def sentences(found: Subspaces) -> list[str]:
    """What explains the embeddings, and how far class and domain share directions."""
    share = {name: v.value for name, v in found.shares.items()}
    said = [
        f"Of the variance of image embeddings the class explains {share['class']:.1%}, the domain"
        f" {share['domain']:.1%}, their interaction {share['interaction']:.1%}; single images"
        f" {share['image']:.1%}, and {share['rest']:.1%} is how domains move single images."
    ]
    held = found.found["normalized", "image"]
    missed = held.residuals.spread / (held.pairs.spread or 1.0)
    said.append(
        f"Class and domain added up miss {missed:.0%} of the spread of the pair means"
        f" ({missed**2:.0%} of their variance)."
    )
    squared, chance = held.overlap(MOST)
    if np.isfinite(squared):
        more = "more than" if squared > 1.2 * chance else (
            "less than" if squared < 0.8 * chance else "about what")  # fmt: skip
        said.append(
            f"The leading directions of class and domain share {squared:.1%} of their squared"
            f" length, {more} random spans of that size would ({chance:.1%})."
        )
    return said
