"""The ranking of runs as a part of the page: radar, bars with intervals, pairs and tests."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vislang.report.collect import Run
from vislang.report.markup import Html, breakable, clip, foreign, join, number, tag, visible
from vislang.report.plots import COLOURS, marker
from vislang.report.ranking import LEAST, Ranking, Result, rank, results_of
from vislang.report.tables import interval, scroll, table
from vislang.report.values import Value

SIZE, RADIUS = 420, 116  # of the radar, in its own units
INNER = 0.15  # of the radius: where the worst run of an axis stands
MOST_AXES = 16
MOST_BARS = 24

HOW = (
    "A result is a headline metric of an evaluation, or a single set of one with many, that every"
    " run has and that was taken in the same way. Rank 1 is the best; equal values share a rank."
    " One result tells two runs apart where the test says so at 0.05 after Holm's correction over"
    " all pairs and results: McNemar's exact test or the paired permutation test where both files"
    " give the outcome of each sample, otherwise the unpaired normal test of the intervals. Over"
    " all results: Wilcoxon's signed-rank test, Holm over pairs (Demšar 2006); it needs at least"
    f" {LEAST} results that differ. Results of one model are not independent of each other, so its"
    " p is a guide."
)


def ranked(runs: Sequence[Run]) -> Html | None:
    """Ranking, radar, bars and pairs; None where the runs share no result."""
    results, left = results_of(runs)
    if not results:
        return None
    found = rank(results)
    places = {run.name: place for place, run in enumerate(runs)}
    note = None
    if left:
        note = tag(
            "div",
            tag("strong", "Left out of the ranking:"),
            tag("ul", [tag("li", foreign(line, 400)) for line in left]),
            class_="warning",
        )
    return join([
        tag("p", HOW, class_="note"),
        note,
        _standings(found, results, places),
        tag("div", radar(results, places), bars(results, places), class_="ranked"),
        _pairs(found, len(results)),
    ])  # fmt: skip


def _standings(found: Ranking, results: Sequence[Result], places: Mapping[str, int]) -> Html:
    first = dict.fromkeys(found.ranks, 0)
    for result in results:
        spot = result.places()
        for name in spot:
            first[name] += spot[name] == min(spot.values())
    rows = [
        [_named(name, places[name]), round(mean, 2), first[name]]
        for name, mean in found.ranks.items()
    ]
    return table(["run", "mean rank", f"first of {len(results)} results"], rows, "Mean ranks")


def _named(name: str, place: int) -> Html:
    mark = tag("svg", marker(place, 6, 6, 4), viewBox="0 0 12 12", aria_hidden="true")
    return tag("span", mark, foreign(name, 60), class_=f"run s{place % COLOURS}")


def _pairs(found: Ranking, results: int) -> Html:
    rows: list[list[Any]] = [
        [p.one, p.other, p.better, p.worse, p.level, None if p.p is None else number(p.p)]
        for p in found.pairs
    ]
    columns = ["run", "against", "better", "worse", "not told apart", "p over results (Holm)"]
    return table(columns, rows, f"Pairs over {results} results")


def span(result: Result) -> tuple[float, float]:
    """(worst, best) value of any run in a result; of lower-is-better the larger is the worst."""
    values = [v.value or 0.0 for v in result.values.values()]
    ends = (min(values), max(values))
    return ends if result.sign > 0 else (ends[1], ends[0])


def radar(results: Sequence[Result], places: Mapping[str, int]) -> Html | None:
    """One axis a result, outward better, from the worst to the best run of that result.

    Axes have scales of their own, written at their ends: a radar shows profiles, not sizes. Fewer
    than three results make none.
    """
    shown = results[:MOST_AXES]
    if len(shown) < 3:
        return None
    middle = SIZE / 2
    angles = [2 * math.pi * i / len(shown) - math.pi / 2 for i in range(len(shown))]

    def spot(angle: float, share: float) -> tuple[float, float]:
        r = RADIUS * (INNER + (1 - INNER) * share)
        return round(middle + r * math.cos(angle), 1), round(middle + r * math.sin(angle), 1)

    def at(angle: float, share: float) -> str:
        return "{:g} {:g}".format(*spot(angle, share))

    rings = [
        tag("path", d="M" + "L".join(at(a, s) for a in angles) + "Z", class_="grid")
        for s in (0.0, 0.5, 1.0)
    ]
    spokes = [tag("path", d=f"M{middle:g} {middle:g}L{at(a, 1.0)}", class_="grid") for a in angles]
    metrics = [result.metric for result in shown]
    names = [
        _axis_name(r, r.title if metrics.count(r.metric) > 1 else r.metric, angle, middle)
        for r, angle in zip(shown, angles)
    ]
    lines = []
    for name, place in places.items():
        shares = [_share(result, name) for result in shown]
        outline = "M" + "L".join(at(a, s) for a, s in zip(angles, shares)) + "Z"
        spots = [spot(a, s) for a, s in zip(angles, shares)]
        dots = [marker(place, x, y, 3.0) for x, y in spots]
        shape = tag("path", d=outline, class_="line")
        lines.append(tag("g", shape, dots, class_=f"s{place % COLOURS}"))
    told = f"Radar of {len(shown)} results for {len(places)} runs; the bars give the values."
    drawing = tag(
        "svg", tag("title", told), rings, spokes, names, lines,
        viewBox=f"0 0 {SIZE} {SIZE}", role="img", class_="chart radar",
    )  # fmt: skip
    legend = [tag("li", _named(name, place)) for name, place in places.items()]
    more = f" The first {MOST_AXES} of {len(results)} results." if len(results) > MOST_AXES else ""
    caption = "Outward is better; each axis runs from the worst to the best run." + more
    return tag(
        "figure",
        tag("figcaption", tag("span", "Radar", tag("small", caption))),
        drawing,
        tag("ul", legend, class_="legend"),
        class_="curve",
    )


def _share(result: Result, name: str) -> float:
    worst, best = span(result)
    value = result.values[name].value or 0.0
    return (value - worst) / (best - worst) if best != worst else 1.0


def _axis_name(result: Result, name: str, angle: float, middle: float) -> Html:
    x, y = (middle + (RADIUS + 14) * f(angle) for f in (math.cos, math.sin))
    anchor = "middle" if abs(math.cos(angle)) < 0.3 else "start" if math.cos(angle) > 0 else "end"
    worst, best = span(result)
    below = tag("tspan", f"{number(worst)}–{number(best)}", x=round(x, 1), dy=11, class_="ends")
    text = visible(clip(name, 19))
    title = tag("title", f"{result.title}: {visible(clip(result.metric, 80))}")
    return tag(
        "text", title, tag("tspan", text, x=round(x, 1)), below,
        x=round(x, 1), y=round(y, 1), class_=f"tick {anchor}",
    )  # fmt: skip


def bars(results: Sequence[Result], places: Mapping[str, int]) -> Html:
    """A bar for each run in each result, from zero, with its interval."""
    body = []
    for result in results[:MOST_BARS]:
        low, high = _reach(result.values.values())
        for row, (name, value) in enumerate(result.values.items()):
            place = places[name]
            head = None
            if not row:
                title = tag("small", result.title) if result.title else None
                size = len(result.values)
                named = breakable(result.metric, 40)
                head = tag("th", named, title, scope="rowgroup", rowspan=size)
            body.append(tag(
                "tr", head, tag("td", _named(name, place), class_="who"),
                tag("td", number(value.value), tag("small", interval(value))
                    if value.has_interval else None, class_="number"),
                tag("td", _bar(value, low, high), class_=f"bar s{place % COLOURS}"),
            ))  # fmt: skip
    left = len(results) - MOST_BARS
    more = f" The first {MOST_BARS} of {len(results)} results." if left > 0 else ""
    grid = tag(
        "table",
        tag("caption", f"Bars start at zero; whiskers are the intervals.{more}"),
        tag("tbody", body),
        class_="ranks",
    )
    return scroll(grid, "Bars")


def _reach(values: Any) -> tuple[float, float]:
    """A scale that holds zero, every value and every interval."""
    ends = [e for v in values for e in (v.value, v.low, v.high) if e is not None]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    return (low, high) if high > low else (low, low + 1.0)


def _bar(value: Value, low: float, high: float) -> Html:
    def at(x: float) -> float:
        return round(200 * (x - low) / (high - low), 1)

    ends = sorted((at(0.0), at(value.value or 0.0)))
    inner = [tag("rect", x=ends[0], y=2, width=max(ends[1] - ends[0], 0.5), height=10,
                 class_="fill")]  # fmt: skip
    if value.has_interval:
        reach = f"M{at(value.low or 0.0)} 7H{at(value.high or 0.0)}"
        inner.append(tag("path", d=reach, class_="reach"))
    return tag(
        "svg", inner, viewBox="0 0 200 14", preserveAspectRatio="none", aria_hidden="true"
    )  # fmt: skip
