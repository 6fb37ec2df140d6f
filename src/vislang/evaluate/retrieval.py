"""Image-text retrieval in both directions, with any number of captions per image.

N: images with a caption, M: captions, D: width of the shared space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.errors import UserError
from vislang.evaluate.requests import Embeddings, Requests, need
from vislang.evaluate.retrieval_pairs import Pairs, examples
from vislang.evaluate.scores import Scores
from vislang.metrics.correlation import mean_of_sets
from vislang.metrics.features import unit
from vislang.metrics.intervals import (
    Interval,
    bootstrap_mean,
    from_draws,
    resampled_counts,
    wilson,
)
from vislang.metrics.rank import Ranks, median_rank, retrieval_ranks

if TYPE_CHECKING:
    from jaxtyping import Int

    from vislang.data.sample import Source

MOST_SAMPLES = 50_000
SHARED = 0.01  # from this share of captions that several images have, both countings are given


class Retrieval:
    """Image-to-text and text-to-image recall at k, their mean, and median and mean ranks.

    An image is found if any of its captions is among the first k; a caption by its one image.
    Ties count against the model. Where more than one caption in a hundred stands word for word at
    several images, `same_text_...` counts each of those images (or captions) as right, too.

    The published protocols of COCO (Karpathy's 5,000 test images) are `captions: 5` (5K), and
    with `fold: 1000` besides the mean over five folds of 1,000 images in the file's order (1K).

    Args:
        ks: the k of recall@k; those not below the number of candidates are left out.
        captions: so many captions of an image count, the first ones; 0 for all.
        fold: images that are searched together, in the source's order; 0 for all. Every number
            is the mean over folds.
    """

    name = "retrieval"

    def __init__(self, ks: Sequence[int] = (1, 5, 10), captions: int = 0, fold: int = 0):
        if not ks or any(not isinstance(k, int) or k < 1 for k in ks):
            raise UserError(f"retrieval: ks must be whole numbers of at least 1, got {list(ks)}.")
        for name, value in (("captions", captions), ("fold", fold)):
            if not isinstance(value, int) or value < 0:
                raise UserError(f"retrieval: {name} must be a whole number, 0 for all: {value!r}.")
        self.ks, self.captions, self.fold = tuple(sorted(set(ks))), captions, fold

    def requests(self, source: Source) -> Requests:
        """Images and captions."""
        need(source, "text", self.name)
        return Requests(images=True, captions=True)

    def score(self, embeddings: Embeddings) -> Scores:
        """Recalls with intervals, and examples."""
        pairs, kept = _paired(embeddings)
        notes = list(embeddings.notes)
        if left := len(embeddings.ids) - len(kept):
            notes.append(f"{left} images without a caption were left out.")
        ids = [embeddings.ids[row] for row in kept.tolist()]
        if self.captions:
            pairs = pairs.first_captions(self.captions, notes)
        folds = pairs.folds(self.fold, notes) if self.fold else [pairs]
        ks = self._fitting(min(min(len(f.image), len(f.text)) for f in folds), notes)
        ranks = [retrieval_ranks(f.image, f.text, f.owner) for f in folds]
        values = _mean_of([recall_values(r, f.owner, ks) for r, f in zip(ranks, folds)])
        shared = [_shared(number_texts(f.texts)[0], f.owner) for f in folds]
        if np.mean(shared) >= SHARED:
            notes.append(f"{np.mean(shared):.1%} of the captions stand at more than one image.")
            values |= _mean_of([_same_text_values(f, ks) for f in folds])
        whole = Ranks(*(np.concatenate(side) for side in zip(*(_sides(r) for r in ranks))))
        owner = np.concatenate([f.owner + i * self.fold for i, f in enumerate(folds)])
        used = ids[: len(whole.image_to_text)]
        return Scores(
            self.name,
            len(used),
            values,
            examples=examples(ranks[0], folds[0], used[: len(folds[0].image)]),
            per_sample=_per_sample(whole, owner, used) if len(owner) <= MOST_SAMPLES else None,
            notes=notes,
        )

    def settings(self) -> dict[str, Any]:
        """The k, and the protocol where it is not the whole source."""
        protocol = {"captions": self.captions, "fold": self.fold}
        return {"ks": list(self.ks)} | {name: each for name, each in protocol.items() if each}

    def _fitting(self, least: int, notes: list[str]) -> list[int]:
        ks = [k for k in self.ks if k < least]
        if len(ks) < len(self.ks):
            notes.append(
                f"recall@k for k in {[k for k in self.ks if k not in ks]} was left out: there are"
                f" only {least} images or captions to choose from."
            )
        if not ks:
            raise UserError(
                f"retrieval needs more than {self.ks[0]} images with captions, got {least}."
            )
        return ks


def _sides(rank: Ranks) -> tuple[np.ndarray, np.ndarray]:
    return rank.image_to_text, rank.text_to_image


def _mean_of(folds: list[dict[str, Interval]]) -> dict[str, Interval]:
    """Of each metric the mean over folds."""
    if len(folds) == 1:
        return folds[0]
    shared = [name for name in folds[0] if all(name in fold for fold in folds)]
    return {name: mean_of_sets([fold[name] for fold in folds]) for name in shared}


def _paired(embeddings: Embeddings) -> tuple[Pairs, Int[np.ndarray, " N"]]:
    """Unit images that have a caption with their unit captions, and the rows of the images."""
    owner = embeddings.caption_owner
    if embeddings.captions is None or owner is None or not len(owner):
        raise UserError(
            "retrieval: no sample has both a usable image and a caption."
            " Look at the rejected samples, or use a source with captions."
        )
    kept, place = np.unique(owner, return_inverse=True)
    image = unit(embeddings.space("embedding")[kept])
    text = unit(np.asarray(embeddings.captions))
    return Pairs(image, text, place, list(embeddings.caption_texts)), kept


def recall_values(
    rank: Ranks, owner: Int[np.ndarray, " M"], ks: Sequence[int]
) -> dict[str, Interval]:
    """Recalls, their mean, and median and mean ranks (1 is the best).

    Images are the independent things: Wilson for images, a bootstrap that draws images with all
    their captions for everything that captions enter.
    """
    values = {}
    for k in ks:
        hits = int((rank.image_to_text < k).sum())
        values[f"image_to_text@{k}"] = wilson(hits, len(rank.image_to_text))
    for k in ks:
        hit = (rank.text_to_image < k).astype(float)
        values[f"text_to_image@{k}"] = bootstrap_mean(hit, owner, proportion=True)
    values["mean_recall"] = _mean_recall(rank, owner, ks)
    for way in ("image_to_text", "text_to_image"):
        each = getattr(rank, way)
        groups = np.arange(len(each)) if way == "image_to_text" else owner
        values[f"{way}_median_rank"] = _median(each, groups)
        values[f"{way}_mean_rank"] = bootstrap_mean(each + 1.0, groups)
    return values


def _mean_recall(rank: Ranks, owner: np.ndarray, ks: Sequence[int]) -> Interval:
    """Mean of the recalls of both ways; one draw of images enters all of them."""
    n = len(rank.image_to_text)
    of_image = np.stack([rank.image_to_text < k for k in ks], 1).astype(float)  # [N, k]
    hit = np.stack([rank.text_to_image < k for k in ks], 1).astype(float)
    of_text = np.stack([np.bincount(owner, column, n) for column in hit.T], 1)
    size = np.bincount(owner, minlength=n)
    value = (of_image.mean(0).mean() + (of_text.sum(0) / size.sum()).mean()) / 2
    draws = [
        ((w @ of_image) / n).mean(1) / 2 + (w @ of_text / (w @ size)[:, None]).mean(1) / 2
        for w in resampled_counts(n, 1000, 0)
    ]
    return from_draws(float(value), np.concatenate(draws), n, "bootstrap over groups")


def _median(rank: np.ndarray, groups: np.ndarray, resamples: int = 200) -> Interval:
    """Median place with a bootstrap over groups, by counting sorted ranks."""
    order = np.argsort(rank, kind="stable")
    ordered, of = rank[order], groups[order]
    count = int(groups.max()) + 1
    draws = []
    at_once = max(1, 4_000_000 // len(rank))
    for block in resampled_counts(count, resamples, 0):
        for first in range(0, len(block), at_once):
            running = np.cumsum(block[first : first + at_once, of], axis=1)
            half = running[:, -1:] / 2
            low = (running < half).sum(1)
            high = (running <= half).sum(1).clip(max=len(ordered) - 1)
            draws.append((ordered[low] + ordered[high]) / 2 + 1)
    n = len(np.unique(groups))
    return from_draws(median_rank(rank), np.concatenate(draws), n, "bootstrap over groups")


def number_texts(texts: Sequence[str]) -> tuple[Int[np.ndarray, " M"], int]:
    """A number for each text, the same for equal texts, in order of first occurrence; and how many
    distinct ones there are.

    >>> number_texts(["b", "a", "b"])
    (array([0, 1, 0], dtype=int32), 2)
    """
    import pyarrow as pa

    encoded = pa.array(list(texts), pa.string()).dictionary_encode()
    return encoded.indices.to_numpy(), len(encoded.dictionary)


def _shared(place: np.ndarray, owner: np.ndarray) -> float:
    """Share of captions whose text stands at another image, too."""
    pairs = np.unique(np.stack([place, owner]), axis=1)
    images = np.bincount(pairs[0])
    return float((images[place] > 1).mean())


def _same_text_values(pairs: Pairs, ks: Sequence[int]) -> dict[str, Interval]:
    """Recalls where a caption is right for every image that has the same words."""
    text, owner = pairs.text, pairs.owner
    place, distinct = number_texts(pairs.texts)
    first = np.full(distinct, len(text))
    np.minimum.at(first, place, np.arange(len(text)))
    words, images = np.unique(np.stack([place, owner]), axis=1)
    if distinct < 2:
        return {}
    rank = retrieval_ranks(pairs.image, text[first], pairs=(images, words))
    each = Ranks(rank.image_to_text, rank.text_to_image[place])
    ks = [k for k in ks if k < distinct]
    return {f"same_text_{k}": v for k, v in recall_values(each, owner, ks).items()} if ks else {}


def _per_sample(rank: Ranks, owner: np.ndarray, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Hits at 1 of each query, for paired comparison of two models."""
    if len(set(ids)) < len(ids):
        return {}
    count = np.zeros(len(ids), int)
    names = []
    for row in owner.tolist():
        names.append(f"{ids[row]}#{count[row]}")
        count[row] += 1
    return {
        "image_to_text@1": {"ids": list(ids), "values": (rank.image_to_text < 1).astype(int)},
        "text_to_image@1": {
            "ids": names, "values": (rank.text_to_image < 1).astype(int), "groups": owner
        },
    }  # fmt: skip
