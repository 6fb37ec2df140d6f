"""Learning curves and interval marks as inline SVG that takes its colours from the page.

A drawing never carries a colour of its own: classes s0 ... s9 pick one from the theme, and the
shape of a marker repeats what the colour says, for those who do not see the difference.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from vislang.report.markup import Html, clip, foreign, number, tag, visible
from vislang.report.values import Value

WIDTH, HEIGHT = 360, 200  # of the drawing, in its own units; it scales with the page
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 26
MOST_POINTS = 240  # of one line; more are drawn as means of neighbours with their range
COLOURS = 10
SHAPES = ("circle", "square", "triangle", "diamond", "cross")


@dataclass(frozen=True)
class Series:
    """One line: points are (x, y, low, high), low and high None without an interval."""

    name: str
    points: Sequence[tuple[float, float, float | None, float | None]]
    colour: int = 0


@dataclass(frozen=True)
class Axis:
    """Maps values to places along one side of the drawing."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def at(self, value: float) -> float:
        """Place of a value, rounded to a tenth of a unit to keep the page small."""
        low, high = self._measure(self.low), self._measure(self.high)
        share = (self._measure(value) - low) / ((high - low) or 1.0)
        return round(self.start + share * (self.stop - self.start), 1)

    def _measure(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self.log else value


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers within [low, high], about as many as asked for.

    >>> ticks(0, 1), ticks(0.13, 4.6)
    ([0.0, 0.25, 0.5, 0.75, 1.0], [1.0, 2.0, 3.0, 4.0])
    """
    span = high - low
    if not span > 0:
        return [low]
    rough = span / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * min((1, 2, 2.5, 5, 10), key=lambda m: abs(m * power - rough))
    first = math.ceil(low / step - 1e-9)
    found = []
    while (first + len(found)) * step <= high + step * 1e-9:
        found.append(float(f"{(first + len(found)) * step:.12g}"))
    return found


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within [low, high], thinned to at most five."""
    powers = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
    every = max(1, math.ceil(len(powers) / 5))
    return [10.0**power for power in powers[::every]]


def tick_texts(values: Sequence[float]) -> list[str]:
    """Short labels, all written in one way.

    >>> tick_texts([0.0, 0.25, 0.5]), tick_texts([0.0, 500, 1000]), tick_texts([0, 0.0005, 0.001])
    (['0', '0.25', '0.5'], ['0', '500', '1,000'], ['0', '5e-4', '1e-3'])
    """
    most = max((abs(value) for value in values), default=0.0)
    if 0 < most < 0.01 or most >= 1e9:
        return [_power(value) for value in values]
    if most >= 1e4:
        unit, name = (1e6, "M") if most >= 1e6 else (1e3, "k")
        return [f"{value / unit:g}{name}" if value else "0" for value in values]
    return [f"{value:,.6g}" for value in values]


def _power(value: float) -> str:
    digits, _, power = f"{value:.2e}".partition("e")
    return f"{float(digits):g}e{int(power)}" if value else "0"


def thin(points: Sequence[tuple], most: int = MOST_POINTS) -> tuple[list[tuple], int]:
    """At most `most` points; each stands for `k` neighbours by their mean, low and high.

    Returns:
        the points, and k (1: they are as measured).
    """
    if len(points) <= most:
        return list(points), 1
    k = math.ceil(len(points) / most)
    thinned = []
    for start in range(0, len(points), k):
        part = points[start : start + k]
        ys = [point[1] for point in part]
        thinned.append((part[-1][0], sum(ys) / len(ys), min(ys), max(ys)))
    return thinned, k


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_name: str = "step",
    fraction: bool = False,
    log_x: bool = False,
) -> Html:
    """A figure with one or several lines, its latest value beside the title, and a legend.

    With `log_x` the places along the bottom go by their logarithms, if all are above 0.

    The values under the pointer (or under the arrow keys) are written by page.js from the data
    attributes; without scripts the title element still tells the first and the last value.
    """
    drawn = [(line, *thin(line.points)) for line in series if line.points]
    if not drawn:
        return Html("")
    values = [y for _, points, _ in drawn for point in points for y in point[1:] if y is not None]
    xs = [point[0] for _, points, _ in drawn for point in points]
    y = _y_axis(values, fraction)
    x = _x_axis(xs, log_x)
    every = max(k for _, _, k in drawn)
    hints = (["log scale"] if y.log else []) + ([f"means of {every} values"] if every > 1 else [])
    body = [
        tag("title", _summary(title, drawn, x_name)),
        _grid(x, y, x_name),
        [_line(line, points, k, x, y) for line, points, k in drawn],
    ]
    attributes = {
        "viewBox": f"0 0 {WIDTH} {HEIGHT}",
        "role": "img",
        "tabindex": "0",
        "data_axes": json.dumps([x.low, x.high, x.start, x.stop, y.low, y.high, y.start, y.stop]),
        "data_log": y.log,
        "data_xlog": x.log,
        "data_x": x_name,
        "data_series": json.dumps([_data(line, points) for line, points, _ in drawn]),
    }
    legend = [_key(line) for line, _, _ in drawn] if len(drawn) > 1 else []
    return tag(
        "figure",
        tag(
            "figcaption",
            tag("span", foreign(title, 60), tag("small", ", ".join(hints)) if hints else None),
            tag("output", _latest(drawn, x_name) if len(drawn) == 1 else ""),
        ),
        tag("svg", *body, class_="chart", **attributes),
        tag("ul", legend, class_="legend") if legend else None,
        class_="curve",
    )


