"""Drawings of a run's checkpoints: accuracy by true epochs, change by domain, the WiSE-FT line."""

from collections.abc import Sequence
from typing import Any

from vislang.report.collect import Score
from vislang.report.markup import Html, tag
from vislang.report.plots import Series, line_chart
from vislang.report.shifts import columns_of, heat
from vislang.report.values import finite

KINDS = ("own", "standard", "official")
DROP = 0.05  # a fall between neighbours at which the early part is drawn once more by itself

Point = tuple[float, float, float | None, float | None]


def draw_checkpoints(score: Score) -> tuple[list[Html], set[str]]:
    """(drawings, names of the tables that they replace)."""
    lines = {kind: _points(score, f"{kind}_prompts", "accuracy") for kind in KINDS}
    lines = {kind: points for kind, points in lines.items() if len(points) > 1}
    changes = {kind: _points(score, f"{kind}_prompts", "change") for kind in lines}
    charts = []
    if lines:
        charts.append(_chart("Mean accuracy over domains", lines))
        charts.append(_chart("Change against the start", changes))
        early = {kind: _early(points) for kind, points in lines.items()}
        if any(1 < len(early[kind]) < len(lines[kind]) for kind in early):
            charts.append(_chart("Before the first fall of 5 points", early))
        first = {kind: [p for p in points if p[0] > 0] for kind, points in changes.items()}
        if all(len(points) > 2 and points[-1][0] / points[0][0] > 20 for points in first.values()):
            charts.append(_chart("The same change, epochs by powers of ten", first, log=True))
    drawn: list[Html] = []
    if charts:
        note = "Test split; thin marks are 95% intervals. An epoch is one of this run's own."
        drawn += [tag("div", charts, class_="curves"), tag("p", note, class_="note")]
    used = set()
    for kind in lines:
        made = _by_domain(score, kind)
        if made:
            drawn.append(made)
            used.add(f"{kind}_prompts_by_domain")
    if line := _line(score):
        drawn.append(tag("div", line, class_="curves"))
    return drawn, used


def _chart(title: str, lines: dict[str, list[Point]], log: bool = False) -> Html:
    series = [
        Series(f"{kind} prompts", points, KINDS.index(kind))
        for kind, points in lines.items()
        if points
    ]
    return line_chart(title, series, x_name="epoch", log_x=log)


def _points(score: Score, table: str, column: str) -> list[Point]:
    columns, rows = columns_of(score, table)
    if column not in columns or "epoch" not in columns:
        return []
    at, x = columns.index(column), columns.index("epoch")
    found = [(finite(row[x]), *(finite(value) for value in row[at : at + 3])) for row in rows]
    return [point for point in found if None not in point[:2]]  # type: ignore[misc]


def _early(points: Sequence[Point]) -> list[Point]:
    """Those before the first fall of more than five points between neighbours."""
    for place in range(1, len(points)):
        if points[place][1] < points[place - 1][1] - DROP:
            return list(points[:place])
    return list(points)


def _by_domain(score: Score, kind: str) -> Html | None:
    columns, rows = columns_of(score, f"{kind}_prompts_by_domain")
    if len(columns) < 3 or not rows:
        return None
    cells = [[finite(value) for value in row[2:]] for row in rows]
    most = max((abs(v) for row in cells for v in row if v is not None), default=0.0) or 1.0
    return heat(
        f"Change of accuracy by domain, {kind} prompts", ("domain ↓", "step →"),
        [str(row[0]) for row in rows], columns[2:], cells, _signed,
        "Points against the start on the test split; the darker, the more is gained.",
        (-most, most),
    )  # fmt: skip


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def _line(score: Score) -> list[Html]:
    columns, rows = columns_of(score, "line")
    if len(rows) < 2:
        return []

    def points(name: str, ends: bool) -> list[Any]:
        at = columns.index(name)
        return [
            (finite(row[0]), finite(row[at]), *(map(finite, row[at + 1 : at + 3]) if ends else
                                               (None, None)))
            for row in rows
        ]  # fmt: skip

    if not {"accuracy", "unchanged images"} <= set(columns):
        return []
    series = [
        Series("all domains", points("accuracy", True), 0),
        Series("unchanged images", points("unchanged images", False), 1),
    ]
    return [line_chart("From the start (0) to the fine-tuned (1), WiSE-FT", series, x_name="alpha")]
