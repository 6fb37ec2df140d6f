"""Collections of passages as they lie on disk: BEIR's folders and MS MARCO's files.

A collection is only ever read from its beginning to its end, so that its size does not matter.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vislang.errors import UserError
from vislang.files import fingerprint


@dataclass(frozen=True)
class PassageData:
    """Queries that have a right answer, grades of the answers, and where the collection lies."""

    collection: Path
    ids: list[str]
    queries: list[str]
    grades: list[dict[str, float]]
    fingerprint: str
    notes: list[str] = field(default_factory=list)

    def passages(self) -> Iterator[tuple[str, str]]:
        """(id, text) of every passage, read as they are asked for."""
        return _passages(self.collection)


def read_passages(
    path: Path, split: str = "", gains: Mapping[str, float] | None = None
) -> PassageData:
    """Find and read queries and judgements of a folder.

    Raises:
        UserError: a file is missing or damaged, codes without grades, or no query has an answer.
    """
    collection = _one(path, ("corpus.jsonl", "corpus.jsonl.gz", "collection.tsv",
                             "collection.tsv.gz"), "collection")  # fmt: skip
    if ".jsonl" in collection.name:
        asked = _one(path, ("queries.jsonl", "queries.jsonl.gz"), "queries")
        wanted = (f"qrels/{split or 'test'}.tsv", *(() if split else ("qrels.tsv",)))
        judged = _one(path, wanted, "judgements")
    else:
        part = split or "dev.small"
        asked = _one(path, (f"queries.{part}.tsv",), "queries")
        judged = _one(path, (f"qrels.{part}.tsv",), "judgements")
    queries = _queries(asked)
    grades = _judgements(judged, gains)
    ids = [name for name in grades if name in queries and any(g > 0 for g in grades[name].values())]
    if not ids:
        raise UserError(f"passages: no query of {path} has a right answer in {judged.name}.")
    notes = []
    if lost := [name for name in grades if name not in queries]:
        notes.append(f"{len(lost)} judged queries have no text: left out.")
    texts = [queries[name] for name in ids]
    size = collection.stat().st_size
    content = [ids, texts, [grades[name] for name in ids], collection.name, size]
    return PassageData(
        collection, ids, texts, [grades[name] for name in ids], fingerprint(content), notes
    )


def _queries(file: Path) -> dict[str, str]:
    """id -> text; the same id twice is an error, for judgements could mean either."""
    found: dict[str, str] = {}
    for name, text in _passages(file):
        if name in found:
            raise UserError(f"{file}: the id {name!r} stands at two queries; ids must be distinct.")
        found[name] = text
    return found


def refuse_twice(ids: Iterable[str], collection: Path, count: int) -> None:
    """Raise a UserError that names the first id that stands at two passages.

    Args:
        ids: of all passages, in order; asked for only after `count` said that there is one.
        collection: named in the message.
        count: ids less distinct ids.
    """
    if not count:
        return
    seen: dict[str, int] = {}
    for number, name in enumerate(ids, 1):
        if name in seen:
            raise UserError(
                f"{collection}: the id {name!r} stands at passages {seen[name]:,} and {number:,}:"
                " a judgement could mean either. Give every passage an id of its own."
            )
        seen[name] = number


def _one(path: Path, names: tuple[str, ...], what: str) -> Path:
    for name in names:
        if (path / name).is_file():
            return path / name
    raise UserError(f"passages: no {what} in {path}. Expected {' or '.join(names)} there.")


def _opened(file: Path):
    return gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else open(
        file, encoding="utf-8", newline="\n"
    )  # fmt: skip


def _passages(file: Path) -> Iterator[tuple[str, str]]:
    """(id, title and text) of JSON lines, or of lines `id TAB text`."""
    with _opened(file) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                if ".jsonl" in file.name:
                    found = json.loads(line)
                    name, text = str(found["_id"]), str(found["text"])
                    text = f"{found.get('title') or ''} {text}".strip()
                else:
                    name, text = line.rstrip("\r\n").split("\t")[:2]
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{file}, line {number}: no id and text ({error}).") from None
            yield name, text


def _judgements(file: Path, gains: Mapping[str, float] | None) -> dict[str, dict[str, float]]:
    """query -> passage -> grade: three columns with a header, or TREC's four."""
    found: dict[str, dict[str, float]] = {}
    with _opened(file) as lines:
        for number, line in enumerate(lines, 1):
            cells = line.split()
            if not cells:
                continue
            if number == 1 and cells[0] == "query-id":
                if cells[-1] != "score" and gains is None:
                    raise UserError(
                        f"{file} gives {cells[-1]!r}, not scores: say what each is worth, as in"
                        " --suite_options.passages.gains '{1: 4, 2: 3, 3: 2, 4: 1, -1: 0}'."
                    )
                continue
            if len(cells) not in (3, 4):
                raise UserError(f"{file}, line {number}: expected 3 or 4 columns, got {line!r}.")
            query, passage, code = cells[0], cells[-2], cells[-1]
            try:
                grade = gains[code] if gains is not None else float(code)
            except (KeyError, ValueError):
                raise UserError(
                    f"{file}, line {number}: no grade is known for the judgement {code!r}."
                ) from None
            found.setdefault(query, {})[passage] = grade
    return found
