"""Analyses of `vislang probe`: what a model makes of described domains, of writing, of groups.

An analysis has a `name`, `settings()` and `score(data) -> Scores`, which is pure. The data are the
store of domains for those OF_DOMAINS, and what `gather(probed)` embeds for the others. To add one:
a class with these, whose constructor's arguments are its options, and a line in ANALYSES.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vislang.errors import UserError
from vislang.evaluate.domain_tables import csv_tables
from vislang.evaluate.domains import DomainEmbeddings
from vislang.evaluate.scores import Scores, write_scores
from vislang.files import write_whole
from vislang.lookup import build_one, build_several

if TYPE_CHECKING:
    from vislang.data.sample import Source
    from vislang.evaluate.requests import Embeddings
    from vislang.models.dual import DualEncoder

ANALYSES: dict[str, str] = {
    "robustness": "vislang.evaluate.robustness:Robustness",
    "transfer": "vislang.evaluate.transfer:Transfer",
    "subspace": "vislang.evaluate.subspace:Subspace",
    "typographic": "vislang.evaluate.typographic:Typographic",
    "bias": "vislang.evaluate.bias:Bias",
}
ALONG = {"checkpoints": "vislang.evaluate.checkpoints:Checkpoints"}  # of a run, `--checkpoints`
OF_DOMAINS = ("robustness", "transfer", "subspace")  # these read the store of domains


@dataclass(frozen=True)
class Probed:
    """What an analysis may draw on.

    Args:
        model: the dual encoder.
        source: labelled images.
        rows: their embeddings in every domain; None where no analysis asks for them.
        stores: folder for further stores; None keeps them in memory.
        how: batch_size, device, precision, workers.
    """

    model: DualEncoder
    source: Source
    rows: DomainEmbeddings | None
    stores: Path | None
    how: Mapping[str, Any]

    def embed(self, source: Any, texts: Sequence[str] = ()) -> Embeddings:
        """Embed the images of another source, and texts; stored ones are used again."""
        from vislang.evaluate.embedded import embed_requests
        from vislang.evaluate.requests import Requests

        asked = Requests(images=True, texts=tuple(dict.fromkeys(texts)))
        return embed_requests(self.model, source, None, asked, self.stores, self.how)[0]


class Analysis(Protocol):
    """An analysis: its options are the arguments of its constructor."""

    name: str

    def settings(self) -> dict[str, Any]:
        """Everything that makes two scores incomparable when it differs."""
        ...

    def score(self, data: Any) -> Scores:
        """The scores: a pure function of what was gathered, and of the options."""
        ...


def build_analysis(name: str, options: Mapping[str, Any] | None = None) -> Analysis:
    """One analysis; an unknown option is an error that names the known ones."""
    return build_one("analysis", ANALYSES, name, options)


def build_analyses(
    names: Sequence[str], options: Mapping[str, Mapping[str, Any]]
) -> list[Analysis]:
    """The analyses of these names; options for one that is not asked for are an error."""
    return build_several("analysis", ANALYSES, names, options)


def build_along(options: Mapping[str, Mapping[str, Any]]) -> Any:
    """The analysis of a run's checkpoints; options for any other are an error."""
    return build_several("analysis", ALONG, list(ALONG), options)[0]


def run_analyses(
    analyses: Sequence[Analysis],
    probed: Probed,
    folder: Path,
    *,
    step: str = f"{0:09d}",
    provenance: Mapping[str, Any] | None = None,
) -> tuple[list[Scores], list[str]]:
    """Run analyses one after another; one that fails does not stop the others.

    Writes <folder>/scores/<step>/<analysis>.json with its tables beside it, and the original's
    CSV tables into <folder>/tables.

    Returns:
        the scores, and one message a failure.
    """
    found, failures = [], []
    for analysis in analyses:
        try:
            scores, tables = _run(analysis, probed)
        except UserError as error:
            text = str(error)
            failures.append(text if analysis.name in text else f"{analysis.name}: {text}")
            continue
        made = {**(provenance or {})}
        made["settings"] = {**made.get("settings", {}), **analysis.settings()}
        found.append(replace(scores, provenance=made))
        write_scores(found[-1], folder / "scores" / step)
        for name, text in tables.items():
            write_whole(folder / "tables" / name, text)
    return found, failures


def _run(analysis: Any, probed: Probed) -> tuple[Scores, dict[str, str]]:
    """Scores, and the tables of the original by file name."""
    if analysis.name not in OF_DOMAINS:
        return analysis.score(analysis.gather(probed)), {}
    if probed.rows is None:
        raise UserError(f"{analysis.name} needs the source embedded under its domains.")
    part, found = analysis.measure(probed.rows)
    return analysis.scores(part, found), csv_tables(found)
