"""Learning curves of one run, or of several laid over each other."""

from collections.abc import Mapping, Sequence

from vislang.files import fingerprint
from vislang.report.collect import Run
from vislang.report.evaluation import headline_names, in_order, title_of
from vislang.report.markup import Html, join, tag
from vislang.report.plots import Series, line_chart
from vislang.report.values import Value

TRAINING = {
    "loss": "loss",
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "scale": "scale (1 / temperature)",
    "samples_per_s": "samples per second",
    "data_wait": "waiting for data, share of time",
}
OVERLAID = ("loss", "lr", "grad_norm", "scale", "samples_per_s")
MOST_LINES = 6  # of one chart
MOST_METRICS = 2  # of one evaluation, in the comparison


def learning(run: Run) -> Html:
    """Every curve of the log: what training wrote, diagnostics of features, evaluations."""
    if not run.log.curves and not run.log.evaluations and not _has_history(run):
        return tag("p", "The log holds no values yet, so there are no curves.", class_="missing")
    training = [_chart(title, [_line(run, name)]) for name, title in TRAINING.items()]
    others = [name for name in sorted(run.log.curves) if name not in TRAINING]
    # Objectives repeat the scale among their parts, where it would only flatten the losses.
    others = [name for name in others if name.removeprefix("parts.") not in TRAINING]
    parts = [name for name in others if name.startswith("parts.")]
    if len(parts) > 1:
        lines = [_line(run, name, name.removeprefix("parts."), i) for i, name in enumerate(parts)]
        training.insert(1, _chart("parts of the loss", lines[:MOST_LINES]))
    features = [
        _chart(name.replace("_", " "), [_line(run, name)]) for name in others if name not in parts
    ]
    groups = [
        ("Training", training),
        ("Feature diagnostics", features),
        ("Evaluations during training", _evaluations(run)),
    ]
    return join(
        [
            [tag("h3", name), tag("div", charts, class_="curves")]
            for name, charts in groups
            if join(charts)
        ]
    )


def _has_history(run: Run) -> bool:
    return len({score.step for score in run.scores}) > 1


def _chart(title: str, lines: Sequence[Series], fraction: bool = False) -> Html:
    return line_chart(title, lines, fraction=fraction)


def _line(run: Run, name: str, shown: str = "", colour: int = 0) -> Series:
    points = [(step, value, None, None) for step, value in run.log.curve(name)]
    return Series(shown or name, points, colour)


def _evaluations(run: Run) -> list[Html]:
    """One chart for each evaluation that was scored at two steps or more."""
    charts = []
    names = [score.name for score in in_order(run.latest)]
    names += [name for name in run.log.evaluations if name not in names]
    titles = {name: title_of(score) for name, score in run.latest.items()}
    for name in names:
        history = {m: steps for m, steps in run.history(name).items() if len(_points(steps)) > 1}
        lines = [Series(m, _points(steps)) for m, steps in history.items()]
        # Fractions and the rest (ranks, distances) do not share a scale.
        for fraction in (True, False):
            fit = [line for line in lines if _fraction(line) is fraction][:MOST_LINES]
            drawn = [Series(line.name, line.points, i) for i, line in enumerate(fit)]
            title = titles.get(name, name)
            title += f": {drawn[0].name}" if len(drawn) == 1 else ""
            charts.append(_chart(title, drawn, fraction))
    return charts


def _points(
    steps: Mapping[int, Value],
) -> list[tuple[float, float, float | None, float | None]]:
    return [
        (step, value.value, value.low, value.high)
        for step, value in sorted(steps.items())
        if value.value is not None
    ]


def _fraction(line: Series) -> bool:
    return all(0 <= point[1] <= 1 for point in line.points)


def overlaid(runs: Sequence[Run], comparable: Mapping[str, Sequence[Sequence[str]]]) -> Html:
    """The curves of several runs in one drawing for each quantity.

    Args:
        runs: the runs, each keeping its colour.
        comparable: evaluation -> groups of runs that the drift linter lets stand together; only
            within a group are curves laid over each other.
    """
    charts = [
        _chart(TRAINING[name], [_line(run, name, run.name, i) for i, run in enumerate(runs)])
        for name in OVERLAID
        if sum(bool(run.log.curves.get(name)) for run in runs) > 1
    ]
    charts += _overlaid_evaluations(runs, comparable)
    if not join(charts):
        text = "Fewer than two of the runs have curves, so none are laid over each other."
        return tag("p", text, class_="missing")
    objectives = {str(run.get("objective")) for run in runs if run.get("objective")}
    note = None
    if len(objectives) > 1:
        text = (
            "The runs minimise different objectives, so their losses have different scales:"
            " compare the shapes of these curves, not their heights."
        )
        note = tag("p", text, class_="warning")
    return join([note, tag("div", charts, class_="curves")])


def _overlaid_evaluations(
    runs: Sequence[Run], comparable: Mapping[str, Sequence[Sequence[str]]]
) -> list[Html]:
    charts = []
    places = {run.name: place for place, run in enumerate(runs)}
    names = [*comparable, *dict.fromkeys(n for run in runs for n in run.log.evaluations)]
    for name in dict.fromkeys(names):
        for members in _on_same_data(runs, comparable.get(name, [[run.name for run in runs]])):
            metrics = dict.fromkeys(m for run in members for m in run.history(name))
            first = headline_names(metrics) or list(metrics)
            for metric in first[:MOST_METRICS]:
                lines = [
                    Series(run.name, points, places[run.name])
                    for run in members
                    if len(points := _points(run.history(name).get(metric, {}))) > 1
                ]
                if len(lines) > 1:
                    fraction = all(map(_fraction, lines))
                    charts.append(_chart(f"{name}: {metric}", lines, fraction))
    return charts


def _on_same_data(runs: Sequence[Run], groups: Sequence[Sequence[str]]) -> list[list[Run]]:
    """Groups of runs that were also judged on the same source while they trained."""
    found: dict[str, list[Run]] = {}
    for place, group in enumerate(groups):
        for run in runs:
            if run.name in group:
                judged = fingerprint([place, run.get("data.valid"), run.get("data.valid_options")])
                found.setdefault(judged, []).append(run)
    return list(found.values())
