"""The checkpoints of a run under described domains: what training does, and when it is best.

Each checkpoint is measured by the mean over all domains (the unchanged images among them) of top-1
accuracy, with three kinds of prompts. A share of the images, drawn within each class, is the valid
split: it chooses the best checkpoint, and the place on the line from the start to it (WiSE-FT).
Accuracy is that of the other images, the test split, with paired intervals against the start.

N: images, E: domains.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.errors import UserError
from vislang.evaluate.domains import PLAIN, DomainEmbeddings, complete, readable
from vislang.evaluate.scores import Scores
from vislang.lookup import nearest
from vislang.metrics.intervals import Interval, bootstrap_mean, paired_difference
from vislang.metrics.paired import holm, mean_share, share_change
from vislang.metrics.true_class import true_class

if TYPE_CHECKING:
    from jaxtyping import Bool

KINDS = ("standard", "own", "official")
RESAMPLES = 2000  # sign flips of a paired test


@dataclass(frozen=True)
class Hits:
    """Which images of a store one model names rightly.

    Args:
        ids, labels: of the images.
        domains: the plain one first.
        right: kind of prompts -> [N, E].
        notes: what was left out.
    """

    ids: list[str]
    labels: np.ndarray
    domains: tuple[str, ...]
    right: dict[str, Bool[np.ndarray, "N E"]]
    notes: list[str]


@dataclass(frozen=True)
class Moment:
    """A model on the way of a run.

    Args:
        step: optimizer steps done.
        epoch: true epochs: steps over the steps of an epoch.
        hits: what it names rightly.
        name: how tables call it where that is not its step ("start").
    """

    step: int
    epoch: float
    hits: Hits
    name: str = ""

    @property
    def label(self) -> str:
        """Its name, or its step."""
        return self.name or f"{self.step:,}"


def hits_of(rows: DomainEmbeddings) -> Hits:
    """Top-1 answers with every kind of prompts that the store has."""
    part = complete(rows, "checkpoints")
    if len(part.classes) < 2:
        raise UserError("checkpoints are judged by accuracy, which needs at least two classes.")
    right: dict[str, np.ndarray] = {}
    for kind in KINDS:
        columns = []
        for domain in part.domains:
            try:
                weight = part.class_vectors(kind, domain if kind == "own" else PLAIN)
            except UserError:
                if kind == "official":
                    break
                raise
            columns.append(true_class(part.rows(domain), weight, part.labels).rank == 0)
        else:
            right[kind] = np.stack(columns, axis=1)
    return Hits(part.ids, part.labels, part.domains, right, part.notes)


def valid_split(
    ids: Sequence[str], labels: np.ndarray, share: float, seed: int
) -> Bool[np.ndarray, " N"]:
    """Which images the best is chosen on: of each class the same share, by checksums of the ids.

    >>> int(valid_split(["a", "b", "c", "d"], np.array([0, 0, 1, 1]), 0.5, 0).sum())
    2
    """
    chosen = np.zeros(len(ids), bool)
    keys = [(zlib.crc32(f"{seed} {one}".encode()), one) for one in ids]
    for label in np.unique(labels):
        mine = sorted(np.flatnonzero(labels == label).tolist(), key=lambda row: keys[row])
        chosen[mine[: round(share * len(mine))]] = True
    if chosen.all() or not chosen.any():
        raise UserError(
            f"Of {len(ids):,} images a share of {share:g} leaves none to choose on, or none to test"
            " on: give more images, or another share (analysis_options.checkpoints.valid)."
        )
    return chosen


class Checkpoints:
    """How accuracy under described domains changes along a run, and where it is best.

    Args:
        choose: the kind of prompts by which the best is chosen: standard, own or official.
        valid: share of the images on which it is chosen; the others test it.
        alphas: places on the line from the start (0) to the best checkpoint (1), WiSE-FT.
        seed: of the split.
    """

    name = "checkpoints"

    def __init__(
        self,
        choose: str = "own",
        valid: float = 0.5,
        alphas: Sequence[float] = (0.2, 0.4, 0.6, 0.8),
        seed: int = 0,
    ):
        if choose not in KINDS:
            raise UserError(
                f"checkpoints: choose must be one of {', '.join(KINDS)}, got {choose!r}."
                f"{nearest(choose, KINDS)}"
            )
        if not 0 < valid < 1:
            raise UserError(f"checkpoints: valid must lie between 0 and 1, got {valid}.")
        self.alphas = tuple(sorted({float(alpha) for alpha in alphas}))
        if any(not 0 < alpha < 1 for alpha in self.alphas):
            raise UserError(f"checkpoints: alphas must lie between 0 and 1, got {alphas!r}.")
        self.choose, self.valid, self.seed = choose, valid, seed

    def settings(self) -> dict[str, Any]:
        """All options."""
        return {"choose": self.choose, "valid": self.valid, "alphas": list(self.alphas),
                "seed": self.seed}  # fmt: skip

    def split(self, hits: Hits) -> Bool[np.ndarray, " N"]:
        """The valid split of these images."""
        if self.choose not in hits.right:
            raise UserError(
                f"checkpoints: choose is {self.choose!r}, but there are no such prompts; there are"
                f" {', '.join(hits.right)} (--prompts)."
            )
        return valid_split(hits.ids, hits.labels, self.valid, self.seed)

    def best(self, moments: Sequence[Moment]) -> int:
        """Position of the best on the valid split; of equals the earliest."""
        valid = self.split(moments[0].hits)
        return int(np.argmax([m.hits.right[self.choose][valid].mean() for m in moments]))

    def score(self, moments: Sequence[Moment], line: Mapping[float, Hits] | None = None) -> Scores:
        """The scores.

        Args:
            moments: the start, then the checkpoints by step; all of the same images.
            line: alpha -> what the model between the start and the best names rightly.
        """
        start, line = moments[0], dict(line or {})
        for other in [*(m.hits for m in moments), *line.values()]:
            if other.ids != start.hits.ids or other.domains != start.hits.domains:
                raise UserError("checkpoints must be judged on the same images and domains.")
        valid = self.split(start.hits)
        top = moments[self.best(moments)]
        end = top if top is not start else moments[-1]
        tables, test = {}, ~valid
        for kind in start.hits.right:
            tables[f"{kind}_prompts"] = _moments_table(moments, kind, valid, kind == self.choose)
            tables[f"{kind}_prompts_by_domain"] = _domains_table(moments, kind, test)
        tables["best_by_domain"] = _best_table(start.hits, top.hits, self.choose, test)
        values = _values(start.hits, top.hits, self.choose, test)
        values["last_accuracy"] = _share(moments[-1].hits, self.choose, test)
        values["last_change"] = _change(moments[-1].hits, start.hits, self.choose, test)
        if line:
            every = {0.0: start.hits, **line, 1.0: end.hits}
            tables["line"] = _line_table(every, self.choose, valid)
            at = max(every, key=lambda a: (every[a].right[self.choose][valid].mean(), -a))
            values["wise_accuracy"] = _share(every[at], self.choose, test)
            values["wise_change"] = _change(every[at], start.hits, self.choose, test)
        else:
            at = None
        kept = [one for one, there in zip(start.hits.ids, test) if there]
        outcome = {
            f"{name}_accuracy": {
                "ids": kept,
                "values": m.hits.right[self.choose][test].mean(axis=1).round(6).tolist(),
            }
            for name, m in (("best", top), ("last", moments[-1]))
        }
        return Scores(
            self.name, int(test.sum()), values, tables=tables,
            per_sample=outcome if len(set(kept)) == len(kept) else None,
            notes=[*_sentences(moments, top, end, values, self.choose, at), *start.hits.notes],
        )  # fmt: skip


def _share(hits: Hits, kind: str, rows: np.ndarray) -> Interval:
    """Mean over images and domains."""
    return mean_share(hits.right[kind][rows].mean(axis=1))


def _change(hits: Hits, start: Hits, kind: str, rows: np.ndarray) -> Interval:
    """Paired change of the mean against the start, whole images resampled."""
    one, other = (h.right[kind][rows].sum(axis=1) for h in (hits, start))  # counts are exact
    return bootstrap_mean((one - other) / len(hits.domains))


def _values(start: Hits, top: Hits, kind: str, test: np.ndarray) -> dict[str, Interval]:
    plain = {"start": start.right[kind][test, 0], "best": top.right[kind][test, 0]}
    return {
        "start_accuracy": _share(start, kind, test),
        "best_accuracy": _share(top, kind, test),
        "best_change": _change(top, start, kind, test),
        "best_change_unchanged_images": share_change(plain["start"], plain["best"]).interval,
    }


def _moments_table(
    moments: Sequence[Moment], kind: str, valid: np.ndarray, tested: bool
) -> dict[str, list]:
    """A row a checkpoint; the paired test, with Holm's correction, for the kind that chooses."""
    start, test = moments[0].hits, ~valid
    rows, raised = [], []
    if tested:
        base = start.right[kind][test].mean(axis=1)
        p = [
            paired_difference(m.hits.right[kind][test].mean(axis=1), base, resamples=RESAMPLES).p
            for m in moments[1:]
        ]
        raised = [None, *holm(p)]
    for place, moment in enumerate(moments):
        here, change = _share(moment.hits, kind, test), _change(moment.hits, start, kind, test)
        row = [moment.label, moment.epoch, float(moment.hits.right[kind][valid].mean()),
               here.value, here.low, here.high, change.value, change.low, change.high]  # fmt: skip
        rows.append([*row, raised[place]] if tested else row)
    columns = ["step", "epoch", "valid split", "accuracy", "low", "high", "change", "low", "high"]
    return {"columns": [*columns, "p (Holm)"] if tested else columns, "rows": rows}


