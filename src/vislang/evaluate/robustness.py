"""Robustness and recovery: what a shift of the image costs, and how far naming it helps.

For an image i of class c with unit embedding x_d in domain d, and unit class vectors t_d (d = 0:
unchanged images, standard prompts):

    decrease(d) = x_0 · t_0c - x_d · t_0c        recovery(d) = x_d · t_dc - x_d · t_0c

and the same for the mean over the other classes, and for top-k accuracy. N: images, C: classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vislang.errors import UserError
from vislang.evaluate.domains import PLAIN, Complete, DomainEmbeddings, complete, readable
from vislang.evaluate.scores import Scores
from vislang.metrics.classify import accuracy
from vislang.metrics.intervals import Interval, normal_mean
from vislang.metrics.paired import Change, holm, mean_change, mean_share, share_change
from vislang.metrics.true_class import TrueClass, true_class

KS = (1, 5, 10)
PER_SAMPLE = 50_000  # images whose single outcomes are kept in the file


@dataclass(frozen=True)
class Effect:
    """What one shift did.

    Args:
        domain: its name.
        decrease, recovery: of the cosine to the own class.
        decrease_other, recovery_other: of the mean cosine to the other classes.
        standard, own: accuracy by k, with standard prompts and with the domain's own.
        lost, regained: by k, the change of accuracy: unchanged less shifted images, and own less
            standard prompts.
        official: top-1 accuracy with the official prompts, where there are any.
    """

    domain: str
    decrease: Change
    recovery: Change
    decrease_other: float
    recovery_other: float
    standard: dict[int, Interval]
    own: dict[int, Interval]
    lost: dict[int, Change]
    regained: dict[int, Change]
    official: Interval | None = None


@dataclass(frozen=True)
class Measured:
    """Robustness of one model on one set of images.

    Args:
        n, classes: images and classes.
        same_class, other_class: cosine of unchanged images to their own and to other classes.
        plain: accuracy by k of unchanged images.
        effects: by domain, in presentation order.
        official: top-1 accuracy of unchanged images with the official prompts, or None.
        hits: for each image, the share of domains in which top-1 was right, with standard and
            with own prompts.
    """

    n: int
    classes: int
    same_class: Interval
    other_class: Interval
    plain: dict[int, Interval]
    effects: dict[str, Effect]
    official: Interval | None
    hits: tuple[np.ndarray, np.ndarray]


def measure(rows: Complete, ks: tuple[int, ...] = KS, official: bool = True) -> Measured:
    """Every number of the analysis; one domain's rows are held at a time."""
    label, standard = rows.labels, rows.class_vectors("standard", PLAIN)
    plain = true_class(rows.rows(PLAIN), standard, label)
    weight = _official(rows) if official else None
    effects, share = {}, [np.zeros(len(label)), np.zeros(len(label))]
    for domain in rows.shifted:
        x, own_weight = rows.rows(domain), rows.class_vectors("own", domain)
        as_standard = true_class(x, standard, label)
        as_own = true_class(x, own_weight, label)
        named = None if weight is None else accuracy(true_class(x, weight, label).rank)
        effects[domain] = _effect(domain, plain, as_standard, as_own, ks, named)
        share[0] += as_standard.rank == 0
        share[1] += as_own.rank == 0
    shifts = max(len(effects), 1)
    first = None
    if weight is not None:
        first = accuracy(true_class(rows.rows(PLAIN), weight, label).rank)
    return Measured(
        len(label), len(standard), normal_mean(plain.own), normal_mean(plain.others),
        {k: accuracy(plain.rank, k) for k in ks}, effects, first,
        (share[0] / shifts, share[1] / shifts),
    )  # fmt: skip


def _official(rows: Complete) -> np.ndarray | None:
    try:
        return rows.class_vectors("official", PLAIN)
    except UserError:
        return None


