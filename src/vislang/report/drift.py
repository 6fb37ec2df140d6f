"""What may be compared: the drift linter, and when a run may be called the best.

Numbers of one evaluation are comparable when they were taken on the same data, with the same
prompts and settings. Where they were not, the comparison is refused: runs fall into groups, each of
which is compared only within itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vislang.files import fingerprint
from vislang.report.collect import Run, Score
from vislang.report.tables import flatten, plain_text
from vislang.report.values import Value, finite

# Settings that say how the work was carried out, not what was measured.
INNOCENT = {"batch_size", "chunk", "workers", "threads", "device", "out", "folder", "cache"}
PRECISION = {"precision", "dtype"}
PREPROCESS = "preprocess"


@dataclass
class Drift:
    """Whether the scores of one evaluation may stand side by side.

    Args:
        groups: names of runs that are comparable with each other; one group is the good case.
        refused: what differs between the groups.
        warned: what differs but belongs to the model (its input size), or cannot be checked.
    """

    groups: list[list[str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)


def drift(runs: Mapping[str, Run], scores: Mapping[str, Score]) -> Drift:
    """Compare the provenance behind scores of the same evaluation, run by run."""
    found = Drift()
    keys = {name: _key(runs[name], score, runs, scores) for name, score in scores.items()}
    groups: dict[str, list[str]] = {}
    for name, key in keys.items():
        groups.setdefault(fingerprint(key), []).append(name)
    found.groups = list(groups.values())
    if len(groups) > 1:
        found.refused = _differing(keys)
    unknown = [name for name, score in scores.items() if not _source_fingerprint(score)]
    if unknown and len(scores) > 1:
        found.warned.append(
            f"{_names(unknown)}: the scores name no fingerprint of their source, so it cannot be"
            " checked that the data were the same."
        )
    preprocess = {name: _preprocess(score) for name, score in scores.items()}
    if len({fingerprint(value) for value in preprocess.values()}) > 1 and len(groups) == 1:
        sizes = "; ".join(f"{name}: {plain_text(value)}" for name, value in preprocess.items())
        found.warned.append(
            "The towers differ and so does the preprocessing of their pictures; a difference in"
            f" scores is that of both together ({sizes})."
        )
    precision = {name: _precision(score) for name, score in scores.items()}
    if len({fingerprint(value) for value in precision.values()}) > 1:
        each = "; ".join(f"{name}: {plain_text(value)}" for name, value in precision.items())
        found.warned.append(f"The precision differs, which may move scores a little ({each}).")
    return found


def _key(
    run: Run, score: Score, runs: Mapping[str, Run], scores: Mapping[str, Score]
) -> dict[str, Any]:
    """Everything that must be equal for two scores to be comparable."""
    settings = score.provenance.get("settings")
    settings = dict(settings) if isinstance(settings, Mapping) else {}
    kept = {
        name: value
        for name, value in flatten(settings).items()
        if name.split(".")[0] not in INNOCENT | PRECISION | {PREPROCESS}
    }
    key: dict[str, Any] = {f"setting {name}": value for name, value in kept.items()}
    mark = _source_fingerprint(score)
    key |= {"source fingerprint": mark} if mark else {"source": score.provenance.get("source")}
    key["n"] = score.n
    # Another preprocessing in front of the same tower is drift; of another tower it is its own.
    tower = fingerprint(run.get("model.image") or run.name)
    same_tower = [
        _preprocess(other)
        for name, other in scores.items()
        if fingerprint(runs[name].get("model.image") or name) == tower
    ]
    if len({fingerprint(value) for value in same_tower}) > 1:
        key["preprocessing in front of the same tower"] = _preprocess(score)
    return key


def _source_fingerprint(score: Score) -> str:
    return str(score.provenance.get("source_fingerprint") or "")


def _preprocess(score: Score) -> Any:
    settings = score.provenance.get("settings")
    inner = settings.get(PREPROCESS) if isinstance(settings, Mapping) else None
    return score.provenance.get(PREPROCESS) or inner


def _precision(score: Score) -> dict[str, Any]:
    settings = score.provenance.get("settings")
    settings = settings if isinstance(settings, Mapping) else {}
    return {name: settings[name] for name in sorted(PRECISION) if name in settings}


def _differing(keys: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """For each name whose value is not the same in all runs, who has what."""
    lines = []
    for name in sorted({name for key in keys.values() for name in key}):
        values: dict[str, list[str]] = {}
        for run, key in keys.items():
            values.setdefault(plain_text(key.get(name)), []).append(run)
        if len(values) > 1:
            each = "; ".join(f"{_names(who)}: {value[:120]}" for value, who in values.items())
            lines.append(f"{name} ({each})")
    return lines


def _names(names: Sequence[str]) -> str:
    return ", ".join(names)


def best(values: Mapping[str, Value], outcomes: Mapping[str, "Outcomes"]) -> str | None:
    """The run that is better than every other beyond chance, or None.

    Two runs differ beyond chance when their intervals do not overlap, or, where both files give
    the outcome of each sample, when the paired test says so at 0.05 / (number of other runs).

    Args:
        values: run -> Value of one metric; all must have intervals.
        outcomes: run -> its outcomes by sample, for runs whose files give them.
    """
    known = {name: value for name, value in values.items() if value.has_interval}
    aims = {value.better for value in known.values()}
    if len(known) < 2 or len(known) < len(values) or len(aims) != 1 or aims == {""}:
        return None
    sign = 1.0 if aims == {"higher"} else -1.0
    top = max(known, key=lambda name: sign * (known[name].value or 0.0))
    level = 0.05 / (len(known) - 1)
    for name, other in known.items():
        if name == top or _apart(known[top], other):
            continue
        if name not in outcomes or top not in outcomes:
            return None
        p = paired_p(outcomes[top], outcomes[name])
        if p is None or p >= level:
            return None
    return top


def _apart(one: Value, other: Value) -> bool:
    """Whether two intervals do not overlap."""
    ends = (one.low, one.high, other.low, other.high)
    assert None not in ends
    return one.low > other.high or one.high < other.low  # type: ignore[operator]


@dataclass(frozen=True)
class Outcomes:
    """The outcome of each sample for one metric, from "per_sample" of a scores file.

    Args:
        ids: the samples, each once.
        values: right or wrong (1, 0), or any score, in the order of `ids`.
        groups: which independent thing each belongs to (captions of one image); none by default.
    """

    ids: tuple[str, ...]
    values: tuple[float, ...]
    groups: tuple[int, ...] | None = None


def paired_p(one: Outcomes, other: Outcomes) -> float | None:
    """Two-sided p of the paired permutation test; None where the samples are not the same."""
    from vislang.metrics.intervals import paired_difference

    place = {id_: i for i, id_ in enumerate(other.ids)}
    if not one.ids or set(one.ids) != set(place) or one.groups != other.groups:
        return None
    if one.groups is not None and one.ids != other.ids:
        return None
    values = [other.values[place[id_]] for id_ in one.ids]
    groups = None if one.groups is None else np.asarray(one.groups)
    return paired_difference(np.asarray(one.values), np.asarray(values), groups).p


def outcomes_of(score: Score, metric: str) -> Outcomes | None:
    """The optional part {"per_sample": {metric: {"ids", "values", "groups"}}} of a scores file."""
    part = score.mapping("per_sample").get(metric)
    if not isinstance(part, Mapping):
        return None
    ids, values, groups = part.get("ids"), part.get("values"), part.get("groups")
    if not isinstance(ids, list) or not isinstance(values, list) or len(ids) != len(values):
        return None
    numbers = [finite(float(v) if isinstance(v, bool) else v) for v in values]
    named = tuple(str(id_) for id_ in ids)
    if None in numbers or len(set(named)) != len(named):
        return None
    if (
        isinstance(groups, list)
        and len(groups) == len(ids)
        and all(isinstance(group, int) for group in groups)
    ):
        return Outcomes(named, tuple(numbers), tuple(groups))  # type: ignore[arg-type]
    return Outcomes(named, tuple(numbers))  # type: ignore[arg-type]
