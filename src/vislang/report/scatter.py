"""The 2-D map of embeddings: a scatter whose classes differ in colour, in shape and by a label."""

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vislang.report.markup import Html, clip, foreign, tag, visible
from vislang.report.pictures import Pictures
from vislang.report.plots import Axis, marker
from vislang.report.values import finite

MOST_POINTS = 1500
MOST_CLASSES = 10  # with a colour of their own; the rest are drawn in grey as "other"
WIDTH, HEIGHT, EDGE = 640, 480, 14
OTHER = -1

Point = tuple[str, float, float, str]


def points_of(part: Mapping[str, Any]) -> tuple[list[Point], int]:
    """(id, x, y, label) of the points that are drawn, evenly picked, and how many there are."""
    ids, xs, ys = (_column(part, name) for name in ("ids", "x", "y"))
    labels = _column(part, "label")
    labels = labels if len(labels) == len(ids) else [""] * len(ids)
    points = [
        (str(id_), x, y, "" if label is None else str(label))
        for id_, raw_x, raw_y, label in zip(ids, xs, ys, labels)
        if (x := finite(raw_x)) is not None and (y := finite(raw_y)) is not None
    ]
    if len(points) <= MOST_POINTS:
        return points, len(points)
    every = len(points) / MOST_POINTS
    return [points[int(i * every)] for i in range(MOST_POINTS)], len(points)


def _column(part: Mapping[str, Any], name: str) -> list[Any]:
    column = part.get(name)
    return column if isinstance(column, list) else []


def scatter(part: Mapping[str, Any], pictures: Pictures, order: Sequence[str] = ()) -> list[Html]:
    """The map with its legend; page.js adds the picture under the pointer or the arrow keys.

    Args:
        part: "map" of a scores file.
        pictures: where the points' pictures are.
        order: the classes in their own order, where it is known; else they are sorted.
    """
    points, whole = points_of(part)
    if not points:
        return [tag("p", "The map in the file holds no points.", class_="missing")]
    counts = Counter(label for *_, label in points)
    named = [label for label, _ in counts.most_common(MOST_CLASSES)]
    places = {label: place for place, label in enumerate(order)}
    named.sort(key=lambda label: (places.get(label, len(places)), label.zfill(20)))
    colours = {label: place for place, label in enumerate(named)}
    x, y = (
        _axis([p[1] for p in points], EDGE, WIDTH - EDGE),
        _axis([p[2] for p in points], HEIGHT - EDGE, EDGE),
    )
    groups = [_group(points, label, colours, x, y) for label in named]
    if len(counts) > len(named):
        groups.insert(0, _group(points, None, colours, x, y))
    drawing = tag(
        "svg",
        tag("title", f"Map of {len(points):,} embeddings in {len(counts):,} classes"),
        groups,
        [_name(points, label, x, y) for label in named] if 1 < len(counts) <= 12 else None,
        tag("circle", class_="ring", r=9),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        tabindex="0",
        class_="map",
    )
    method = part.get("method")
    made = f"{foreign(method, 60)}. " if method else ""
    cut = f" {len(points):,} of {whole:,} points are drawn." if whole > len(points) else ""
    note = tag(
        "p",
        Html(made),
        "Near points have similar embeddings; the axes have no unit.",
        cut,
        class_="note",
    )
    return [
        note,
        tag(
            "figure",
            tag("div", drawing, _card(points, pictures), class_="mapbox"),
            _legend(counts, named, colours),
            class_="scatter",
        ),
    ]


def _axis(values: Sequence[float], start: float, stop: float) -> Axis:
    low, high = min(values), max(values)
    return Axis(low, high if high > low else low + 1, start, stop)


def _group(
    points: Sequence[Point], label: str | None, colours: Mapping[str, int], x: Axis, y: Axis
) -> Html:
    """All points of one class; of `None`, those of classes without a colour."""
    colour = OTHER if label is None else colours[label]
    marks = []
    for place, (id_, px, py, own) in enumerate(points):
        if own == label or (label is None and own not in colours):
            shape = marker(max(colour, 0), x.at(px), y.at(py), 4.0)
            name = tag("title", clip(id_, 80), f", {clip(own, 60)}" if own else "")
            marks.append(tag("g", shape, name, data_i=place))
    return tag("g", marks, class_="other" if label is None else f"s{colour}", data_class=colour)


def _name(points: Sequence[Point], label: str, x: Axis, y: Axis) -> Html:
    own = [point for point in points if point[3] == label]
    at = x.at(statistics.median(p[1] for p in own)), y.at(statistics.median(p[2] for p in own))
    return tag("text", clip(label, 22) or "–", x=at[0], y=at[1] + 5, class_="place")


def _card(points: Sequence[Point], pictures: Pictures) -> list[Html | None]:
    """The read-out: empty until a point is chosen; its data stand in attributes for page.js."""
    address, side, across, tiles = pictures.atlas([point[0] for point in points])
    names = [
        [visible(clip(p[0], 80)), visible(clip(p[3], 60)), tile] for p, tile in zip(points, tiles)
    ]
    return [
        tag("img", src=address, alt="", hidden=True, class_="atlas") if address else None,
        tag(
            "div",
            tag("canvas", width=96, height=96, hidden=not address),
            tag("p", tag("bdi", class_="label"), tag("bdi", class_="id")),
            class_="card",
            hidden=True,
            aria_live="polite",
            data_points=json.dumps(names),
            data_tile=side,
            data_across=across,
        ),
    ]


def _legend(counts: Counter, named: Sequence[str], colours: Mapping[str, int]) -> Html:
    entries = []
    for label in named:
        mark = tag("svg", marker(colours[label], 6, 6, 4), viewBox="0 0 12 12", aria_hidden="true")
        button = tag(
            "button",
            mark,
            foreign(label or "no label", 40),
            tag("small", f"{counts[label]:,}"),
            type="button",
            aria_pressed="false",
            data_class=colours[label],
        )
        entries.append(tag("li", button, class_=f"s{colours[label]}"))
    rest = len(counts) - len(named)
    if rest > 0:
        left = sum(counts.values()) - sum(counts[label] for label in named)
        mark = tag("svg", marker(0, 6, 6, 4), viewBox="0 0 12 12", aria_hidden="true")
        entries.append(
            tag("li", mark, f"{rest:,} other classes ", tag("small", f"{left:,}"), class_="other")
        )
    return tag("ul", entries, class_="legend classes")