def _effect(
    domain: str, plain: TrueClass, standard: TrueClass, own: TrueClass, ks, official
) -> Effect:
    lost = {k: share_change(standard.rank < k, plain.rank < k) for k in ks}
    regained = {k: share_change(standard.rank < k, own.rank < k) for k in ks}
    return Effect(
        domain=domain,
        decrease=mean_change(plain.own - standard.own),
        recovery=mean_change(own.own - standard.own),
        decrease_other=float((plain.others - standard.others).mean()),
        recovery_other=float((own.others - standard.others).mean()),
        standard={k: accuracy(standard.rank, k) for k in ks},
        own={k: accuracy(own.rank, k) for k in ks},
        lost=lost,
        regained=regained,
        official=official,
    )


class Robustness:
    """Robustness to described shifts: loss of cosine and accuracy, and what naming them regains.

    Args:
        ks: accuracies among the first k classes.
    """

    name = "robustness"

    def __init__(self, ks: tuple[int, ...] = KS):
        self.ks = tuple(ks)
        if not self.ks or any(not isinstance(k, int) or k < 1 for k in self.ks):
            raise UserError(f"robustness: ks must be whole numbers from 1 on, got {ks!r}.")

    def settings(self) -> dict[str, Any]:
        """All options."""
        return {"ks": list(self.ks)}

    def measure(self, rows: DomainEmbeddings) -> tuple[Complete, Measured]:
        """The complete part of the store, and its numbers."""
        part = complete(rows, self.name)
        return part, measure(part, self.ks)

    def score(self, rows: DomainEmbeddings) -> Scores:
        """Values, a table a question, and what they say in words."""
        return self.scores(*self.measure(rows))

    def scores(self, part: Complete, found: Measured) -> Scores:
        """What was measured in the form of a scores file."""
        return as_scores(part, found)


def as_scores(part: Complete, found: Measured) -> Scores:
    """The numbers in the form of a scores file."""
    effects = list(found.effects.values())
    told = found.classes > 1
    values = {"accuracy": found.plain[min(found.plain)]} if told else {}
    if told:
        values["shifted_accuracy"] = mean_share(found.hits[0])
        values["shifted_accuracy_own_prompts"] = mean_share(found.hits[1])
    values["cosine_own_class"] = found.same_class
    if told:
        values["cosine_other_classes"] = found.other_class
    tables = {"cosine": cosine_table(effects)}
    for k in found.plain if told else ():
        if k < found.classes:
            tables[f"accuracy_top_{k}"] = accuracy_table(effects, k)
    if found.official is not None and told:
        tables["official_prompts"] = official_table(effects, found.official)
    notes = [*sentences(found), *part.notes]
    if not told:
        notes.append("There is one class only, so accuracy says nothing and is left out.")
    outcome = None
    if told and found.n <= PER_SAMPLE and len(set(part.ids)) == len(part.ids):
        outcome = {
            name: {"ids": part.ids, "values": hits.round(6).tolist()}
            for name, hits in zip(("shifted_accuracy", "shifted_accuracy_own_prompts"), found.hits)
        }
    return Scores("robustness", found.n, values, tables=tables, per_sample=outcome, notes=notes)


def _row(change: Change) -> list[Any]:
    ends = change.interval
    return [ends.value, ends.low, ends.high]


def cosine_table(effects: list[Effect]) -> dict[str, list]:
    """Decrease and recovery of cosines, one domain a row; p also by Holm over the domains."""
    raised = [holm([getattr(e, side).p for e in effects]) for side in ("decrease", "recovery")]
    columns = [
        "domain", "decrease", "low", "high", "sd", "p", "p (Holm)", "recovery", "low", "high",
        "sd", "p", "p (Holm)", "decrease, other classes", "recovery, other classes",
    ]  # fmt: skip
    rows = [
        [e.domain, *_row(e.decrease), e.decrease.deviation, e.decrease.p, raised[0][i],
         *_row(e.recovery), e.recovery.deviation, e.recovery.p, raised[1][i],
         e.decrease_other, e.recovery_other]
        for i, e in enumerate(effects)
    ]  # fmt: skip
    return {"columns": columns, "rows": rows}


