"""Several runs side by side: metrics with intervals, curves laid over each other, what differs."""

from collections.abc import Mapping, Sequence
from typing import Any

from vislang.report.collect import Run, Score
from vislang.report.curves import overlaid
from vislang.report.drift import Drift, best, drift, outcomes_of
from vislang.report.evaluation import in_order, title_of
from vislang.report.markup import Html, breakable, comma, duration, foreign, join, number, tag
from vislang.report.plots import marker, whisker
from vislang.report.ranked import ranked
from vislang.report.sections import Section, status
from vislang.report.tables import flatten, interval, plain_text, scroll, table
from vislang.report.values import Value

HOW_BEST = (
    "“best” marks a run only where its interval lies clear of every other run's, or where both"
    " files give the outcome of each sample and the paired permutation test tells the runs apart"
    " (at 0.05 divided by the number of other runs). No mark: not told apart on these samples."
    " Intervals speak of the samples that were scored, not of other seeds."
)


def comparison(runs: Sequence[Run]) -> list[Section]:
    """The sections that only a report of several runs has."""
    standing = ranked(runs)
    return [
        Section("compare-runs", "The runs", _runs(runs)),
        *([Section("compare-ranks", "Ranking", standing)] if standing else []),
        Section("compare-metrics", "Metrics side by side", _metrics(runs)),
        Section("compare-curves", "Curves", overlaid(runs, _comparable(runs))),
        Section("compare-config", "What differs", _differences(runs)),
    ]


def _head(run: Run, colour: int) -> Html:
    """A run's name with the mark that it has in every drawing."""
    mark = tag("svg", marker(colour, 6, 6, 4), viewBox="0 0 12 12", aria_hidden="true")
    return tag("span", mark, foreign(run.name, 60), class_=f"run s{colour % 10}")


def _runs(runs: Sequence[Run]) -> Html:
    rows = []
    for place, run in enumerate(runs):
        towers = " + ".join(
            str(run.get(f"model.{side}.name"))
            for side in ("image", "text")
            if run.get(f"model.{side}.name")
        )
        seconds = run.log.seconds
        parameters = run.log.start.get("parameters")
        rows.append(
            [
                tag("a", _head(run, place), href=f"#run-{place + 1}"),
                towers or None,
                run.get("objective.name"),
                run.get("data.train"),
                parameters if isinstance(parameters, int) else plain_text(parameters),
                run.log.last_step or None,
                duration(seconds) if seconds else None,
                run.log.start.get("device"),
                status(run)[1],
            ]
        )
    columns = [
        "run",
        "towers",
        "objective",
        "trained on",
        "parameters",
        "steps",
        "time",
        "device",
        "status",
    ]
    return table(columns, rows, "The runs")


def _metrics(runs: Sequence[Run]) -> Html:
    """One table for each evaluation and each group of comparable runs."""
    byname = _by_name(runs)
    if not byname:
        return tag("p", "None of the runs has scores yet.", class_="missing")
    named = {run.name: run for run in runs}
    parts: list[Any] = [tag("p", HOW_BEST, class_="note")]
    for score in in_order({name: next(iter(scores.values())) for name, scores in byname.items()}):
        scores = byname[score.name]
        found = drift(named, scores)
        parts.append(tag("h3", foreign(title_of(score), 80)))
        parts += _verdict(found)
        for place, group in enumerate(found.groups):
            caption = title_of(score)
            caption += (
                f", group {'ABCDEFGHIJKLMNOPQRSTUVWXYZ'[place % 26]}" if found.refused else ""
            )
            parts.append(_group(runs, {n: scores[n] for n in group}, caption))
        without = [run.name for run in runs if run.name not in scores]
        if without:
            text = ["Not scored: ", comma(foreign(name, 60) for name in without), "."]
            parts.append(tag("p", text, class_="note"))
    return join(parts)


def _by_name(runs: Sequence[Run]) -> dict[str, dict[str, Score]]:
    """Name of an evaluation -> run -> its latest score."""
    found: dict[str, dict[str, Score]] = {}
    for run in runs:
        for name, score in run.latest.items():
            found.setdefault(name, {})[run.name] = score
    return found


def _comparable(runs: Sequence[Run]) -> dict[str, list[list[str]]]:
    """Name of an evaluation -> groups of runs whose curves may be laid over each other."""
    named = {run.name: run for run in runs}
    return {name: drift(named, scores).groups for name, scores in _by_name(runs).items()}


