"""Drawings of described domains: mirrored bars, the transfer matrix, angles, shares of variance.

Bars are rows of a table, each with two small stretched drawings, so that names and numbers keep
their size on a narrow screen. Every number that is drawn stands in a table of the scores file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vislang.report.collect import Run, Score
from vislang.report.markup import Html, foreign, number, tag
from vislang.report.matrices import LEVELS
from vislang.report.plots import Series, line_chart
from vislang.report.tables import scroll
from vislang.report.values import finite

Row = tuple[str, "Bar | None", "Bar | None"]


@dataclass(frozen=True)
class Bar:
    """A value with its interval."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Panel:
    """One side of mirrored bars.

    Args:
        title: what the bars are.
        kind: colour: lost, won, other or even.
        line: where a dashed line stands; None for none.
        line_is: what it means.
    """

    title: str
    kind: str
    line: float | None = None
    line_is: str = ""


def draw(score: Score) -> tuple[list[Html], set[str]]:
    """(drawings of an evaluation, names of the tables that they replace)."""
    if score.evaluation == "checkpoints":  # drawn from the parts below
        from vislang.report.checkpoints import draw_checkpoints

        return draw_checkpoints(score)
    made = DRAWN.get(score.evaluation)
    return made(score) if made else ([], set())


def mirrored(
    title: str, left: Panel, right: Panel, rows: Sequence[Row], percent: bool = False
) -> Html:
    """Bars that grow to the left and to the right from one middle, on equal scales.

    A negative value stands on the other side of its zero.
    """
    held = [bar for row in rows for bar in row[1:] if bar is not None]
    if not held:
        return tag("p", f"{title}: the file holds no finite number.", class_="missing")
    low, high = _span(held, (left.line, right.line))
    write = _percent if percent else number
    head = tag(
        "tr",
        tag("th", "domain", scope="col"),
        tag("th", left.title, scope="col", colspan="2", class_="side"),
        tag("th", right.title, scope="col", colspan="2", class_="side"),
    )
    ends = tag(
        "tr",
        tag("td", ""),
        tag("td", _scale(low, high, write, True)),
        tag("td", "", colspan="2"),
        tag("td", _scale(low, high, write, False)),
        class_="scale",
    )
    body = [
        tag(
            "tr",
            tag("th", foreign(_readable(name), 40), scope="row"),
            _side(one, left, low, high, True),
            tag("td", write(one.value) if one else "–", class_="number"),
            tag("td", write(other.value) if other else "–", class_="number"),
            _side(other, right, low, high, False),
        )
        for name, one, other in rows
    ]
    grid = tag("table", tag("thead", head, ends), tag("tbody", body), class_="bars")
    lines = [
        f"dashed on the {where}: {p.line_is} ({write(p.line)})"
        for where, p in (("left", left), ("right", right))
        if p.line is not None
    ]
    note = "Thin marks are 95% intervals" + "".join(f"; {line}" for line in lines) + "."
    caption = tag("figcaption", tag("span", title))
    return tag("figure", caption, scroll(grid, title), tag("p", note, class_="note"))


def _span(bars: Sequence[Bar], lines: Sequence[float | None]) -> tuple[float, float]:
    ends = [e for bar in bars for e in (bar.value, bar.low, bar.high) if e is not None]
    ends += [line for line in lines if line is not None]
    low, high = min(0.0, *ends), max(0.0, *ends)
    return (low, high) if high > low else (low, low + 1.0)


def _side(bar: Bar | None, panel: Panel, low: float, high: float, reverse: bool) -> Html:
    def at(value: float) -> float:
        share = (high - value if reverse else value - low) / (high - low)
        return round(100 * min(max(share, 0.0), 1.0), 2)

    inner = [tag("path", d=f"M{at(0)} 0V10", class_="zero-line")]
    if bar is not None:
        start, stop = sorted((at(0), at(bar.value)))
        wide = max(stop - start, 0.4)
        inner.append(tag("rect", x=start, y=1.5, width=round(wide, 2), height=7, class_="fill"))
        if bar.low is not None and bar.high is not None:
            inner.append(tag("path", d=f"M{at(bar.low)} 5H{at(bar.high)}", class_="reach"))
    if panel.line is not None:
        inner.append(tag("path", d=f"M{at(panel.line)} 0V10", class_="level"))
    drawing = tag(
        "svg", inner, viewBox="0 0 100 10", preserveAspectRatio="none", aria_hidden="true"
    )
    return tag("td", drawing, class_=f"bar {panel.kind}")


