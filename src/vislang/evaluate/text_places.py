"""Where below a folder the files of the text suites lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislang.errors import UserError
from vislang.evaluate.text_suites import TEXT_SUITES
from vislang.lookup import build_one

if TYPE_CHECKING:
    from vislang.evaluate.text_suites import TextEvaluation

DEPTH = 2  # folders below the given one that are looked into
# Files or folders by which the data of a suite are known.
KNOWN = {
    "words": ("*RG-65*", "*rg65*", "*SIMLEX*", "*simlex*", "*WS-353*", "*wordsim*"),
    "sentences": ("STS", "STSBenchmark", "SICK", "MR", "TREC", "downstream", "sentences*.zip"),
    "passages": ("corpus.jsonl*", "collection.tsv*"),
    "triplets": ("test.csv*",),
}
MANY = ("passages", "triplets")  # of several collections, each is evaluated


@dataclass(frozen=True)
class TextPlace:
    """Files of a text suite: where they lie, and what was read."""

    suite: str
    path: Path
    evaluation: TextEvaluation
    read: Any

    def stem(self, several: bool) -> str:
        """Name of the scores: of the suite, with the folder's where it has several."""
        return f"{self.suite}-{self.path.name}" if several else self.suite


def text_places(
    root: Path,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    failures: list[str] | None = None,
) -> list[TextPlace]:
    """The data of every text suite up to DEPTH folders below `root`.

    A suite takes the folder nearest to `root` that has its files; those in MANY take each one.
    Files that are there but damaged are an error, never passed over.

    Args:
        root: the folder.
        options: suite -> arguments of its constructor.
        failures: where a list is given, it is told what cannot be read and which suites have no
            files, and nothing is raised unless nothing can be read.

    Raises:
        UserError: no such folder, nothing of any suite in it, or data that cannot be read.
    """
    if not root.is_dir():
        raise UserError(f"The folder {root} does not exist: give the folder of the text suites.")
    found: list[TextPlace] = []
    failed, absent = [], []
    for suite in TEXT_SUITES:
        evaluation = build_one("evaluation", TEXT_SUITES, suite, (options or {}).get(suite))
        paths = [path for path in _folders(root) if _has(path, KNOWN[suite])]
        if not paths:
            absent.append(f"{suite}: no files of it below {root}")
        for path in paths if suite in MANY else paths[:1]:
            try:
                found.append(TextPlace(suite, path, evaluation, evaluation.read(path)))
            except UserError as error:
                failed.append(f"{suite} of {path}: {error}")
    if len(absent) == len(TEXT_SUITES):
        raise UserError(
            f"{root} has files of none of {', '.join(TEXT_SUITES)}, up to {DEPTH} folders deep."
        )
    if failed and (failures is None or not found):
        raise UserError(" ".join(failed))
    if failures is not None:
        failures += failed + absent
    return found


def _folders(root: Path) -> Iterator[Path]:
    """The folder and those below it, nearest first, by name."""
    level = [root]
    for _ in range(DEPTH + 1):
        yield from level
        level = [d for folder in level for d in sorted(folder.iterdir()) if d.is_dir()]


def _has(path: Path, patterns: tuple[str, ...]) -> bool:
    return any(next(path.glob(pattern), None) is not None for pattern in patterns)
