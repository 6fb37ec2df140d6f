"""Tables: values with their intervals, tables of an evaluation, facts, nested settings."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vislang.report.log import Reason
from vislang.report.markup import Html, breakable, foreign, join, number, tag
from vislang.report.plots import whisker
from vislang.report.values import Value, read_value

MOST_ROWS = 1000
LONG = 14  # rows; a longer table scrolls in a box of its own


def scroll(inner: Html, label: str, tall: bool = False) -> Html:
    """A box that scrolls by itself, so that the page never does so sideways."""
    kind = "scroll tall" if tall else "scroll"
    return tag("div", inner, class_=kind, tabindex="0", role="region", aria_label=label)


def table(columns: Sequence[Any], rows: Sequence[Sequence[Any]], caption: str) -> Html:
    """A plain table; numbers stand right, mappings with a "value" are shown with intervals."""
    shown = rows[:MOST_ROWS]
    kinds = [_numeric([row[place] for row in shown]) for place in range(len(columns))]
    head = tag("tr", [_head(column, kind) for column, kind in zip(columns, kinds)])
    body = [tag("tr", [cell(item) for item in row]) for row in shown]
    cut = None
    if len(rows) > len(shown):
        text = f"The first {len(shown):,} of {len(rows):,} rows; all are in the scores file."
        cut = tag("p", text, class_="note")
    grid = tag(
        "table",
        tag("caption", foreign(caption, 120)),
        tag("thead", head),
        tag("tbody", body),
        class_="data",
    )
    return join([scroll(grid, caption, tall=len(shown) > LONG), cut])


def _numeric(items: Sequence[Any]) -> bool:
    """Whether a column holds numbers, and at most gaps beside them."""
    held = [item for item in items if item is not None]
    return bool(held) and all(
        isinstance(item, int | float | Mapping) and not isinstance(item, bool) for item in held
    )


def _head(column: Any, numeric: bool = False) -> Html:
    name = column if isinstance(column, Html) else foreign(column, 80)
    return tag("th", name, scope="col", class_="number" if numeric else None)


def cell(item: Any) -> Html:
    """One cell; a number carries its full digits for sorting and for CSV."""
    if isinstance(item, Html):
        return tag("td", item)
    if isinstance(item, Mapping) and "value" in item:
        value = read_value("", item)
        return tag("td", with_interval(value), class_="number", data_v=value.value)
    if isinstance(item, int | float) and not isinstance(item, bool):
        return tag("td", number(item), class_="number", data_v=repr(item))
    if item is None or isinstance(item, bool):
        return tag("td", number(item))
    text = plain_text(item)
    return tag("td", foreign(text, 300), class_="short" if len(text) <= 22 else None)


def with_interval(value: Value) -> Html:
    """0.971 [0.953, 0.983]"""
    inner = [tag("span", number(value.value), class_="value")]
    if value.has_interval:
        inner += [" ", tag("span", interval(value), class_="ends")]
    return join(inner)


def interval(value: Value) -> str:
    """[0.953, 0.983], or a dash without one."""
    return f"[{number(value.low)}, {number(value.high)}]" if value.has_interval else "–"


def span_of(values: Iterable[Value]) -> tuple[float, float]:
    """The scale on which intervals are drawn beside each other: [0, 1] where all fit in it."""
    ends = [
        end for value in values for end in (value.value, value.low, value.high) if end is not None
    ]
    if not ends:
        return 0.0, 1.0
    low, high = min(ends), max(ends)
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    if low >= -1 and high <= 1:
        return -1.0, 1.0
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def metrics(values: Mapping[str, Value], caption: str) -> Html:
    """Every metric: value, interval as text and as a mark, n, how the interval was made."""
    if not values:
        return tag("p", "This evaluation gave no values.", class_="missing")
    small = {name: value for name, value in values.items() if _fits_one(value)}
    low, high = span_of(small.values())
    methods = {value.method for value in values.values() if value.has_interval and value.method}
    heads = [_head("metric"), _head("value", True), _head("interval", True)]
    heads += [_head(f"{low:g} to {high:g}"), _head("n", True)]
    heads += [_head("method")] if len(methods) > 1 else []
    rows = []
    for name, value in values.items():
        mark = whisker(value, low, high) if name in small else Html("")
        cells = [
            tag("th", breakable(name), scope="row"),
            tag("td", number(value.value), class_="number value", data_v=value.value),
            tag("td", interval(value), class_="number ends"),
            tag("td", mark, class_="mark"),
            tag("td", number(value.n), class_="number", data_v=value.n),
        ]
        cells += [tag("td", foreign(value.method or "–", 60))] if len(methods) > 1 else []
        rows.append(tag("tr", cells))
    grid = tag(
        "table",
        tag("caption", foreign(caption, 120)),
        tag("thead", tag("tr", heads)),
        tag("tbody", rows),
        class_="data metrics",
    )
    parts = [scroll(grid, caption)]
    if len(methods) == 1:
        parts.append(tag("p", "Intervals: ", foreign(methods.pop(), 80), ".", class_="note"))
    elif not methods and not any(value.has_interval for value in values.values()):
        parts.append(tag("p", "The file gives no intervals for these numbers.", class_="note"))
    return join(parts)


def _fits_one(value: Value) -> bool:
    """Whether a value may share the scale of fractions; a mean rank of 37 may not."""
    ends = [end for end in (value.value, value.low, value.high) if end is not None]
    return bool(ends) and all(-1.0 <= end <= 1.0 for end in ends)


def named_tables(part: Mapping[str, Any]) -> list[Html]:
    """The "tables" of a scores file; one that has not the agreed form is said to be unreadable."""
    shown = []
    for name, body in part.items():
        title = str(name).replace("_", " ")
        columns = body.get("columns") if isinstance(body, Mapping) else None
        rows = body.get("rows") if isinstance(body, Mapping) else None
        if not isinstance(columns, list) or not isinstance(rows, list):
            text = f"The table {title!r} in the file could not be read."
            shown.append(tag("p", text, class_="missing"))
            continue
        fit = [row for row in rows if isinstance(row, list) and len(row) == len(columns)]
        shown.append(tag("div", table(*_with_ends(columns, fit), title)))
        if len(fit) < len(rows):
            text = f"{len(rows) - len(fit):,} rows of {title!r} have another length: left out."
            shown.append(tag("p", text, class_="missing"))
    return shown


def _with_ends(columns: list[Any], rows: list[list[Any]]) -> tuple[list[Any], list[list[Any]]]:
    """Every three columns x, low, high as one column with intervals."""
    for at in range(len(columns) - 2, 0, -1):
        if columns[at : at + 2] == ["low", "high"]:
            rows = [
                [
                    *row[: at - 1],
                    dict(zip(("value", "low", "high"), row[at - 1 : at + 2])),
                    *row[at + 2 :],
                ]
                for row in rows
            ]
            columns = [*columns[:at], *columns[at + 2 :]]
    return columns, rows


def facts(pairs: Iterable[tuple[str, Any]]) -> Html:
    """A list of names and what they are; pairs without a value are left out."""
    rows = [
        tag("div", tag("dt", name), tag("dd", value if isinstance(value, Html) else foreign(value)))
        for name, value in pairs
        if value is not None and value != ""
    ]
    return tag("dl", rows, class_="facts") if rows else Html("")


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted names.

    >>> flatten({"a": {"b": 1, "c": {}}, "d": [1, 2]})
    {'a.b': 1, 'a.c': {}, 'd': [1, 2]}
    """
    if not isinstance(value, Mapping) or not value:
        return {prefix: value} if prefix else {}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= flatten(item, f"{prefix}.{key}" if prefix else str(key))
    return flat