def _data(line: Series, points: Sequence[tuple]) -> dict:
    """What page.js reads out: the points, shortened to five digits."""
    short = [[None if v is None else float(f"{v:.5g}") for v in point[1:]] for point in points]
    pairs = [[point[0], *rest] for point, rest in zip(points, short)]
    return {"name": visible(clip(line.name, 60)), "c": line.colour % COLOURS, "p": pairs}


def _x_axis(xs: Sequence[float], log: bool) -> Axis:
    low, high = min(xs), max(xs)
    if log and low > 0 and high > low:
        return Axis(low, high, LEFT + 6, WIDTH - RIGHT - 6, log=True)
    if all(float(x).is_integer() for x in xs):  # steps; else epochs, or shares
        high = max(high, low + 1)
    return Axis(low, high if high > low else low + 1, LEFT, WIDTH - RIGHT)


def _y_axis(values: Sequence[float], fraction: bool) -> Axis:
    low, high = min(values), max(values)
    if low > 0 and high / low > 100:
        return Axis(low / 1.15, high * 1.15, HEIGHT - BOTTOM, TOP, log=True)
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 0.5
    low, high = low - margin, high + margin
    if fraction:
        low, high = max(low, 0.0), min(high, 1.0)
    elif min(values) >= 0 and low < 0.3 * high:
        low = 0.0
    return Axis(low, high, HEIGHT - BOTTOM, TOP)


def _grid(x: Axis, y: Axis, x_name: str) -> list[Html]:
    marks = log_ticks(y.low, y.high) if y.log else ticks(y.low, y.high)
    parts = []
    # Powers of ten are few and far apart: each is written in its own way.
    texts = [tick_texts([mark])[0] for mark in marks] if y.log else tick_texts(marks)
    for at, text in zip((y.at(mark) for mark in marks), texts):
        parts.append(tag("path", d=f"M{LEFT} {at}H{WIDTH - RIGHT}", class_="grid"))
        parts.append(tag("text", text, x=LEFT - 6, y=round(at + 3.5, 1), class_="tick y"))
    marks = log_ticks(x.low, x.high) if x.log else ticks(x.low, x.high)
    texts = [tick_texts([mark])[0] for mark in marks] if x.log else tick_texts(marks)
    for at, text in zip((x.at(mark) for mark in marks), texts):
        parts.append(tag("path", d=f"M{at} {HEIGHT - BOTTOM}v4", class_="axis"))
        if at < WIDTH - RIGHT - 34:
            parts.append(tag("text", text, x=at, y=HEIGHT - 8, class_="tick x"))
    parts.append(tag("text", x_name, x=WIDTH - RIGHT, y=HEIGHT - 8, class_="tick end"))
    parts.append(tag("path", d=f"M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}", class_="axis"))
    return parts


