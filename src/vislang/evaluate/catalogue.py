"""Probe and few-shot over many data sets: those that are there, what is missing, one table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislang.data.proper_names import NAMES
from vislang.errors import UserError
from vislang.evaluate.datasets import DataSet, Opened, chosen, open_dataset
from vislang.evaluate.runner import evaluate
from vislang.evaluate.scores import Scores, write_scores
from vislang.files import fingerprint
from vislang.metrics.intervals import Interval

if TYPE_CHECKING:
    from vislang.models.dual import DualEncoder

SUITE = ("probe", "fewshot")
WITHOUT_TRAINING = ("zeroshot", "retrieval", "overview", "cluster")


def evaluate_datasets(
    model: DualEncoder | str | Path,
    names: Sequence[str],
    root: Path | str,
    folder: Path | str,
    *,
    suite: Sequence[str] = SUITE,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    step: int | str = 0,
    **how: Any,
) -> Scores:
    """Run evaluations on data sets of the catalogue and sum them up.

    Each data set's scores go to `<folder>/datasets/<name>/scores/<step>/`, the summary with its
    averages to `<folder>/scores/<step>/datasets.json`. A data set that is not there, or of which
    an evaluation fails, is a row of the table "missing".

    Args:
        model: a dual encoder, or a MODEL of the commands.
        names: of the catalogue, or "all".
        root: folder below which the data sets lie.
        folder: for scores and stores.
        suite: evaluations.
        options: evaluation -> options; the probe's metric and validation are the data set's, and
            zero-shot takes its proper class names in the prompts "photos" unless told otherwise.
        step: of the model.
        how: batch_size, device, precision, workers of `evaluate`.

    Raises:
        UserError: an unknown name, or not one data set is there.
    """
    rows: list[list[Any]] = []
    made_from: dict[str, Any] = {}
    missing: list[list[str]] = []
    values: dict[str, dict[str, Interval]] = {}
    from vislang.models.pretrained import as_model

    made, name = as_model(model), str(model) if isinstance(model, str | Path) else ""
    for entry in chosen(names):
        try:
            opened = open_dataset(entry, root, train=not set(suite) <= set(WITHOUT_TRAINING))
            scores = _evaluate_one(made, entry, opened, Path(folder), suite, options, step, how)
        except UserError as error:
            missing.append([entry.name, str(error)])
            continue
        for metric, value in headlines(entry, scores).items():
            values.setdefault(metric, {})[entry.name] = value
        made_from[entry.name] = {s.evaluation: s.provenance for s in scores}
        rows.append([entry.name, entry.metric, scores[0].n, opened.how.get("test", "")])
    if not rows:
        what = "; ".join(reason for _, reason in missing[:3])
        raise UserError(f"Not one of {len(missing)} data sets could be evaluated. {what}")
    about = _provenance(made_from, name, step)
    found = _summary(rows, missing, values, about)
    write_scores(
        found, Path(folder) / "scores" / (f"{step:09d}" if isinstance(step, int) else step)
    )
    return found


def _evaluate_one(
    model: DualEncoder,
    entry: DataSet,
    opened: Opened,
    folder: Path,
    suite: Sequence[str],
    options: Mapping[str, Mapping[str, Any]] | None,
    step: int | str,
    how: Mapping[str, Any],
) -> list[Scores]:
    asked = [name for name in suite if name != "fewshot" or entry.few]
    if not asked:
        raise UserError(f"{entry.name} has {entry.classes} classes: no few-shot episodes of five.")
    given = {name: dict((options or {}).get(name, {})) for name in asked}
    if "probe" in given:
        own = {"metric": entry.metric, "validation": opened.validation}
        given["probe"] = own | given["probe"]
    if "zeroshot" in given and entry.name in NAMES:
        own = {"classes": entry.name, "prompts": "photos"}
        given["zeroshot"] = own | given["zeroshot"]
    return evaluate(
        model, opened.test, asked, folder / "datasets" / entry.name, train_source=opened.train,
        options=given, step=step, **how,
    )  # fmt: skip


def headlines(entry: DataSet, scores: Sequence[Scores]) -> dict[str, Interval]:
    """The number of each evaluation that the data set is judged by."""
    found: dict[str, Interval] = {}
    for score in scores:
        if entry.metric in score.values:
            found[score.evaluation] = score.values[entry.metric]
        else:
            named = {k: v for k, v in score.values.items() if k.startswith("accuracy")}
            for metric, value in (named or score.values).items():
                found[f"{score.evaluation} {metric.removeprefix('accuracy_')}"] = value
    return found


def average(values: Sequence[Interval]) -> Interval:
    """Mean over data sets; its interval takes their errors as independent.

    half-width = sqrt(Σ half-width²) / k, so it tells the error of this set of k data sets and
    nothing of others.

    >>> found = average([Interval(0.5, 0.4, 0.6, 10, "a"), Interval(0.7, 0.6, 0.8, 10, "a")])
    >>> round(found.value, 3), round(found.high - found.value, 3), found.n
    (0.6, 0.071, 2)
    """
    k = len(values)
    mean = sum(v.value for v in values) / k
    below = math.sqrt(sum((v.value - v.low) ** 2 for v in values)) / k
    above = math.sqrt(sum((v.high - v.value) ** 2 for v in values)) / k
    return Interval(mean, mean - below, mean + above, k, "mean of data sets, 95%")


def _summary(
    rows: list[list[Any]],
    missing: list[list[str]],
    values: Mapping[str, Mapping[str, Interval]],
    about: dict[str, Any],
) -> Scores:
    metrics = list(values)
    columns = ["data set", "metric", "n", "test samples", *metrics]
    body = [[*row, *(_cell(values[metric].get(row[0])) for metric in metrics)] for row in rows]
    averages = {metric: average(list(values[metric].values())) for metric in metrics}
    body.append(["average", "", len(rows), "", *(_cell(averages[m]) for m in metrics)])
    tables = {"datasets": {"columns": columns, "rows": body}}
    notes = []
    if missing:
        tables["missing"] = {"columns": ["data set", "why, and how to get it"], "rows": missing}
        notes.append(f"{len(missing)} data sets were not evaluated: the averages are without them.")
    shown = {
        f"{metric}: {where}": value
        for metric in metrics
        for where, value in [("average", averages[metric]), *values[metric].items()]
    }
    total = sum(row[2] for row in rows)
    return Scores(
        "datasets", total, shown, tables=tables, notes=notes, provenance=about, better="higher"
    )


def _provenance(made: Mapping[str, Any], model: str, step: int | str) -> dict[str, Any]:
    """What the summary depends on: model, every source, every evaluation's settings."""
    first = next(iter(next(iter(made.values())).values()))
    sources = {
        name: {key: of.get("source_fingerprint") for key, of in each.items()}
        for name, each in made.items()
    }
    return {
        **{key: first[key] for key in ("model_fingerprint", "versions") if key in first},
        "model": model or first.get("model", ""),
        "step": step,
        "source": ", ".join(made),
        "source_fingerprint": fingerprint(sources),
        "settings": {
            name: {key: of.get("settings") for key, of in each.items()}
            for name, each in made.items()
        },
    }


def _cell(value: Interval | None) -> Any:
    return None if value is None else value.as_row()
