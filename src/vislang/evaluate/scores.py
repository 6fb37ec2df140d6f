"""What an evaluation found: numbers with intervals, tables, examples; as JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vislang.errors import UserError
from vislang.files import plain, read_json, write_whole
from vislang.metrics.intervals import Interval

Table = dict[str, list]  # {"columns": [...], "rows": [[...], ...]}


@dataclass(frozen=True)
class Scores:
    """Scores of one evaluation.

    Args:
        evaluation: a key of EVALUATIONS.
        n: samples that were scored.
        values: metric -> value with its interval.
        tables: name -> {"columns", "rows"}.
        confusion: {"classes", "counts"}; rows are true classes.
        examples: answers to single queries, right and wrong.
        cosine: {"ids", "texts", "matrix"}.
        map: {"ids", "x", "y", "label", "method"}.
        per_sample: metric -> {"ids", "values", "groups"}: the outcome of each sample, so that two
            models can be compared pair by pair.
        provenance: what the numbers were made from.
        notes: what a reader should know, in sentences.
        better: higher or lower, where the names of all values do not say which is better.
    """

    evaluation: str
    n: int
    values: dict[str, Interval]
    tables: dict[str, Table] = field(default_factory=dict)
    confusion: dict[str, Any] | None = None
    examples: list[dict[str, Any]] | None = None
    cosine: dict[str, Any] | None = None
    map: dict[str, Any] | None = None
    per_sample: dict[str, dict[str, Any]] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    better: str = ""

    def as_json(self) -> dict[str, Any]:
        """The form of the file; a number that is none becomes null."""
        aim = {"better": self.better} if self.better else {}
        body: dict[str, Any] = {
            "evaluation": self.evaluation,
            "n": self.n,
            "values": {name: value.as_row() | aim for name, value in self.values.items()},
            "tables": self.tables,
        }
        for name in ("confusion", "examples", "cosine", "map", "per_sample"):
            if (part := getattr(self, name)) is not None:
                body[name] = part
        body["notes"] = self.notes
        body["provenance"] = self.provenance
        return _finite(plain(body))

    def value_table(self) -> Table:
        """The values as a table."""
        return {
            "columns": ["metric", "value", "low", "high", "n", "interval"],
            "rows": [
                [name, v.value, v.low, v.high, v.n, v.method] for name, v in self.values.items()
            ],
        }


def write_scores(scores: Scores, folder: Path | str, name: str = "") -> Path:
    """Write <evaluation>.json, and its tables as CSV and Markdown beside it.

    Args:
        scores: what was found.
        folder: usually <run>/scores/<step>.
        name: stem of the files where it is not the evaluation's name.

    Returns:
        the JSON file, which is written last.
    """
    folder, stem = Path(folder), name or scores.evaluation
    body = scores.as_json()
    tables = {"": _finite(scores.value_table()), **{f".{k}": t for k, t in body["tables"].items()}}
    for suffix, table in tables.items():
        write_whole(folder / f"{stem}{suffix}.csv", table_csv(table))
    write_whole(folder / f"{stem}.md", _page(stem, scores, tables))
    path = folder / f"{stem}.json"
    # Compact: a confusion matrix with a line for each count helps nobody.
    write_whole(path, json.dumps(body, ensure_ascii=False, separators=(",", ":")) + "\n")
    return path


def read_scores(path: Path | str) -> Scores:
    """Read a scores file back."""
    body = read_json(path)
    if not isinstance(body, dict) or not {"evaluation", "n", "values"} <= set(body):
        raise UserError(f"{path} is not a scores file: it lacks evaluation, n or values.")
    nan = math.nan
    values = {
        name: Interval(
            nan if v["value"] is None else v["value"],
            -math.inf if v["low"] is None else v["low"],
            math.inf if v["high"] is None else v["high"],
            v["n"],
            v["interval"],
        )
        for name, v in body["values"].items()
    }
    known = set(Scores.__dataclass_fields__)
    body["better"] = next((v["better"] for v in body["values"].values() if "better" in v), "")
    return Scores(**{k: v for k, v in body.items() if k in known and k != "values"}, values=values)


def _finite(value: Any) -> Any:
    """JSON has no infinity and no NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value


def table_csv(table: Mapping[str, Sequence]) -> str:
    """A table as CSV; a text that a spreadsheet would take for a formula gets a quote before it.

    >>> print(table_csv({"columns": ["a"], "rows": [["=1+1"], [0.5]]}).replace("\\r", ""))
    a
    '=1+1
    0.5
    <BLANKLINE>
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(table["columns"])
    for row in table["rows"]:
        writer.writerow([_cell(item) for item in row])
    return buffer.getvalue()


def _cell(item: Any) -> Any:
    if isinstance(item, str) and item[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + item
    return "" if item is None else item


def table_markdown(table: Mapping[str, Sequence]) -> str:
    """A table as Markdown, numbers with four significant digits.

    >>> print(table_markdown({"columns": ["a|b", "n"], "rows": [["x", 0.123456]]}))
    | a\\|b | n |
    |---|---|
    | x | 0.1235 |
    """
    lines = [
        "| " + " | ".join(_shown(c) for c in table["columns"]) + " |",
        "|" + "---|" * len(table["columns"]),
    ]
    lines += ["| " + " | ".join(_shown(item) for item in row) + " |" for row in table["rows"]]
    return "\n".join(lines)


def _shown(item: Any) -> str:
    if item is None:
        return ""
    if isinstance(item, float):
        return f"{item:.4g}"
    return str(item).replace("|", "\\|").replace("\n", " ")


def _page(title: str, scores: Scores, tables: Mapping[str, Mapping[str, Sequence]]) -> str:
    parts = [f"# {title}", f"n = {scores.n:,}"]
    for suffix, table in tables.items():
        if suffix:
            parts.append(f"## {suffix[1:]}")
        parts.append(table_markdown(table))
    parts += scores.notes
    return "\n\n".join(parts) + "\n"