def _line(line: Series, points: Sequence[tuple], k: int, x: Axis, y: Axis) -> Html:
    places = [(x.at(p[0]), y.at(p[1])) for p in points]
    parts = []
    ranged = [(x.at(p[0]), y.at(p[2]), y.at(p[3])) for p in points if None not in p[2:4]]
    if k > 1:
        outline = [(a, top) for a, _, top in ranged] + [(a, low) for a, low, _ in ranged[::-1]]
        parts.append(tag("path", d=_path(outline) + "Z", class_="band"))
    elif ranged:
        whiskers = "".join(f"M{a} {low}V{top}" for a, low, top in ranged)
        parts.append(tag("path", d=whiskers, class_="whiskers"))
    parts.append(tag("path", d=_path(places), class_="line"))
    dots = places if len(places) <= 24 else places[-1:]
    parts += [marker(line.colour, *place) for place in dots]
    return tag("g", parts, class_=f"s{line.colour % COLOURS}")


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{a:g} {b:g}" for a, b in places)


def marker(index: int, x: float, y: float, size: float = 3.0) -> Html:
    """A small mark whose shape goes with the colour, for series or class `index`."""
    r = size
    shape = SHAPES[index % len(SHAPES)]
    if shape == "circle":
        return tag("circle", cx=x, cy=y, r=r, class_="dot")
    d = {
        "square": f"M{x - r:g} {y - r:g}h{2 * r:g}v{2 * r:g}h{-2 * r:g}Z",
        "triangle": f"M{x:g} {y - 1.2 * r:g}l{1.25 * r:g} {2.2 * r:g}h{-2.5 * r:g}Z",
        "diamond": f"M{x:g} {y - 1.35 * r:g}l{1.35 * r:g} {1.35 * r:g}l{-1.35 * r:g} {1.35 * r:g}"
        f"l{-1.35 * r:g} {-1.35 * r:g}Z",
        "cross": f"M{x - r:g} {y - r:g}l{2 * r:g} {2 * r:g}"
        f"M{x + r:g} {y - r:g}l{-2 * r:g} {2 * r:g}",
    }[shape]
    return tag("path", d=d, class_="dot open" if shape == "cross" else "dot")


def _key(line: Series) -> Html:
    mark = tag("svg", marker(line.colour, 6, 6, 4), viewBox="0 0 12 12", aria_hidden="true")
    return tag("li", mark, foreign(line.name, 60), class_=f"s{line.colour % COLOURS}")


def _latest(drawn: Sequence[tuple], x_name: str) -> str:
    last = drawn[0][1][-1]
    return f"{number(last[1])} at {x_name} {_at(last[0])}"


def _at(x: float) -> str:
    """A place along the bottom: a whole number as such.

    >>> _at(1200.0), _at(0.25), _at(1e-5)
    ('1,200', '0.250', '1e-5')
    """
    return f"{x:,.0f}" if float(x).is_integer() else number(x)


def _summary(title: str, drawn: Sequence[tuple], x_name: str) -> str:
    parts = []
    for line, points, _ in drawn[:6]:
        first, last = points[0], points[-1]
        name = f"{line.name}: " if len(drawn) > 1 else ""
        parts.append(
            f"{name}{number(first[1])} at {x_name} {_at(first[0])},"
            f" {number(last[1])} at {x_name} {_at(last[0])}"
        )
    return f"{title}. {'; '.join(parts)}"


def whisker(value: Value, low: float, high: float, colour: int = 0) -> Html:
    """A value as a mark on its interval as a bar, on a scale from `low` to `high`."""
    if value.value is None or not high > low:
        return Html("")
    x = Axis(low, high, 4, 116)
    inner = [tag("path", d="M4 8H116M4 5v6M116 5v6", class_="axis")]
    if value.has_interval:
        a, b = x.at(max(value.low or 0.0, low)), x.at(min(value.high or 0.0, high))
        wide = round(max(b - a, 0.5), 1)
        inner.append(tag("rect", x=a, y=3, width=wide, height=10, rx=1, class_="interval"))
    at = x.at(min(max(value.value, low), high))
    inner.append(marker(colour, at, 8, 2.6))
    return tag(
        "svg",
        inner,
        viewBox="0 0 120 16",
        preserveAspectRatio="xMinYMid meet",
        class_=f"whisker s{colour % COLOURS}",
        aria_hidden="true",
    )
