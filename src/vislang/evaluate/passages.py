"""Passages: exact search of a collection in bounded memory, BEIR's folders and MS MARCO's files.

Q: queries, N: passages, k: answers fetched, D: width.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.errors import UserError
from vislang.evaluate.scores import Scores
from vislang.files import fingerprint
from vislang.metrics.features import unit
from vislang.metrics.intervals import bootstrap_mean
from vislang.metrics.retrieved import search_measures

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from vislang.evaluate.text_suites import Rows

QUERIES = 1024  # searched together; with BLOCK passages their scores take 64 MiB
BLOCK = 16_384
FETCHED = 100


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


class Passages:
    """Search of a collection by cosine: MRR@10, NDCG@10, MAP@100, recall, accuracy.

    The folder is BEIR's (corpus.jsonl, queries.jsonl, qrels/test.tsv; .gz too) or MS MARCO's
    (collection.tsv, queries.*.tsv, qrels.*.tsv). Equal scores go to the passage that comes first.

    Args:
        split: of the judgements: test, dev ...
        gains: judgement -> grade, for files whose codes are no grades (Cranfield).
        block: passages that are in memory together.
    """

    name = "passages"

    def __init__(
        self, split: str = "", gains: Mapping[Any, float] | None = None, block: int = BLOCK
    ):
        if block < 1:
            raise UserError(f"passages: block must be at least 1, got {block}.")
        self.split, self.block = split, block
        self.gains = {str(k): float(v) for k, v in gains.items()} if gains else None

    def read(self, path: Path) -> PassageData:
        """Queries and judgements; the collection is only looked for."""
        return read_passages(path, self.split, self.gains)

    def score(self, read: PassageData, rows: Rows) -> Scores:
        """Measures over the queries, with a bootstrap over queries."""
        asked = unit(rows(read.queries))
        fetched, names, count = search(asked, read.passages(), rows, self.block)
        known = set(names.values())
        gains = np.zeros(fetched.shape)
        for row, grades in enumerate(read.grades):
            # A negative judgement (Cranfield) is a wrong answer, not a harmful one.
            gains[row] = [max(grades.get(names[at], 0.0), 0.0) for at in fetched[row].tolist()]
        right = [[g for g in grades.values() if g > 0] for grades in read.grades]
        found = search_measures(gains, right)
        values = {
            name: bootstrap_mean(each, proportion=name.startswith("accuracy"))
            for name, each in found.items()
        }
        rows_ = [[i, q, *(float(found[m][n]) for m in ("mrr@10", "ndcg@10", "map@100"))]
                 for n, (i, q) in enumerate(zip(read.ids, read.queries))]  # fmt: skip
        columns = ["id", "query", "mrr@10", "ndcg@10", "map@100"]
        notes = [*read.notes, f"{count:,} passages; {len(known):,} were fetched for some query."]
        per = {m: {"ids": read.ids, "values": found[m]} for m in ("mrr@10", "ndcg@10")}
        few = len(read.ids) <= 50_000
        return Scores(
            self.name, len(read.ids), values, notes=notes, per_sample=per if few else None,
            tables={"queries": {"columns": columns, "rows": rows_[:2000]}},
        )  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """Split and grades."""
        return {"split": self.split, "gains": self.gains, "similarity": "cosine", "k": FETCHED}


def search(
    asked: Float[np.ndarray, "Q D"],
    passages: Iterator[tuple[str, str]],
    rows: Rows,
    block: int = BLOCK,
    k: int = FETCHED,
) -> tuple[Int[np.ndarray, "Q k"], dict[int, str], int]:
    """The k best passages of each query by inner product, exactly, block after block.

    Memory: one block of texts and rows, QUERIES x block scores, Q x k answers.

    Returns:
        positions in the collection, best first (of equals the first), the ids of those fetched,
        and the number of passages.
    """
    score = np.empty((len(asked), 0), np.float32)
    where = np.empty((len(asked), 0), np.int64)
    names: dict[int, str] = {}
    start = 0
    while part := list(islice(passages, block)):
        vectors = unit(rows([text for _, text in part]))
        score, where = _merge(asked, vectors, score, where, start, k)
        names |= {start + i: name for i, (name, _) in enumerate(part)}
        kept = set(np.unique(where).tolist())
        names = {at: name for at, name in names.items() if at in kept}
        start += len(part)
    if not start:
        raise UserError("passages: the collection is empty.")
    return where, names, start


def _merge(
    asked: np.ndarray, vectors: np.ndarray, score: np.ndarray, where: np.ndarray, start: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best k of those kept and of a block, sorted by (-score, position)."""
    scores, places = [], []
    for first in range(0, len(asked), QUERIES):
        mine = slice(first, first + QUERIES)
        fresh = asked[mine] @ vectors.T
        both = np.concatenate([score[mine], fresh], axis=1)
        own = np.arange(start, start + len(vectors))
        at = np.concatenate([where[mine], np.broadcast_to(own, fresh.shape)], axis=1)
        # Stable: what was kept stands before the block, and each is in order of position.
        order = _best(both, at, k)
        scores.append(np.take_along_axis(both, order, axis=1))
        places.append(np.take_along_axis(at, order, axis=1))
    return np.concatenate(scores), np.concatenate(places)


def _best(both: np.ndarray, at: np.ndarray, k: int) -> np.ndarray:
    """Columns of the k largest, best first; a tie at the k-th place goes to the first position."""
    if both.shape[1] > k:
        kth = np.partition(both, both.shape[1] - k, axis=1)[:, -k, None]
        above, level = both > kth, both == kth
        room = k - above.sum(1, keepdims=True)
        keep = above | (level & (np.cumsum(level, axis=1) <= room))
        columns = np.nonzero(keep)[1].reshape(len(both), k)
    else:
        columns = np.broadcast_to(np.arange(both.shape[1]), both.shape)
    chosen = np.take_along_axis(both, columns, axis=1)
    position = np.take_along_axis(at, columns, axis=1)
    order = np.lexsort((position, -chosen), axis=1)
    return np.take_along_axis(columns, order, axis=1)


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
        queries = dict(_passages(_one(path, ("queries.jsonl", "queries.jsonl.gz"), "queries")))
        wanted = (f"qrels/{split or 'test'}.tsv", *(() if split else ("qrels.tsv",)))
        judged = _one(path, wanted, "judgements")
    else:
        part = split or "dev.small"
        queries = dict(_passages(_one(path, (f"queries.{part}.tsv",), "queries")))
        judged = _one(path, (f"qrels.{part}.tsv",), "judgements")
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