def _domains_table(moments: Sequence[Moment], kind: str, test: np.ndarray) -> dict[str, list]:
    """Change of accuracy against the start, a domain a row and a checkpoint a column."""
    start = moments[0].hits
    base = start.right[kind][test].mean(axis=0)
    change = [m.hits.right[kind][test].mean(axis=0) - base for m in moments[1:]]
    rows = [
        [domain, float(base[d]), *(float(one[d]) for one in change)]
        for d, domain in enumerate(start.domains)
    ]
    return {"columns": ["domain", "start", *(m.label for m in moments[1:])], "rows": rows}


def _best_table(start: Hits, top: Hits, kind: str, test: np.ndarray) -> dict[str, list]:
    """Start and best by domain, with the paired change."""
    pairs = [
        (start.right[kind][test, d], top.right[kind][test, d]) for d in range(len(start.domains))
    ]
    up, down = ([share_change(*pair[::way]) for pair in pairs] for way in (1, -1))
    raised = holm([min(1.0, 2 * min(one.p, other.p)) for one, other in zip(up, down)])
    rows = []
    for d, domain in enumerate(start.domains):
        ends = up[d].interval
        rows.append([domain, float(start.right[kind][test, d].mean()),
                     float(top.right[kind][test, d].mean()), ends.value, ends.low, ends.high,
                     raised[d]])  # fmt: skip
    columns = ["domain", "start", "best", "change", "low", "high", "p (Holm)"]
    return {"columns": columns, "rows": rows}


