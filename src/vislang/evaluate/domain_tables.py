"""The four CSV tables of described domains, cell for cell as the original writes them.

Percentages with one decimal, cosines with five, spreads with two, angles with one, p as "<0.001"
or with three; domains in presentation order. C: classes, K: components.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from vislang.evaluate.domains import PLAIN, in_order
from vislang.evaluate.robustness import Measured
from vislang.evaluate.subspace import DRAWN, MOST, Subspaces, leading, spreads
from vislang.evaluate.transfer import Transferred
from vislang.metrics.grid import Entanglement


def csv_tables(found: Measured | Transferred | Subspaces) -> dict[str, str]:
    """The original's tables of one analysis, by file name."""
    if isinstance(found, Measured):
        tables = {"robustness_table.csv": robustness_csv(found)}
        if found.official is not None:
            held = {d: e.official.value for d, e in found.effects.items() if e.official}
            tables["official_zeroshot_table.csv"] = decrease_csv(
                {PLAIN: found.official.value, **held}
            )
        return tables
    if isinstance(found, Transferred):
        own = dict(zip(found.domains, found.matrix.diagonal().tolist()))
        return {"linearprobe_table.csv": decrease_csv(own)} if PLAIN in own else {}
    return {"subspace_table.csv": subspace_csv(found.found)}


def robustness_csv(found: Measured) -> str:
    """Cosines of every shift, then accuracies for each k."""
    heads = ["mean_decrease", "SD_decrease", "p_decrease", "mean_recovery", "SD_recovery",
             "p_recovery", "mean_decrease_diffclass", "mean_recovery_diffclass"]  # fmt: skip
    lines = [",".join(["augID", *heads])]
    for name, effect in found.effects.items():
        cells = [name]
        for change in (effect.decrease, effect.recovery):
            cells += [_cosine(change.interval.value), _cosine(change.deviation), _p(change.p)]
        cells += [_cosine(effect.decrease_other), _cosine(effect.recovery_other)]
        lines.append(",".join(cells))
    lines += ["", f"avg_cossim_sameclass_unaug:,{_cosine(found.same_class.value)}"]
    lines += [f"avg_cossim_diffclass_unaug:,{_cosine(found.other_class.value)}"]
    for k, plain in found.plain.items():
        of = f"top{k}acc"
        lines += ["", "", f"augID,{of}_decrease_as_percentage,{of}_recovery_as_percentage"]
        lines += [
            f"{name},{_percent(e.lost[k].interval.value)},{_percent(e.regained[k].interval.value)}"
            for name, e in found.effects.items()
        ]
        lines += ["", f"unaugmented_{of}_as_percentage:,{_percent(plain.value)}"]
    return "\n".join(lines) + "\n"


def decrease_csv(accuracy: Mapping[str, float]) -> str:
    """Official zero-shot and linear probes: what each shift costs.

    Args:
        accuracy: share right by domain, 0 to 1, the plain one among them.
    """
    plain = accuracy[PLAIN]
    lines = ["augID,top1acc_decrease_as_percentage"]
    lines += [
        f"{d},{_percent((100 * plain - 100 * accuracy[d]) / 100)}"
        for d in in_order(list(accuracy))
        if d != PLAIN
    ]
    lines += ["", f"unaugmented_top1acc_as_percentage,{_percent(plain)}"]
    return "\n".join(lines) + "\n"


def subspace_csv(found: Mapping[tuple[str, str], Entanglement]) -> str:
    """Spreads, explained variance, cosines and angles of images and texts."""
    parts = [_grid_csv(f"{norm} {side}", found[norm, side]) for norm, side in sorted(found)]
    return "".join(part + "\n\n\n" for part in parts)


def _grid_csv(title: str, held: Entanglement) -> str:
    names = {"residual": "additive_model_residuals", "pairs": "all_pairs", "classes": "class_only",
             "domains": "aug_only", "deviations": "image_deviations_from_means"}  # fmt: skip
    known = {names[part]: value for part, value in spreads(held).items() if value is not None}
    first, *others = known
    # The doubled signs are the original's.
    heads = [
        f"spread({first}) / spread({name}) ({'%%' if place < 2 else '%'})"
        for place, name in enumerate(others)
    ]
    share = [known[first] / known[name] if known[name] else np.nan for name in others]
    lines = [title, ",".join(f"spread({name})" for name in known)]
    lines += [",".join(f"{value:.2f}" for value in known.values()), ""]
    lines += [",".join(["", *heads]), ",".join(["", *map(_percent, share)]), ""]
    for name, of in (("class", held.classes), ("aug", held.domains)):
        shown = of.shares[:DRAWN]
        lines += [f"explained variance percentages of {name} principal components"]
        lines += [",".join(str(i + 1) for i in range(len(shown))), _percents(shown), ""]
    cosines = leading(held)
    angles = np.degrees(np.arccos(np.clip(cosines, 0.0, 1.0)))
    lines += _crossed("cosine similarity table", held, cosines, _cosine)
    lines += ["", *_crossed("cosine angle (degrees) table", held, angles, "{:.1f}".format)]
    return "\n".join(lines) + "\n"


def _crossed(title: str, held: Entanglement, cells: np.ndarray, write) -> list[str]:
    """Class components down, domain components across, each with its share."""
    count = len(cells)
    lines = [title, "," * (count // 2) + "explained variance aug"]
    lines += [",," + _percents(held.domains.shares[:MOST])]
    for place, (share, row) in enumerate(zip(held.classes.shares, cells)):
        head = "explained variance class" if place == count // 2 else ""
        lines.append(",".join([head, _percent(share), *map(write, row)]))
    return lines


def _percents(shares: Iterable[float]) -> str:
    return ",".join(_percent(share) for share in shares)


def _percent(share: float) -> str:
    """A share as a percentage; a negative zero is a zero."""
    return f"{round(100 * share, 1) + 0.0:.1f}%"


def _cosine(value: float) -> str:
    return f"{value:.5f}"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
