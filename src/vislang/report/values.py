"""A measured value with its interval, and the careful reading of numbers from foreign JSON."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LOWER_IS_BETTER = re.compile(
    r"(^|[_@./ -])(loss|errors?|rank|perplexity|fpr95|wer|cer|mae|mse|rmse|ece|brier)([_@./ -]|$)"
)
HIGHER_IS_BETTER = re.compile(
    r"accuracy|recall|precision|(^|[_./ -])(r|p|hit|hits|map|mrr|ndcg)(@|$)|to_(image|text)@\d"
    r"|(^|[_./ -])(acc|top\d+|f1|auc|auroc|ap|ami|nmi|ari|iou|miou|purity|spearman|pearson|kappa)"
    r"([_@./ -]|$)"
)


def finite(value: Any) -> float | None:
    """A finite float, or None for anything else (text, booleans, NaN, infinity).

    >>> [finite(x) for x in (1, "1", True, float("inf"), None)]
    [1.0, None, None, None, None]
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


@dataclass(frozen=True)
class Value:
    """A number of an evaluation.

    Args:
        value: the estimate; None when the file gave no finite number.
        low: lower end of the interval, or None without one.
        high: upper end.
        n: how many things it was measured on.
        method: how the interval was made ("wilson 95%").
        better: "higher", "lower", or "" when neither is known to be the aim.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    method: str = ""
    better: str = ""

    @property
    def has_interval(self) -> bool:
        """Whether both ends are known and hold the value between them."""
        return (
            self.value is not None
            and self.low is not None
            and self.high is not None
            and self.low - 1e-9 <= self.value <= self.high + 1e-9
        )


def aim(name: str) -> str:
    """Whether a metric of this name is better "higher" or "lower"; "" when the name does not tell.

    >>> [aim(x) for x in ("accuracy", "image_to_text@5", "median_rank", "modality_gap")]
    ['higher', 'higher', 'lower', '']
    """
    name = name.lower()
    if LOWER_IS_BETTER.search(name):
        return "lower"
    return "higher" if HIGHER_IS_BETTER.search(name) else ""


def read_value(name: str, raw: Any) -> Value:
    """A Value from an entry of "values": the full mapping, or a bare number."""
    if not isinstance(raw, Mapping):
        return Value(finite(raw), better=aim(name))
    n = finite(raw.get("n"))
    better = raw.get("better")
    return Value(
        value=finite(raw.get("value")),
        low=finite(raw.get("low")),
        high=finite(raw.get("high")),
        n=None if n is None else int(n),
        method=str(raw.get("interval") or raw.get("method") or ""),
        better=better if better in ("higher", "lower") else aim(name),
    )


def read_values(raw: Any) -> dict[str, Value]:
    """All entries of a "values" mapping; anything else is no values."""
    if not isinstance(raw, Mapping):
        return {}
    return {str(name): read_value(str(name), entry) for name, entry in raw.items()}