def _line_table(line: Mapping[float, Hits], kind: str, valid: np.ndarray) -> dict[str, list]:
    """WiSE-FT: unchanged images, all domains, and the paired change, by alpha."""
    rows, test = [], ~valid
    for alpha, hits in sorted(line.items()):
        here, change = _share(hits, kind, test), _change(hits, line[0.0], kind, test)
        rows.append([alpha, float(hits.right[kind][valid].mean()),
                     float(hits.right[kind][test, 0].mean()), here.value, here.low, here.high,
                     change.value, change.low, change.high])  # fmt: skip
    columns = ["alpha", "valid split", "unchanged images", "accuracy", "low", "high", "change",
               "low", "high"]  # fmt: skip
    return {"columns": columns, "rows": rows}


def _sentences(
    moments: Sequence[Moment], top: Moment, end: Moment, values: Mapping[str, Interval],
    kind: str, alpha: float | None,
) -> list[str]:  # fmt: skip
    """What was found, in plain words."""
    start, count = moments[0], len(moments[0].hits.domains)
    begin = f"{values['start_accuracy'].value:.1%}"
    if top is start:
        said = [
            f"No checkpoint is better than the start ({begin}, mean over {count} domains with"
            f" {kind} prompts) on the valid split, so the start is the best."
        ]
    else:
        said = [
            f"Chosen on the valid split, the best checkpoint is that of step {top.label} (epoch"
            f" {top.epoch:.4g}). On the test split it has {values['best_accuracy'].value:.1%}"
            f" (mean over {count} domains with {kind} prompts), the start {begin}:"
            f" {_points(values['best_change'])}."
        ]
        changes = top.hits.right[kind].mean(axis=0) - start.hits.right[kind].mean(axis=0)
        worst = int(np.argmin(changes))
        said.append(
            f"{int((changes > 0).sum())} of {count} domains gain and {int((changes < 0).sum())}"
            f" lose (all images), “{readable(top.hits.domains[worst])}” most:"
            f" {100 * changes[worst]:+.1f} points."
        )
    if alpha is not None:
        what = "the best" if end is top else f"the last checkpoint (step {end.label})"
        said.append(
            f"On the line from the start to {what} the valid split chooses alpha {alpha:g}, which"
            f" has {values['wise_accuracy'].value:.1%} on the test split:"
            f" {_points(values['wise_change'])}."
        )
    return said


def _points(change: Interval) -> str:
    low, high = 100 * change.low, 100 * change.high
    beyond = "" if low > 0 or high < 0 else "; not beyond chance"
    return (
        f"{100 * change.value:+.1f} points against the start"
        f" (95% interval {low:.1f} to {high:.1f}{beyond})"
    )
