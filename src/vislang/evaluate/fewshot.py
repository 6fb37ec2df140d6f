"""Few-shot episodes: classify queries by the nearest mean of a handful of examples.

E: episodes, W: ways (classes of an episode), S: shots, Q: queries of a class, D: width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.errors import UserError
from vislang.evaluate.probe import CHOICES, choose, space_request
from vislang.evaluate.requests import Embeddings, Requests, need
from vislang.evaluate.scores import Scores
from vislang.metrics.intervals import normal_mean

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from vislang.data.sample import Source

_BYTES = 2_000_000  # of gathered features at a time: they stay in the cache


class FewShot:
    """Nearest-prototype accuracy over random episodes, with the interval of their mean.

    Support samples come from the training source and queries from the test source, or, without a
    training source, from different samples of the one source. Rows are centred on the support's
    mean and normalised. As in language-guided pre-training (CVPR 2023), but seeded; an episode's
    score is the mean over its classes, so that a class with few queries weighs as much as others.

    Args:
        way: classes of an episode.
        shots: support samples a class; several numbers give several values.
        queries: queries a class; a class with fewer gives what it has.
        episodes: how many.
        centre: subtract the mean of the support.
        normalise: scale rows to length 1.
        average: compare with the class's mean; False with its nearest support sample.
        space: features (before the head) or embedding.
        seed: of the episodes.
    """

    name = "fewshot"

    def __init__(
        self,
        way: int = 5,
        shots: int | Sequence[int] = (1, 5),
        queries: int = 6,
        episodes: int = 5000,
        centre: bool = True,
        normalise: bool = True,
        average: bool = True,
        space: str = "features",
        seed: int = 0,
    ):
        choose("fewshot: space", space, CHOICES["space"])
        self.shots = (shots,) if isinstance(shots, int) else tuple(shots)
        counts = {"way": way, "queries": queries, "episodes": episodes}
        for name, value in [*counts.items(), *(("shots", s) for s in self.shots)]:
            if not isinstance(value, int) or value < (2 if name == "way" else 1):
                least = 2 if name == "way" else 1
                raise UserError(
                    f"fewshot: {name} must be a whole number of at least {least}, got {value!r}."
                )
        if not self.shots:
            raise UserError("fewshot: shots must hold at least one number.")
        self.way, self.queries, self.episodes, self.seed = way, queries, episodes, seed
        self.centre, self.normalise, self.average = centre, normalise, average
        self.space = space

    def requests(self, source: Source) -> Requests:
        """Features and labels of both sources."""
        need(source, "label", self.name)
        return space_request(self.space)

    def score(self, embeddings: Embeddings) -> Scores:
        """Mean accuracy over episodes, for each number of shots."""
        test = embeddings.labelled()
        apart = embeddings.train is not None
        train = embeddings.train.labelled() if embeddings.train is not None else test
        features = {"train": train.space(self.space), "test": test.space(self.space)}
        values, rows, notes, each_episode = {}, [], list(embeddings.notes), {}
        for shot in self.shots:
            episodes = draw_episodes(
                train.label, test.label if apart else None, self.way, shot, self.queries,
                self.episodes, self.seed,
            )  # fmt: skip
            each = score_episodes(
                features["train"], features["test"], episodes,
                self.centre, self.normalise, self.average,
            )  # fmt: skip
            name = f"accuracy_{self.way}_way_{shot}_shot"
            values[name] = normal_mean(each)
            # Equal seeds give two models the same episodes, which makes a paired test sharper.
            each_episode[name] = {
                "ids": [f"episode {i}" for i in range(len(each))],
                "values": each.round(6).tolist(),
            }
            deviation = float(each.std(ddof=1)) if len(each) > 1 else None
            rows.append([self.way, shot, self.queries, len(each), float(each.mean()), deviation,
                         episodes.classes])  # fmt: skip
            if episodes.left_out:
                notes.append(f"{shot} shots: {episodes.left_out} classes with too few samples"
                             " were left out.")  # fmt: skip
        columns = ["way", "shot", "queries", "episodes", "mean", "standard deviation", "classes"]
        how = "the training source" if apart else "other samples of the source itself"
        notes.append(f"Support samples come from {how}.")
        tables = {"episodes": {"columns": columns, "rows": rows}}
        return Scores(
            self.name, len(test.label), values, tables=tables, notes=notes, per_sample=each_episode
        )

    def settings(self) -> dict[str, Any]:
        """All options."""
        return {
            "way": self.way, "shots": list(self.shots), "queries": self.queries,
            "episodes": self.episodes, "centre": self.centre, "normalise": self.normalise,
            "average": self.average, "space": self.space, "seed": self.seed,
        }  # fmt: skip


@dataclass(frozen=True)
class Episodes:
    """Row numbers of episodes.

    Args:
        support: rows of the training features [E, W, S].
        query: rows of the test features [E, W, Q]; places without a sample hold any row.
        there: which queries are samples [E, W, Q].
        classes: classes that episodes were drawn from.
        left_out: classes that had too few samples.
    """

    support: Int[np.ndarray, "E W S"]
    query: Int[np.ndarray, "E W Q"]
    there: Bool[np.ndarray, "E W Q"]
    classes: int = 0
    left_out: int = 0


def draw_episodes(
    train: Int[np.ndarray, " n"],
    test: Int[np.ndarray, " m"] | None,
    way: int,
    shot: int,
    queries: int,
    episodes: int,
    seed: int,
) -> Episodes:
    """Draw distinct classes, and of each distinct support and query rows.

    Args:
        train: labels of the rows that support samples are drawn from.
        test: labels of the rows that queries are drawn from; None draws both from `train`.
        way, shot, queries, episodes, seed: sizes, and the seed of numpy's PCG64.

    Raises:
        UserError: fewer classes with enough samples than `way`.
    """
    count = int(max(train.max(initial=-1), -1 if test is None else test.max(initial=-1))) + 1
    have, rows, start = _by_class(train, count)
    if test is None:
        usable = have > shot
    else:
        asked, test_rows, test_start = _by_class(test, count)
        usable = (have >= shot) & (asked > 0)
    chosen = np.flatnonzero(usable)
    present = int((have > 0).sum())
    if len(chosen) < way:
        raise UserError(
            f"fewshot: {way}-way episodes with {shot} shots need {way} classes with enough samples,"
            f" but only {len(chosen)} of {present} have them. Use a smaller way or fewer shots."
        )
    rng = np.random.default_rng(seed)
    keys = rng.random((episodes, len(chosen)))
    picked = chosen[np.argsort(keys, axis=1)[:, :way]]  # [E, W]
    if test is None:
        place, there = _draw(have[picked], shot + queries, rng)
        row = rows[np.minimum(start[picked][..., None] + place, len(rows) - 1)]
        support, query, there = row[..., :shot], row[..., shot:], there[..., shot:]
    else:
        place, _ = _draw(have[picked], shot, rng)
        support = rows[start[picked][..., None] + place]
        place, there = _draw(asked[picked], queries, rng)
        query = test_rows[np.minimum(test_start[picked][..., None] + place, len(test_rows) - 1)]
    return Episodes(support, query, there, len(chosen), present - len(chosen))


def _by_class(label: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes of the classes, all rows in the order of their class, and where each class begins."""
    size = np.bincount(label, minlength=count)
    return size, np.argsort(label, kind="stable"), np.cumsum(size) - size


