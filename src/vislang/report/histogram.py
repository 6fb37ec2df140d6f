"""How many of what size: bars as inline SVG that takes its colours from the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from vislang.report.markup import Html, foreign, number, tag
from vislang.report.plots import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    log_ticks,
    tick_texts,
    ticks,
)

BARS = 24


def histogram(title: str, values: Sequence[float], unit: str, *, log: bool = False) -> Html:
    """A figure of up to 24 bars, the median beside its title.

    Args:
        title: what is counted.
        values: numbers; without any there is no figure.
        unit: of the values, below the bars.
        log: bars of equal ratio instead of equal width, for positive values.
    """
    if not len(values):
        return Html("")
    data = np.asarray(values, np.float64)
    whole = bool((data == np.round(data)).all())
    low, middle, high = (_short(value, whole) for value in np.quantile(data, [0.05, 0.5, 0.95]))
    if data.min() == data.max():
        told = tag("output", f"{middle} {unit}, all of them")
        return tag("figure", tag("figcaption", tag("span", foreign(title, 60)), told))
    edges = _edges(data, log, whole)
    counts, _ = np.histogram(data, edges)
    x = Axis(float(edges[0]), float(edges[-1]), LEFT, WIDTH - RIGHT, log=log)
    y = Axis(0.0, float(counts.max()), HEIGHT - BOTTOM, TOP)
    bars = [
        _bar(x, y, float(low), float(high), int(count))
        for low, high, count in zip(edges, edges[1:], counts)
        if count
    ]
    told = f"median {middle}, 90 % within {low} to {high} {unit}"
    body = [
        tag("title", f"{title}: {told}"),
        _marks(x, y, unit, whole),
        tag("g", bars, class_="s0"),
    ]
    hint = tag("small", "log scale") if log else None
    return tag(
        "figure",
        tag("figcaption", tag("span", foreign(title, 60), hint), tag("output", f"median {middle}")),
        tag("svg", *body, class_="histogram", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img"),
        class_="curve",
    )  # fmt: skip


def _short(value: float, whole: bool) -> str:
    return number(round(value) if whole else float(value))


def _edges(data: np.ndarray, log: bool, whole: bool) -> np.ndarray:
    low, high = float(data.min()), float(data.max())
    if log:
        low, high = max(low, 1e-9), max(high, low * 1.05, 1e-9)
        return np.geomspace(low * 0.999, high * 1.001, BARS + 1)
    if whole and high - low < BARS:  # a bar for each number
        return np.arange(math.floor(low), math.ceil(high) + 2) - 0.5
    if whole:  # equally many numbers in each bar
        width = math.ceil((high - low + 1) / BARS)
        count = math.ceil((high - low + 1) / width)
        return low - 0.5 + width * np.arange(count + 1)
    margin = (high - low) * 1e-6 or 0.5
    return np.linspace(low - margin, high + margin, BARS + 1)


def _bar(x: Axis, y: Axis, low: float, high: float, count: int) -> Html:
    left, right, top = x.at(low), x.at(high), y.at(count)
    wide = round(max(right - left - 0.8, 0.6), 1)
    tall = round(max(HEIGHT - BOTTOM - top, 0.5), 1)  # one among thousands is still seen
    said = tag("title", f"{number(low)} to {number(high)}: {count:,}")
    return tag(
        "rect", said, x=left, y=round(HEIGHT - BOTTOM - tall, 1), width=wide, height=tall,
        class_="dot",
    )  # fmt: skip


def _marks(x: Axis, y: Axis, unit: str, whole: bool) -> list[Html]:
    parts = []
    counts = [mark for mark in ticks(0, y.high, 3) if mark == int(mark)]
    for at, text in zip(map(y.at, counts), tick_texts(counts)):
        parts.append(tag("path", d=f"M{LEFT} {at}H{WIDTH - RIGHT}", class_="grid"))
        parts.append(tag("text", text, x=LEFT - 6, y=round(at + 3.5, 1), class_="tick y"))
    marks = log_ticks(x.low, x.high) if x.log else ticks(x.low, x.high)
    marks = marks if len(marks) > 1 or not x.log else [x.low, math.sqrt(x.low * x.high), x.high]
    if whole and not x.log:
        marks = [mark for mark in marks if mark == int(mark)]
    texts = [f"{mark:,.3g}" for mark in marks] if x.log else tick_texts(marks)
    for at, text in zip(map(x.at, marks), texts):
        parts.append(tag("path", d=f"M{at} {HEIGHT - BOTTOM}v4", class_="axis"))
        if at < WIDTH - RIGHT - 6.5 * len(unit):
            parts.append(tag("text", text, x=at, y=HEIGHT - 8, class_="tick x"))
    parts.append(tag("text", unit, x=WIDTH - RIGHT, y=HEIGHT - 8, class_="tick end"))
    parts.append(tag("path", d=f"M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}", class_="axis"))
    return parts