def _verdict(found: Drift) -> list[Html]:
    shown = []
    if found.refused:
        shown.append(
            tag(
                "div",
                tag("strong", "Not comparable: the comparison is refused."),
                " These numbers were not taken in the same way, so they stand in separate groups,"
                " and no best is marked across groups. To compare them, evaluate the runs again"
                " with the same source and settings. What differs:",
                tag("ul", [tag("li", foreign(line, 500)) for line in found.refused]),
                class_="refused",
                role="note",
            )
        )
    shown += [tag("p", foreign(line, 600), class_="warning") for line in found.warned]
    return shown


def _group(runs: Sequence[Run], scores: Mapping[str, Score], caption: str) -> Html:
    """Rows: metrics; columns: runs; each row has a scale of its own, shown beneath its name."""
    places = {run.name: place for place, run in enumerate(runs)}
    metrics = dict.fromkeys(metric for score in scores.values() for metric in score.values)
    rows = [_row(metric, scores, places) for metric in metrics]
    named = {run.name: run for run in runs}
    heads = []
    for name, score in scores.items():
        at = f"step {score.step:,}" if score.step is not None else score.at
        count = f"n = {score.n:,}, " if score.n is not None else ""
        heads.append(
            tag("th", _head(named[name], places[name]), tag("small", f"{count}{at}"), scope="col")
        )
    grid = tag(
        "table",
        tag("caption", foreign(caption, 120)),
        tag("thead", tag("tr", tag("th", "metric", scope="col"), heads)),
        tag("tbody", rows),
        class_="data compare",
    )
    return scroll(grid, caption)


def _row(metric: str, scores: Mapping[str, Score], places: Mapping[str, int]) -> Html:
    values = {name: score.values.get(metric, Value(None)) for name, score in scores.items()}
    known = {name: value for name, value in values.items() if value.value is not None}
    pairs = {n: found for n, score in scores.items() if (found := outcomes_of(score, metric))}
    top = best(known, pairs) if len(known) == len(values) else None
    low, high = _scale(known.values())
    cells = [_value(value, low, high, places[name], name == top) for name, value in values.items()]
    aims = {value.better for value in known.values()}
    arrow = {"higher": "higher is better", "lower": "lower is better"}.get(next(iter(aims), ""), "")
    scale = f"scale {number(low)}–{number(high)}" if known else ""
    below = [tag("small", text) for text in (arrow, scale) if text]
    return tag("tr", tag("th", breakable(metric), below, scope="row"), cells)


def _scale(values: Any) -> tuple[float, float]:
    """From the lowest to the highest end of the row, so that small differences can be seen."""
    ends = [e for value in values for e in (value.value, value.low, value.high) if e is not None]
    if not ends:
        return 0.0, 1.0
    low, high = min(ends), max(ends)
    margin = (high - low) * 0.05 or abs(high) * 0.05 or 0.5
    # A margin must not suggest that a share could be negative or more than one.
    return (
        max(low - margin, 0.0) if low >= 0 else low - margin,
        min(high + margin, 1.0) if high <= 1 else high + margin,
    )


def _value(value: Value, low: float, high: float, colour: int, top: bool) -> Html:
    if value.value is None:
        return tag("td", "–", class_="number")
    return tag(
        "td",
        tag("span", number(value.value), class_="value"),
        tag("span", interval(value) if value.has_interval else "no interval", class_="ends"),
        tag("span", "best", class_="badge") if top else None,
        whisker(value, low, high, colour),
        class_="number best" if top else "number",
        data_v=value.value,
    )


def _differences(runs: Sequence[Run]) -> Html:
    """Config fields whose values are not the same in all runs."""
    missing = [run.name for run in runs if not run.config]
    note = None
    if missing:
        text = ["No config: ", comma(foreign(name, 60) for name in missing), "."]
        note = tag("p", text, class_="missing")
    flat = [flatten(run.config) for run in runs]
    rows = []
    for field in dict.fromkeys(key for one in flat for key in one):
        values = [plain_text(one[field]) if field in one else "–" for one in flat]
        if len(set(values)) > 1:
            rows.append([field, *values])
    if not rows:
        return join([note, tag("p", "All config fields are the same.", class_="note")])
    return join([note, table(["field", *(run.name for run in runs)], rows, "Differing fields")])