def _draw(size: np.ndarray, k: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """k distinct numbers below each size, uniformly; and which of them exist where size < k.

    The j-th number is drawn among the size - j that are left, and moved past those taken before.
    """
    taken = np.empty((*size.shape, 0), np.int64)  # ascending
    drawn = np.zeros((*size.shape, k), np.int64)
    for j in range(k):
        left = np.maximum(size - j, 1)
        number = np.minimum((rng.random(size.shape) * left).astype(np.int64), left - 1)
        for i in range(j):
            number += number >= taken[..., i]
        drawn[..., j] = number
        taken = np.sort(np.concatenate([taken, number[..., None]], axis=-1), axis=-1)
    return drawn, np.arange(k) < size[..., None]


def score_episodes(
    train: Float[np.ndarray, "n D"],
    test: Float[np.ndarray, "m D"],
    episodes: Episodes,
    centre: bool = True,
    normalise: bool = True,
    average: bool = True,
) -> Float[np.ndarray, " E"]:
    """Accuracy of each episode: mean over its classes of the share of queries that are nearest
    (by Euclidean distance) to their own class. Equal distances count against the model.
    """
    e, way, shot = episodes.support.shape
    asked = way * episodes.query.shape[2]
    per = (way * shot + asked) * train.shape[1] * 4
    block = max(1, _BYTES // per)
    train, test = (np.asarray(rows, np.float32) for rows in (train, test))
    if centre:  # distances do not change, and products of rows near zero keep their digits
        middle = train.mean(axis=0)
        train, test = train - middle, test - middle
    squares = [np.einsum("nd,nd->n", rows, rows) for rows in (train, test)]
    scores = np.empty(e)
    for first in range(0, e, block):
        part = slice(first, first + block)
        near = episodes.support[part].reshape(-1, way * shot)
        query = episodes.query[part].reshape(-1, asked)
        ends = Ends(train[near], squares[0][near], test[query], squares[1][query])
        far = ends.distances(way, centre, normalise, average)  # [b, W Q, W]
        far = far.reshape(len(near), way, -1, way)  # [b, own class, query, class]
        index = np.arange(way)[None, :, None, None]
        own = np.take_along_axis(far, index, axis=3)
        there = episodes.there[part]
        hit = ((far <= own).sum(axis=3) == 1) & there  # only its own class is as near
        share = hit.sum(axis=2) / np.maximum(there.sum(axis=2), 1)
        scores[part] = share.mean(axis=1)
    return scores


@dataclass(frozen=True)
class Ends:
    """Support and query rows of a block of episodes, and their squared lengths.

    With m the mean of the support, â = (a - m) / ‖a - m‖ and p a class's mean of ŝ (or one ŝ), a
    query is compared by ‖q̂ - p‖². No row is centred or scaled: all follows from products of
    the rows as they are with m and with the few sums of s / ‖s - m‖, an eighth of the work.
    """

    support: Float[np.ndarray, "b WS D"]
    support_square: Float[np.ndarray, "b WS"]
    query: Float[np.ndarray, "b WQ D"]
    query_square: Float[np.ndarray, "b WQ"]

    def distances(
        self, way: int, centre: bool, normalise: bool, average: bool
    ) -> Float[np.ndarray, "b WQ W"]:
        """Squared distance of each query to each class, less what is the same for all classes."""
        b, many, width = self.support.shape
        targets = way if average else many
        ends = np.empty((b, targets + 1, width), np.float32)  # sums of s / ‖s - m‖, and m
        sums, mean = ends[:, :-1], ends[:, -1:]
        every = np.full((b, 1, many), centre / many, np.float32)
        np.matmul(every, self.support, out=mean)
        along = (self.support @ mean.transpose(0, 2, 1))[..., 0]  # s . m
        mean_square = np.einsum("btd,btd->bt", mean, mean)  # [b, 1]
        scale = np.ones_like(along)
        if normalise:
            scale = _inverse_length(self.support_square, along, mean_square)
        parts = scale.reshape(b, targets, -1)
        shots = self.support.reshape(b, targets, -1, width)
        np.matmul((parts / parts.shape[2])[:, :, None], shots, out=sums[:, :, None])
        weight = parts.mean(axis=2)[:, None]  # p = sum - weight m
        sum_mean = (sums @ mean.transpose(0, 2, 1)).transpose(0, 2, 1)  # [b, 1, T]
        square = np.einsum("btd,btd->bt", sums, sums)[:, None] - 2 * weight * sum_mean
        square += weight**2 * mean_square[..., None]  # ‖p‖²
        seen = self.query @ ends.transpose(0, 2, 1)  # [b, WQ, T + 1]
        onto = seen[..., :-1] - weight * seen[..., -1:]
        onto -= sum_mean - weight * mean_square[..., None]  # (q - m) . p
        if normalise:
            onto *= _inverse_length(self.query_square, seen[..., -1], mean_square)[..., None]
        far = square - 2 * onto
        return far if average else far.reshape(b, -1, way, many // way).min(axis=3)


def _inverse_length(square: np.ndarray, along: np.ndarray, mean_square: np.ndarray) -> np.ndarray:
    """1 / ‖a - m‖ from ‖a‖², a . m and ‖m‖²; 0, which makes the row zero, where a is m."""
    found = square - 2 * along + mean_square
    rounding = 1e-6 * (square + mean_square)
    return np.where(found > rounding, 1 / np.sqrt(np.maximum(found, 1e-24)), 0).astype(np.float32)
