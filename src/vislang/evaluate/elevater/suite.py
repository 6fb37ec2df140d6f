"""ELEVATER over its sets: scores of each, predictions to submit, the table of all.

from vislang.evaluate.elevater.suite import evaluate_elevater
evaluate_elevater("runs/a", ["all"], "data/elevater", "runs/a", options={"tasks": ["zeroshot"]})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.data.decode import Limits
from vislang.data.elevater_sets import LEADERBOARD, ElevaterSet, chosen_sets
from vislang.errors import UserError
from vislang.evaluate.catalogue import average
from vislang.evaluate.elevater.material import Material
from vislang.evaluate.elevater.predictions import Predictions, write_predictions
from vislang.evaluate.elevater.settings import ElevaterOptions, Task, make_options
from vislang.evaluate.elevater.work import Answer, Work
from vislang.evaluate.provenance import versions
from vislang.evaluate.scores import Scores, Table, write_scores
from vislang.files import fingerprint
from vislang.metrics.elevater import CONVENTIONS, elevater_metric
from vislang.metrics.intervals import Interval, bootstrap, wilson

if TYPE_CHECKING:
    from vislang.models.dual import DualEncoder

RESAMPLES = 200


def evaluate_elevater(
    model: DualEncoder | str | Path,
    names: Sequence[str],
    root: Path | str,
    folder: Path | str,
    *,
    options: Mapping[str, Any] | ElevaterOptions | None = None,
    step: int | str = 0,
    batch_size: int = 64,
    device: str = "auto",
    precision: str = "auto",
    workers: int = 0,
    limits: Limits = Limits(),  # noqa: B008  frozen
) -> Scores:
    """Run ELEVATER's tasks on its sets.

    Images are embedded once a set for all tasks of frozen towers; stores in `<folder>/stores` are
    used again. Scores of a set go to `<folder>/elevater/<set>/scores/<step>/<task>.json`,
    predictions to `<folder>/elevater/predictions/<task>/` (`vislang submit elevater` makes the zip
    of them), the table of all sets to `<folder>/scores/<step>/elevater.json`. A set that is absent,
    or fails, is a row of the table "missing".

    Args:
        model: a dual encoder or an image side, or a MODEL of the commands.
        names: of sets; all stands for the leaderboard's twenty.
        root: the folder that holds classification/.
        folder: usually the run folder.
        options: see ElevaterOptions.
        step: of the model.
        batch_size, device, precision, workers, limits: as everywhere.

    Raises:
        UserError: unknown names or options, or not one set could be evaluated.
    """
    asked = options if isinstance(options, ElevaterOptions) else make_options(options)
    sets = chosen_sets(names, asked.registry)
    name = str(model) if isinstance(model, str | Path) else "in memory"
    from vislang.models.pretrained import as_model

    model = as_model(model)
    if model.text is None and any(task.kind == "zeroshot" for task in asked.asked):
        raise UserError(
            "The task zeroshot needs a text side, and this model has none: leave it out, as in"
            " tasks: [probe:5, probe:full]."
        )
    how = {"batch_size": batch_size, "device": device, "precision": precision, "workers": workers,
           "limits": limits}  # fmt: skip
    folder = Path(folder)
    done: list[_Done] = []
    missing: list[list[str]] = []
    given = asked.as_settings() if isinstance(options, ElevaterOptions) else dict(options or {})
    about = _about(model, name, asked, step, how)
    about |= {"data_root": str(root), "suite_options": given}  # so that it can be repeated
    for entry in sets:
        material = Material(entry, model, Path(root), asked, folder / "stores", how)
        try:
            done += _evaluate_set(material, folder, step, about)
        except UserError as error:
            missing.append([entry.name, str(error)])
    if not done:
        raise UserError(
            f"Not one of {len(sets)} sets of ELEVATER could be evaluated. {missing[0][0]}:"
            f" {missing[0][1]}"
        )
    found = _summary(done, missing, asked, about)
    write_scores(found, folder / "scores" / _step_name(step))
    return found


class _Done:
    """One task on one set."""

    def __init__(self, entry: ElevaterSet, task: Task, scores: Scores, answers: list[Answer]):
        self.entry, self.task, self.scores, self.answers = entry, task, scores, answers


def _evaluate_set(
    material: Material, folder: Path, step: int | str, about: Mapping[str, Any]
) -> list[_Done]:
    tasks, entry = material.options.asked, material.entry
    work = Work(material, tasks)
    found = []
    for task in tasks:
        seeds = work.seeds(task)
        answers = [work.run(task, seed) for seed in seeds]
        for seed, answer in zip(seeds, answers):
            home = folder / "elevater" / "predictions" / task.slug
            write_predictions(_record(material, task, seed, answer, about["model"]), home)
        scores = _score(material, task, seeds, answers, work.notes, about)
        place = folder / "elevater" / entry.name / "scores" / _step_name(step)
        write_scores(scores, place, task.slug)
        found.append(_Done(entry, task, scores, answers))
    work.close()
    return found


def _record(
    material: Material, task: Task, seed: int, answer: Answer, model_name: str
) -> Predictions:
    """What the leaderboard is told; the toolkit puts CLIP- before the name in zero-shot."""
    model, o = material.model, material.options
    own = sum(p.numel() for p in model.parameters())
    image = sum(p.numel() for p in model.side("image").parameters())
    name = o.model_name or model_name
    if not task.shots and o.protocol == "elevater":
        name = f"CLIP-{name}"
    return Predictions(
        name, material.entry.registered, answer.trainable, own + answer.extra, image, own,
        task.shots, (seed,), answer.rows[None],
    )  # fmt: skip


def metric_interval(metric: str, rows: np.ndarray, label: np.ndarray, convention: str) -> Interval:
    """A metric with its interval: Wilson's for accuracy, else by resampling samples.

    >>> metric_interval("accuracy", np.eye(2), np.array([0, 1]), "standard").method
    'wilson 95%'
    """
    value = elevater_metric(metric, rows, label, convention)
    if metric == "accuracy":
        return wilson(round(value * len(label)), len(label))

    def again(chosen: np.ndarray) -> float:
        try:
            return elevater_metric(metric, rows[chosen], label[chosen], convention)
        except UserError:  # a resample without one of the classes
            return value

    return bootstrap(again, len(label), resamples=RESAMPLES)


def _over_seeds(found: Sequence[Interval]) -> Interval:
    """Mean over seeds; its ends are the means of theirs: they share the test samples."""
    if len(found) == 1:
        return found[0]
    value, low, high = (float(np.mean([getattr(f, k) for f in found]))
                        for k in ("value", "low", "high"))  # fmt: skip
    return Interval(value, low, high, found[0].n, f"{found[0].method}, mean of {len(found)} seeds")


def _score(
    material: Material,
    task: Task,
    seeds: Sequence[int],
    answers: Sequence[Answer],
    notes: Sequence[str],
    about: Mapping[str, Any],
) -> Scores:
    entry, o = material.entry, material.options
    label = material.test.targets()
    values: dict[str, Interval] = {}
    rows = []
    each: dict[str, list[Interval]] = {}
    for convention in CONVENTIONS:
        each[convention] = [
            metric_interval(entry.metric, answer.rows, label, convention) for answer in answers
        ]
        values[value_name(entry.metric, convention, task, o)] = _over_seeds(each[convention])
    for k, seed in enumerate(seeds):
        answer = answers[k]
        rows.append([seed, *(each[c][k].value for c in CONVENTIONS), answer.trainable,
                     *(answer.chosen.get(name) for name in _CHOSEN)])  # fmt: skip
    tables: dict[str, Table] = {
        "seeds": {"columns": ["seed", *CONVENTIONS, "trainable parameters", *_CHOSEN],
                  "rows": rows},
    }  # fmt: skip
    told, prompts = [f"Protocol: {protocol_name(task, o)}."], ""
    if material.model.text is not None:
        told.append(f"Names and templates: {material.words.origin}.")
        prompts = fingerprint(material.prompts)
        ways = [[template] for template in material.words.templates]
        tables["prompts"] = {"columns": ["template"], "rows": ways}
    settings = {**about["settings"], "task": task.name, "set": entry.registered,
                "prompts": prompts, "protocol": protocol_name(task, o)}  # fmt: skip
    train = {} if task.kind == "zeroshot" else {"train": material.train.fingerprint}
    made = {**about, "source": str(material.test.home), "settings": settings | train,
            "source_fingerprint": material.test.fingerprint}  # fmt: skip
    outcome = None
    if not entry.multi_label and len(answers) == 1:
        hits = (answers[0].rows.argmax(1) == label).astype(int).tolist()
        outcome = {"accuracy": {"ids": material.test.ids, "values": hits}}
    return Scores("elevater", len(label), values, tables=tables, notes=[*told, *notes],
                  per_sample=outcome, provenance=made)  # fmt: skip


_CHOSEN = ("rate", "weight decay", "penalty", "share", "epoch", "held-out score", "trainings")


def protocol_name(task: Task, o: ElevaterOptions) -> str:
    """The protocol in words, as every result names it."""
    if task.kind == "zeroshot":
        return f"{o.protocol}, {task.name}"
    if o.protocol != "elevater":
        return f"validated, {task.name}: chosen on held-out training samples"
    search = "rate and decay searched" if o.search else "rate and decay given"
    epoch = "epoch chosen on test samples" if o.epoch == "best_on_test" else "last epoch"
    return f"elevater, {task.name}: {search}, {epoch}"


def value_name(metric: str, convention: str, task: Task, o: ElevaterOptions) -> str:
    """The name of a value: metric and convention, and whether test samples chose the epoch."""
    chosen = task.kind != "zeroshot" and o.protocol == "elevater" and o.epoch == "best_on_test"
    return f"{metric} ({convention}{', epoch chosen on test' if chosen else ''})"


def _summary(
    done: Sequence[_Done],
    missing: list[list[str]],
    o: ElevaterOptions,
    about: Mapping[str, Any],
) -> Scores:
    tasks = list(dict.fromkeys(one.task for one in done))
    cells = {(one.task, one.entry.name): list(one.scores.values.values()) for one in done}
    entries = list(dict.fromkeys(one.entry for one in done))
    size = {one.entry.name: one.scores.n for one in done}
    columns = ["set", "metric", "test samples",
               *(f"{t.name} ({c})" for t in tasks for c in CONVENTIONS)]  # fmt: skip
    body = []
    for entry in entries:
        found = [cells.get((task, entry.name)) for task in tasks]
        row = [f[k].as_row() if f else None for f in found for k in range(len(CONVENTIONS))]
        body.append([entry.name, entry.metric, size[entry.name], *row])
    values: dict[str, Interval] = {}
    for task in tasks:
        for k, convention in enumerate(CONVENTIONS):
            own = [cells[task, e.name][k] for e in entries if (task, e.name) in cells]
            values[f"{task.name}: average ({convention})"] = average(own)
    body.append(["average", "", len(entries), *(v.as_row() for v in values.values())])
    for one in done:
        value = next(iter(one.scores.values.items()))
        values[f"{one.task.name}: {one.entry.name} {value[0]}"] = value[1]
    tables: dict[str, Table] = {
        "sets": {"columns": columns, "rows": body}, "parameters": _parameters(done)
    }  # fmt: skip
    if missing:
        tables["missing"] = {"columns": ["set", "why"], "rows": missing}
    notes = [f"Protocols: {'; '.join(protocol_name(task, o) for task in tasks)}."]
    there = 0 if o.registry else len({e.name for e in entries} & set(LEADERBOARD))
    if there < len(LEADERBOARD):
        notes.append(
            f"The averages are over {len(entries)} sets, the leaderboard's over its 20, of which"
            f" these have {there}: they cannot be compared."
        )
    made = {**about, "source": ", ".join(e.name for e in entries),
            "source_fingerprint": fingerprint([d.scores.provenance["source_fingerprint"]
                                               for d in done])}  # fmt: skip
    total = sum(size.values())
    return Scores("elevater", total, values, tables=tables, notes=notes, provenance=made)


def _parameters(done: Sequence[_Done]) -> Table:
    rows = [
        [one.entry.name, one.task.name, one.answers[0].trainable, one.answers[0].extra]
        for one in done
    ]
    return {"columns": ["set", "task", "trainable", "beside the model's own"], "rows": rows}


def _about(
    model: DualEncoder, name: str, o: ElevaterOptions, step: int | str, how: Mapping[str, Any]
) -> dict[str, Any]:
    from vislang.models.fingerprint import fingerprint_model

    settings = {**replace(o, model_name="").as_settings(),
                **{k: str(v) for k, v in how.items() if k != "workers"}}  # fmt: skip
    return {"model": name, "model_fingerprint": fingerprint_model(model), "step": step,
            "settings": settings, "versions": versions()}  # fmt: skip


def _step_name(step: int | str) -> str:
    return f"{step:09d}" if isinstance(step, int) else str(step)