def _scale(low: float, high: float, write: Callable[[Any], str], reverse: bool) -> Html:
    ends = [write(low), write(high)]
    return tag("span", [tag("small", end) for end in (ends[::-1] if reverse else ends)])


def _percent(value: Any) -> str:
    return f"{100 * value:.1f}%".replace("-", "−")


def heat(
    title: str, corner: tuple[str, str], names: Sequence[str], columns: Sequence[str],
    cells: Sequence[Sequence[float | None]], write: Callable[[float], str],
    note: str, ends: tuple[float, float] | None = None,
) -> Html:  # fmt: skip
    """Numbers as a table whose cells are coloured from the smallest to the largest."""
    known = [value for row in cells for value in row if value is not None]
    if not known:
        return tag("p", f"{title}: the file holds no finite number.", class_="missing")
    low, high = ends or (min(known), max(known))
    head = [tag("th", *(tag("span", part) for part in corner), scope="col", class_="corner")]
    head += [tag("th", tag("span", foreign(_readable(c), 40)), scope="col") for c in columns]
    body = [
        tag(
            "tr",
            tag("th", tag("span", foreign(_readable(name), 40)), scope="row"),
            [_cell(value, low, high, write) for value in row],
        )
        for name, row in zip(names, cells)
    ]
    grid = tag(
        "table", tag("thead", tag("tr", head)), tag("tbody", body), class_="heat confusion shifts"
    )
    caption = tag("figcaption", tag("span", title))
    return tag("figure", caption, scroll(grid, title), tag("p", note, class_="note"))


def _cell(value: float | None, low: float, high: float, write: Callable[[float], str]) -> Html:
    if value is None:
        return tag("td", "–")
    share = (value - low) / ((high - low) or 1.0)
    return tag("td", write(value), class_=f"r{round(min(max(share, 0.0), 1.0) * LEVELS)}")


def columns_of(score: Score, name: str) -> tuple[list[str], list[list[Any]]]:
    """(columns, rows) of a table of the file; empty where it cannot be read."""
    body = score.mapping("tables").get(name)
    columns = body.get("columns") if isinstance(body, Mapping) else None
    rows = body.get("rows") if isinstance(body, Mapping) else None
    if not isinstance(columns, list) or not isinstance(rows, list):
        return [], []
    fit = [row for row in rows if isinstance(row, list) and len(row) == len(columns)]
    return [str(column) for column in columns], fit


def _bar(columns: Sequence[str], row: Sequence[Any], name: str) -> Bar | None:
    """The value of a column, with the interval in the two columns behind it."""
    if name not in columns:
        return None
    at = list(columns).index(name)
    value = finite(row[at])
    if value is None:
        return None
    ends = list(columns[at + 1 : at + 3]) == ["low", "high"]
    return Bar(value, *(finite(v) for v in row[at + 1 : at + 3])) if ends else Bar(value)


def _rows(score: Score, table: str, left: str, right: str) -> list[Row]:
    columns, rows = columns_of(score, table)
    return [(str(row[0]), _bar(columns, row, left), _bar(columns, row, right)) for row in rows]


def _value(score: Score, name: str) -> float | None:
    return score.values[name].value if name in score.values else None


def _robustness(score: Score) -> tuple[list[Html], set[str]]:
    shown = []
    for k in (1, 5, 10):
        rows = _rows(score, f"accuracy_top_{k}", "decrease", "recovery")
        if not rows or k > 1:
            continue
        start = _value(score, "accuracy")
        shown.append(mirrored(
            "Top-1 accuracy: what each shift costs, and what naming it brings back",
            Panel("lost by the shift", "lost", start, "accuracy of unchanged images"),
            Panel("won back by its own prompts", "won"), rows, percent=True,
        ))  # fmt: skip
    rows = _rows(score, "cosine", "decrease", "recovery")
    own, other = _value(score, "cosine_own_class"), _value(score, "cosine_other_classes")
    gap = own - other if own is not None and other is not None else None
    meaning = "cosine to the own class less that to others, unchanged images"
    shown.append(mirrored(
        "Cosine to the image's own class",
        Panel("decrease by the shift", "lost", gap, meaning),
        Panel("recovery by its own prompts", "won"), rows,
    ))  # fmt: skip
    rows = _rows(score, "cosine", "recovery, other classes", "recovery")
    shown.append(mirrored(
        "Recovery: does naming the shift move all classes, or the right one?",
        Panel("other classes", "other"), Panel("own class", "won"), rows,
    ))  # fmt: skip
    return shown, set()