def accuracy_table(effects: list[Effect], k: int) -> dict[str, list]:
    """Top-k accuracy and its changes, one domain a row."""
    raised = [holm([getattr(e, side)[k].p for e in effects]) for side in ("lost", "regained")]
    columns = [
        "domain", "standard prompts", "low", "high", "own prompts", "low", "high", "decrease",
        "low", "high", "p (Holm)", "recovery", "low", "high", "p (Holm)",
    ]  # fmt: skip
    rows = []
    for i, e in enumerate(effects):
        ends = [(v.value, v.low, v.high) for v in (e.standard[k], e.own[k])]
        rows.append([e.domain, *ends[0], *ends[1], *_row(e.lost[k]), raised[0][i],
                     *_row(e.regained[k]), raised[1][i]])  # fmt: skip
    return {"columns": columns, "rows": rows}


def official_table(effects: list[Effect], plain: Interval) -> dict[str, list]:
    """Top-1 accuracy with the official prompts, one domain a row."""
    held = [(PLAIN, plain), *((e.domain, e.official) for e in effects if e.official is not None)]
    return {
        "columns": ["domain", "accuracy", "low", "high", "decrease"],
        "rows": [[name, v.value, v.low, v.high, plain.value - v.value] for name, v in held],
    }


def sentences(found: Measured) -> list[str]:
    """What broke most and what words repaired, in plain words."""
    effects = list(found.effects.values())
    if not effects:
        return []
    if found.classes < 2:
        worst = max(effects, key=lambda e: e.decrease.interval.value)
        return [f"The cosine to the class falls most for {_quoted(worst)}: by"
                f" {worst.decrease.interval.value:.3f}."]  # fmt: skip
    k = min(found.plain)
    worst = max(effects, key=lambda e: e.lost[k].interval.value)
    mildest = min(effects, key=lambda e: e.lost[k].interval.value)
    start = found.plain[k].value
    said = [
        f"Unchanged images are classified right in {start:.1%} of cases. {_quoted(worst)} breaks"
        f" most: {worst.standard[k].value:.1%} are right{_points(worst.lost[k], 'lost')}."
        f" {_quoted(mildest)} breaks least: {mildest.standard[k].value:.1%}."
    ]
    best = max(effects, key=lambda e: e.regained[k].interval.value)
    p_up = holm([e.regained[k].p for e in effects])
    up = [e for e, p in zip(effects, p_up) if p < 0.05]
    down = [e for e in effects if e.regained[k].interval.high < 0]
    gain = best.regained[k].interval.value
    if gain > 0:
        said.append(
            f"Naming the shift in the prompt repairs {_quoted(best)} most: from"
            f" {best.standard[k].value:.1%} to {best.own[k].value:.1%}"
            f"{_points(best.regained[k], 'won')}."
        )
    else:
        said.append("Naming the shift in the prompt raises accuracy for none of the shifts.")
    helped = f"helps beyond chance in {len(up)} of {len(effects)} shifts"
    helped += f" ({', '.join(readable(e.domain) for e in up)})" if up else ""
    hurt = f"hurts in {len(down)}"
    hurt += f" ({', '.join(readable(e.domain) for e in down)})" if down else ""
    said.append(f"Naming it {helped} and {hurt}.")
    return said


def _quoted(effect: Effect) -> str:
    return f"“{readable(effect.domain)}”"


def _points(change: Change, verb: str) -> str:
    """, 12.3 points lost (95% interval 10.1 to 14.5)"""
    value, low, high = (100 * v for v in _row(change))
    beyond = "" if low > 0 else "; not beyond chance"
    return f", {value:.1f} points {verb} (95% interval {low:.1f} to {high:.1f}{beyond})"
