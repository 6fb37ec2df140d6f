"""The one page that the line of described domains ends in (`benchmarks/domain_line.py`)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vislang.report.checkpoints import draw_checkpoints
from vislang.report.collages import collage_images, ledger_table
from vislang.report.collect import read_run
from vislang.report.markup import Html, foreign, join, tag
from vislang.report.page import write_sections
from vislang.report.sections import Section
from vislang.report.sweep import sweep_sections
from vislang.report.tables import table

KINDS = ("pure", "uniform")


def write_page(
    out: Path,
    purity: Mapping[str, Any],
    chance: Mapping[str, float],
    collages: Mapping[str, Path],
    scores: Mapping[str, Sequence[Any]],
    rates: Mapping[str, float],
    gaps: Mapping[str, Any],
    verdicts: Mapping[str, str],
) -> Path:
    """Purity, collages, sweeps, checkpoints and the verdict, below `out`."""
    images = [
        join([tag("h3", foreign(name, 60)), image])
        for name, image in collage_images(collages).items()
    ]
    sweeps = [
        replace(section, id=f"sweep-{kind}", title=f"Learning rate, {kind} batches")
        for kind in KINDS
        for section in sweep_sections(out / f"sweep-{kind}")
    ]
    along = [
        Section(f"along-{kind}", f"Checkpoints, {kind} batches", _along(out, kind, scores[kind][0]))
        for kind in KINDS
    ]
    sections = [
        Section("verdict", "Pure against uniform batches", _verdict(scores, rates, gaps, verdicts)),
        Section("purity", "Purity of the best of each domain", _purity(purity, chance)),
        Section("fetched", "Fetched", ledger_table(out / "pictures")),
        Section("collages", "Collages", join(images)),
        *sweeps,
        *along,
    ]
    return write_sections(
        "From a collection to domain-pure fine-tuning", sections, out / "report.html"
    )


def _row(value: Any) -> dict[str, Any]:
    return {"value": value.value, "low": value.low, "high": value.high, "n": value.n}


def _purity(purity: Mapping[str, Any], chance: Mapping[str, float]) -> Html:
    rows = [[foreign(d, 60), _row(v), v.n, chance[d]] for d, v in purity.items()]
    text = (
        "The share of the chosen rows that truly show the domain, with Wilson's 95% interval;"
        " which domain each picture was put in is known here. Chance is the domain's share of the"
        " whole collection."
    )
    shown = table(["domain", "purity", "rows", "chance"], rows, "Purity against the truth")
    return join([tag("p", text, class_="note"), shown])


def _verdict(
    scores: Mapping[str, Sequence[Any]],
    rates: Mapping[str, float],
    gaps: Mapping[str, Any],
    verdicts: Mapping[str, str],
) -> Html:
    names = ("last_accuracy", "last_change", "best_accuracy", "best_change", "wise_change")
    rows = [
        [kind, f"{rates[kind]:g}", seed, *(_row(one.values[name]) for name in names)]
        for kind in KINDS
        for seed, one in enumerate(scores[kind])
    ]
    start, n = scores["pure"][0].values["start_accuracy"].value, scores["pure"][0].n
    moments = {"last_accuracy": "at the end of the budget",
               "best_accuracy": "at the checkpoints chosen on the valid split"}  # fmt: skip
    said = [
        f"{moments[name].capitalize()}, {verdicts[name]}: {100 * gap.interval.value:+.1f} points,"
        f" pure less uniform (95% interval {100 * gap.interval.low:.1f} to"
        f" {100 * gap.interval.high:.1f}, p = {gap.p:.3g})."
        for name, gap in gaps.items()
    ]
    lead = " ".join(said)
    lead += (
        f" Over {n} test pictures under each domain, mean of {len(scores['pure'])} seeds; the"
        f" start has {start:.1%}."
    )
    note = (
        "“Chosen” may be the start itself, where no checkpoint is better on the valid split."
        " Accuracy is the mean over domains with each domain's own prompts. The learning rate was"
        " chosen on valid pictures, the checkpoint of each run (and its place on the line to the"
        " start) on a valid split of the judged ones, and all numbers are of the other half."
        " Intervals resample pictures, not seeds."
    )
    columns = ["batches", "learning rate", "seed", "at the end", "change", "chosen", "change",
               "change, WiSE-FT"]  # fmt: skip
    shown = table(columns, rows, "Every run")
    return join([tag("p", lead, class_="lead"), shown, tag("p", note, class_="note")])


def _along(out: Path, kind: str, scores: Any) -> Html:
    """The first seed's checkpoints; the others have pages of their own below `out`."""
    score = read_run(out / f"{kind}-0").latest["checkpoints"]
    drawn, _ = draw_checkpoints(score)
    return join([[tag("p", foreign(note, 1000)) for note in scores.notes], drawn])
