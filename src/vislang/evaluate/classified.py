"""From class scores to Scores: the part that zero-shot, probe and k-NN have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.errors import UserError
from vislang.evaluate.scores import Scores
from vislang.metrics.classify import accuracy, confusion, decide, mean_recall, ranks, recalls
from vislang.metrics.intervals import wilson

if TYPE_CHECKING:
    from jaxtyping import Float, Int

MOST_CLASSES = 100  # a larger confusion matrix is shown by its most frequent confusions alone
MOST_SAMPLES = 50_000  # outcomes of single samples kept in the file
SHOWN = 6  # examples of right and of wrong answers


def score_classes(
    evaluation: str,
    scores: Float[np.ndarray, "N K"],
    label: Int[np.ndarray, " N"],
    names: Sequence[str],
    ids: Sequence[str],
    **parts: Any,
) -> Scores:
    """Accuracy, top-5, mean recall of the classes, confusion and per-class recalls.

    Args:
        evaluation: its name.
        scores: one column a class; a class that was never learnt has -inf.
        label: true classes.
        names: of the K classes.
        ids: of the samples.
        parts: further fields of Scores (`tables` are added to these).
    """
    if not len(label):
        raise UserError(f"{evaluation}: no sample with a label is left to score.")
    k = len(names)
    place, decided = ranks(scores, label), decide(scores, label)
    values = {"accuracy": accuracy(place)}
    if k > 5:
        values["accuracy@5"] = accuracy(place, 5)
    values["mean_class_recall"] = mean_recall(place, label, k)
    counts = confusion(decided, label, k)
    tables = {"per_class": _per_class(place, label, names), **parts.pop("tables", {})}
    if k > MOST_CLASSES:
        tables["most_confused"] = _most_confused(counts, names)
    outcome = None
    if len(label) <= MOST_SAMPLES and len(set(ids)) == len(ids):
        hits = {"ids": list(ids), "values": (place == 0).astype(int).tolist()}
        outcome = {"accuracy": hits}
    return Scores(
        evaluation,
        len(label),
        values,
        tables=tables,
        confusion={"classes": list(names), "counts": counts.tolist()}
        if k <= MOST_CLASSES
        else None,
        examples=parts.pop("examples", None) or _examples(scores, place, label, names, ids),
        per_sample=outcome,
        **parts,
    )


def _per_class(place: np.ndarray, label: np.ndarray, names: Sequence[str]) -> dict[str, list]:
    right, count = recalls(place, label, len(names))
    rows = []
    for name, r, n in zip(names, right.tolist(), count.tolist()):
        found = wilson(r, n) if n else None
        row = [name, n] + ([found.value, found.low, found.high] if found else [None] * 3)
        rows.append(row)
    return {"columns": ["class", "n", "recall", "low", "high"], "rows": rows}


def _most_confused(counts: np.ndarray, names: Sequence[str], most: int = 30) -> dict[str, list]:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(flat), len(names)) for flat in order if wrong.flat[flat]]
    return {
        "columns": ["class", "taken for", "count", "of"],
        "rows": [[names[i], names[j], int(wrong[i, j]), int(counts[i].sum())] for i, j in pairs],
    }


def _examples(scores, place, label, names, ids) -> list[dict[str, Any]]:
    """A few right and wrong answers, spread evenly over the samples."""
    shown = []
    for right in (False, True):
        rows = np.flatnonzero((place == 0) == right)
        for row in rows[np.linspace(0, len(rows) - 1, min(SHOWN, len(rows))).astype(int)]:
            best = np.argsort(-scores[row], kind="stable")[:5]
            answers = [
                {"text": names[j], "score": float(scores[row, j]), "right": bool(j == label[row])}
                for j in best
                if np.isfinite(scores[row, j])
            ]
            query = {"id": ids[row], "label": names[label[row]]}
            shown.append(
                {"kind": "image_to_class", "query": query, "right": right, "answers": answers}
            )
    return shown