def _transfer(score: Score) -> tuple[list[Html], set[str]]:
    columns, rows = columns_of(score, "matrix")
    shown = []
    if rows:
        cells = [[finite(value) for value in row[1:]] for row in rows]
        shown.append(heat(
            "Accuracy of probes fitted on one domain, scored on all",
            ("fitted on ↓", "scored on →"),
            [str(row[0]) for row in rows], columns[1:], cells, lambda v: f"{100 * v:.0f}",
            "Per cent of the test images. The diagonal is a probe of the domain's own images; a"
            " row that stays dark transfers.",
        ))  # fmt: skip
    pairs = _rows(score, "decrease", "zero-shot", "own probe")
    if any(row[1] is not None for row in pairs):
        shown.append(mirrored(
            "What a shift costs: zero-shot, and a probe fitted on the shifted images",
            Panel("zero-shot", "lost"), Panel("probe of its own", "even"), pairs, percent=True,
        ))  # fmt: skip
    return shown, {"matrix"} if rows else set()


def _subspace(score: Score) -> tuple[list[Html], set[str]]:
    shown, used = [], set()
    for side in ("image", "text"):
        name = f"{side}_angles"
        columns, rows = columns_of(score, name)
        if rows and len(columns) > 1:
            used.add(name)
            cells = [[finite(value) for value in row[1:]] for row in rows]
            shown.append(heat(
                f"Angles between components of class and domain, {side}s",
                ("class ↓", "domain →"), [str(row[0]) for row in rows], columns[1:],
                [[None if v is None else 90 - v for v in row] for row in cells],
                lambda v: f"{90 - v:.0f}",
                "Degrees; 90 is apart, and the darker, the more a direction serves both.",
                (0.0, 90.0),
            ))  # fmt: skip
    curves = []
    for side in ("image", "text"):
        name = f"{side}_components"
        columns, rows = columns_of(score, name)
        series = [
            Series(what, [(row[0], finite(row[columns.index(f"{what} share")]) or 0.0, None, None)
                          for row in rows], colour)
            for colour, what in enumerate(("class", "domain"))
            if f"{what} share" in columns
        ]  # fmt: skip
        if series and rows:
            used.add(name)
            title = f"Share of variance, {side}s"
            curves.append(line_chart(title, series, x_name="component", fraction=True))
    if curves:
        shown.append(tag("div", curves, class_="curves"))
    return shown, used


def _typographic(score: Score) -> tuple[list[Html], set[str]]:
    shown, used = [], set()
    rows = _rows(score, "conditions", "answered the other word", "accuracy")
    if rows:
        shown.append(mirrored(
            "Answers by what is on the paper",
            Panel("answered the other word", "lost"), Panel("right", "won"), rows, percent=True,
        ))  # fmt: skip
    columns, photos = columns_of(score, "photo_cosines")
    if photos:
        used.add("photo_cosines")
        shown.append(heat(
            "Real photos: cosine to every answer", ("photo ↓", "answer →"),
            [str(row[0]) for row in photos], columns[1:],
            [[finite(value) for value in row[1:]] for row in photos], lambda v: f"{v:.2f}",
            "The darker, the nearer.",
        ))  # fmt: skip
    return shown, used


def _readable(domain: str) -> str:
    return "unchanged" if domain == "noop" else domain.removeprefix("make_").replace("_", " ")


DRAWN: dict[str, Callable[[Score], tuple[list[Html], set[str]]]] = {
    "robustness": _robustness,
    "transfer": _transfer,
    "subspace": _subspace,
    "typographic": _typographic,
}


def only_told(run: Run) -> bool:
    """Whether a folder holds what `vislang probe` wrote, and no training."""
    told = any(score.evaluation in TOLD for score in run.scores)
    return told and not run.config and not run.log.lines


# Evaluations whose notes are findings.
TOLD = ("checkpoints", "robustness", "transfer", "subspace", "typographic", "bias")