def plain_text(value: Any) -> str:
    """A setting as a person would write it.

    >>> [plain_text(x) for x in ({"a": 1}, [1, 2.5], "", None, True, 0.0005)]
    ['a: 1', '1, 2.5', '–', '–', 'yes', '0.0005']
    """
    if value is None or value == "" or value == {} or value == []:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain_text(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings(value: Mapping[str, Any], caption: str) -> Html:
    """Nested settings as a two-column table of dotted names."""
    rows = [[key, plain_text(item)] for key, item in flatten(value).items()]
    return table(["field", "value"], rows, caption)


def rejected(reasons: Mapping[str, Reason]) -> Html:
    """Reason, count, and the first ids with their origins."""
    rows = []
    for reason, entry in sorted(reasons.items(), key=lambda pair: (-pair[1].count, pair[0])):
        first = [
            tag("li", foreign(id_, 80), tag("small", foreign(origin, 80)) if origin else None)
            for id_, origin in entry.first
        ]
        more = entry.count - len(entry.first)
        first += [tag("li", tag("small", f"and {more:,} more"))] if more > 0 else []
        cells = [
            tag("th", foreign(reason, 200), scope="row"),
            tag("td", f"{entry.count:,}", class_="number", data_v=entry.count),
            tag("td", tag("ul", first, class_="ids")),
        ]
        rows.append(tag("tr", cells))
    grid = tag(
        "table",
        tag("caption", "Rejected samples by reason"),
        tag("thead", tag("tr", _head("reason"), _head("count", True), _head("first ids"))),
        tag("tbody", rows),
        class_="data",
    )
    return scroll(grid, "Rejected samples by reason")
