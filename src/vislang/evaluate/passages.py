"""Passages: exact search of a collection in bounded memory, BEIR's folders and MS MARCO's files.

Q: queries, N: passages, k: answers fetched, D: width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.errors import UserError
from vislang.evaluate.passage_files import PassageData, read_passages, refuse_twice
from vislang.evaluate.passage_search import BestRows
from vislang.evaluate.scores import Scores
from vislang.lookup import nearest
from vislang.metrics.features import unit
from vislang.metrics.intervals import bootstrap_mean
from vislang.metrics.retrieved import search_measures

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from vislang.evaluate.text_suites import Rows

BLOCK = 16_384
FETCHED = 100
SIMILARITIES = ("cosine", "dot")


class Passages:
    """Search of a collection: MRR@10, NDCG@10, MAP@100, recall, precision, accuracy.

    The folder is BEIR's (corpus.jsonl, queries.jsonl, qrels/test.tsv; .gz too) or MS MARCO's
    (collection.tsv, queries.*.tsv, qrels.*.tsv). Equal scores go to the passage that comes first.

    Args:
        split: of the judgements: test, dev ...
        gains: judgement -> grade, for files whose codes are no grades (Cranfield).
        block: passages that are in memory together.
        similarity: cosine or dot.
    """

    name = "passages"

    def __init__(
        self,
        split: str = "",
        gains: Mapping[Any, float] | None = None,
        block: int = BLOCK,
        similarity: str = "cosine",
    ):
        if similarity not in SIMILARITIES:
            raise UserError(
                f"passages: similarity must be cosine or dot, got {similarity!r}."
                f"{nearest(similarity, SIMILARITIES)}"
            )
        if block < 1:
            raise UserError(f"passages: block must be at least 1, got {block}.")
        self.split, self.block, self.similarity = split, block, similarity
        self.gains = {str(k): float(v) for k, v in gains.items()} if gains else None

    def read(self, path: Path) -> PassageData:
        """Queries and judgements; the collection is only looked for."""
        return read_passages(path, self.split, self.gains)

    def score(self, read: PassageData, rows: Rows) -> Scores:
        """Measures over the queries, with a bootstrap over queries."""
        form = unit if self.similarity == "cosine" else np.asarray
        asked = form(rows(read.queries))
        fetched, names, numbers = search(
            asked, read.passages(), lambda texts: form(rows(texts)), self.block
        )
        ids = (name for name, _ in read.passages())
        refuse_twice(ids, read.collection, len(numbers) - len(np.unique(numbers)))
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
        notes = [*read.notes, *_census(numbers, names, read)]
        per = {m: {"ids": read.ids, "values": found[m]} for m in ("mrr@10", "ndcg@10")}
        few = len(read.ids) <= 50_000
        return Scores(
            self.name, len(read.ids), values, notes=notes, per_sample=per if few else None,
            tables={"queries": {"columns": columns, "rows": rows_[:2000]}},
        )  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """Split and grades."""
        return {
            "split": self.split, "gains": self.gains, "similarity": self.similarity, "k": FETCHED,
        }  # fmt: skip


def _census(numbers: np.ndarray, names: Mapping[int, str], read: PassageData) -> list[str]:
    """How many passages there are, and how many right answers are not among them."""
    found = [f"{len(numbers):,} passages; {len(names):,} were fetched for some query."]
    right = {name for grades in read.grades for name, grade in grades.items() if grade > 0}
    wanted = np.array([number_of(name) for name in sorted(right)])
    lost = int((~np.isin(wanted, numbers)).sum())
    if lost:
        found.append(
            f"{lost:,} of {len(right):,} right passages are not in the collection: they count as"
            " not found."
        )
    return found


def search(
    asked: Float[np.ndarray, "Q D"],
    passages: Iterator[tuple[str, str]],
    rows: Rows,
    block: int = BLOCK,
    k: int = FETCHED,
) -> tuple[Int[np.ndarray, "Q k"], dict[int, str], Int[np.ndarray, " N"]]:
    """The k best passages of each query by inner product, exactly, block after block.

    Memory: one block of texts and rows, QUERIES x TILE scores, Q x k answers, and eight bytes a
    passage by which ids are compared.

    Returns:
        positions in the collection, best first (of equals the first), the ids of those fetched,
        and a number for the id of each passage (`number_of`).
    """
    best = BestRows(asked, k)
    names: dict[int, str] = {}
    numbers = []
    while part := list(islice(passages, block)):
        names |= {best.seen + i: name for i, (name, _) in enumerate(part)}
        numbers.append(np.array([number_of(name) for name, _ in part]))
        best.add(rows([text for _, text in part]))
        kept = set(np.unique(best.where).tolist())
        names = {at: name for at, name in names.items() if at in kept}
    if not best.seen:
        raise UserError("passages: the collection is empty.")
    return best.where, names, np.concatenate(numbers)


def number_of(name: str) -> int:
    """64 bits of an id; two ids of 8.8 million have the same number once in half a million times.

    >>> number_of("a") == number_of("a") != number_of("b")
    True
    """
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little", signed=True)
