"""A page about a domain classifier: held-out numbers, confusion, what the best rows are made of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislang.report.markup import Html, foreign, join, tag
from vislang.report.page import write_sections
from vislang.report.sections import Section
from vislang.report.tables import facts, plain_text, table

if TYPE_CHECKING:
    import numpy as np


def write_classifier(made: Any, judged: Any, out: Path | str) -> Path:
    """Write one offline page.

    Args:
        made: the DomainClassifier.
        judged: its Judged on pictures, or None.
        out: the file.
    """
    sections = [Section("summary", "Summary", _summary(made))]
    if judged is not None:
        numbers = [
            ("accuracy", f"{judged.accuracy:.2%}"),
            ("adjusted mutual information", f"{judged.ami:.4f}"),
            ("pictures", f"{int(judged.counts.sum()):,}"),
        ]
        confusion = _shares(judged.confusion, made.names, "Rows: true domain; columns: predicted")
        sections.append(Section("pictures", "On pictures", join([facts(numbers), confusion])))
        makeup = [
            join([tag("h3", f"The best {k:,}"), _shares(rows, made.names, f"Top {k:,}")])
            for k, rows in judged.makeup.items()
        ]
        sections.append(Section("purity", "What the best rows truly are", join(makeup)))
    return write_sections("Domain classifier", sections, out)


def _summary(made: Any) -> Html:
    rows: list[tuple[str, Any]] = [
        ("domains", foreign(", ".join(made.names), 2000)),
        ("kind", made.kind),
        ("width", f"{made.width:,}"),
        ("temperature", f"{made.temperature:.4g}"),
    ]
    for name, value in made.about.items():
        if isinstance(value, dict):
            rows += [(f"{name}: {k}", foreign(plain_text(v), 200)) for k, v in value.items()]
        else:
            rows.append((name, foreign(plain_text(value), 200)))
    return facts(rows)


def _shares(matrix: np.ndarray, names: tuple[str, ...], caption: str) -> Html:
    rows = [
        [foreign(name, 60), *(f"{value:.0%}" if value else "" for value in row)]
        for name, row in zip(names, matrix)
    ]
    return table(["", *(foreign(name, 60) for name in names)], rows, caption)
