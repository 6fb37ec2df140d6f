"""From scores, at random or by words: which images of a collection to fetch for each domain.

    OUT/sample.parquet   domain, rank, score, id, part, row, url, caption and what else is known
    OUT/sample.json      counts, and what was left out

K: images a domain, n: candidates.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.curate.collections import Collection, open_collection
from vislang.curate.filters import COLUMNS, Filters, column, total
from vislang.curate.score import TOP, read_scoring
from vislang.curate.targets import TARGETS, match_targets
from vislang.data.order import generator
from vislang.errors import UserError
from vislang.files import plain, read_json, whole_file, write_json

if TYPE_CHECKING:
    import pyarrow as pa
    from jaxtyping import Bool, Float32

TABLE, ABOUT = "sample.parquet", "sample.json"
UNIFORM = "uniform"
_BLOCK = 2048
_TEXT_STREAM = 5  # of `generator`, with the number of the domain


@dataclass(frozen=True)
class Duplicates:
    """What counts as the same image; of several the one with the best rank stays.

    Args:
        urls: the same URL.
        hashes: the same image hash, where the collection notes one.
        cosine: embeddings at least this alike; 0 does not look. Costs K² products a domain.
        across: also between domains (the domain with the better rank keeps it).
    """

    urls: bool = True
    hashes: bool = True
    cosine: float = 0.97
    across: bool = False


def sample_top(
    scoring: Path | str,
    out: Path | str,
    *,
    k: int = 0,
    duplicates: Duplicates = Duplicates(),
    collection: str = "",
) -> dict[str, Any]:
    """The best K of each domain without duplicates, in the order of their scores.

    What a duplicate leaves is filled from further down, as far as the scoring kept rows: score
    with a larger k than is sampled.

    Args:
        scoring: folder of `vislang curate score`.
        out: folder to fill.
        k: images a domain; 0 takes all that were kept.
        duplicates: which to leave out.
        collection: where the collection lies now, if it was moved.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    about = read_scoring(scoring)
    opened = open_collection(collection or about["collection"])
    top = pq.read_table(Path(scoring) / TOP)
    taken, tables, counts = _Seen(duplicates), [], {}
    for domain in about["domains"]:
        mine = top.filter(pc.equal(top["domain"], domain))  # type: ignore[attr-defined]
        keys = mine["key"].to_numpy()
        _check_keys(opened, mine)
        known = opened.metadata(keys)
        keep, left = taken.first_of(known, opened, keys, k or len(keys))
        tables.append(_described(opened, mine, known).filter(keep))
        counts[domain] = {"kept": int(keep.sum()), **left}
    settings = {"mode": "top", "scoring": about["classifier"], "duplicates": asdict(duplicates)}
    return _write(out, tables, counts, settings, about["filtered"])


def sample_uniform(
    collection: Collection, out: Path | str, k: int, *, groups: Sequence[str] = (), seed: int = 0,
    filters: Filters = Filters(),  # noqa: B008  frozen
) -> dict[str, Any]:  # fmt: skip
    """k images of all, each as likely; the baseline of domain-pure batches.

    Rows are drawn by Python's random.sample over all rows in order, as the original did; what a
    filter refuses is left out after the draw and counted.

    Args:
        collection: where from.
        out: folder to fill.
        k: images.
        groups: only these groups, such as laion2B-en.
        seed: of the draw.
        filters: what to leave out.
    """
    parts = [p for p in collection.parts if not groups or p.group in groups]
    if not parts:
        known = ", ".join(sorted({p.group for p in collection.parts}))
        raise UserError(f"No part is of the groups {', '.join(groups)}. There are: {known}.")
    starts = np.cumsum([0, *(p.shape[0] for p in parts)])
    if k > starts[-1]:
        raise UserError(f"{k:,} images cannot be drawn of {int(starts[-1]):,}: ask for fewer.")
    chosen = np.array(random.Random(seed).sample(range(int(starts[-1])), k), np.int64)
    part = np.searchsorted(starts, chosen, side="right") - 1
    ranks = np.array([collection.ranks[p.name] for p in parts], np.int64)
    keys = (ranks[part] << 32) | (chosen - starts[part])
    table, refused = _drawn(collection, UNIFORM, keys, filters)
    counts = {UNIFORM: {"kept": table.num_rows}}
    return _write(out, [table], counts, {"mode": "uniform", "k": k, "seed": seed}, refused)


def sample_text(
    collection: Collection, out: Path | str, k: int, *, seed: int = 0,
    targets: dict[str, tuple[str, ...]] | None = None,
    filters: Filters = Filters(),  # noqa: B008  frozen
) -> dict[str, Any]:  # fmt: skip
    """k images of each domain whose caption names it.

    Each match is kept with the probability 5 k / matches (so that a pass needs no list of all),
    then k of these are drawn, as the original did; its random numbers are not reproduced.

    Args:
        collection: where from.
        out: folder to fill.
        k: images a domain.
        seed: of the draws.
        targets: domain -> words; those of `TARGETS` by default.
        filters: what to leave out.
    """
    chosen = TARGETS if targets is None else targets
    found: list[list[np.ndarray]] = [[] for _ in chosen]
    refused = []
    for part in collection.parts:
        columns = part.columns([*COLUMNS["caption"], *filters.needed()])
        captions = column(columns, "caption")
        if captions is None:
            raise UserError(f"{part.table} has no captions, so no words can be looked for.")
        keep, report = filters.mask(columns)
        refused.append(report)
        matches = match_targets(captions, chosen)[1] & keep[:, None]
        for place in range(len(chosen)):
            found[place].append(collection.keys(part, np.flatnonzero(matches[:, place])))
    tables, counts = [], {}
    for place, domain in enumerate(chosen):
        keys, rng = np.concatenate(found[place]), generator(_TEXT_STREAM, seed, place)
        kept = keys[rng.random(len(keys)) < 5 * k / max(len(keys), 1)]
        drawn = kept[rng.permutation(len(kept))[:k]]
        tables.append(_drawn(collection, domain, drawn, None)[0])
        counts[domain] = {"kept": len(drawn), "matches": len(keys)}
    return _write(out, tables, counts, {"mode": "text", "k": k, "seed": seed}, total(refused))


class _Seen:
    """Finds duplicates, best rank first."""

    def __init__(self, rules: Duplicates):
        self.rules, self.before = rules, {"url": [], "hash": []}

    def first_of(
        self, known: pa.Table, collection: Collection, keys: np.ndarray, k: int
    ) -> tuple[Bool[np.ndarray, " n"], dict[str, int]]:
        """(which rows stay, reason -> how many do not)."""
        import pyarrow as pa

        keep, left = np.ones(len(keys), bool), {}
        for kind, on in (("url", self.rules.urls), ("hash", self.rules.hashes)):
            values = column(known, kind) if on else None
            if values is None:
                continue
            earlier = self.before[kind] if self.rules.across else []
            again = _repeated(pa.concat_arrays([*earlier, values.cast(pa.string())]))
            again = again[len(again) - len(values) :]
            left[f"same {kind}"] = int((again & keep).sum())
            keep &= ~again
        if self.rules.cosine:
            alive = np.flatnonzero(keep)
            new, looked = distinct_rows(collection.rows(keys[alive]), self.rules.cosine, k)
            left["near duplicate"] = int((~new).sum()) - (len(alive) - looked)
            keep[alive[~new]] = False
        keep[np.flatnonzero(keep)[k:]] = False
        for kind, earlier in self.before.items():
            values = column(known, kind)
            if values is not None:
                earlier.append(values.cast(pa.string()).filter(pa.array(keep)))
        return keep, left


def _repeated(values: Any) -> np.ndarray:
    """Which values stood further to the left already; null is no value."""
    codes = values.dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(float)
    first = np.zeros(len(codes), bool)
    first[np.unique(codes, return_index=True)[1]] = True
    return ~first & ~np.isnan(codes)


def distinct_rows(
    rows: Float32[np.ndarray, "n D"], cosine: float, k: int
) -> tuple[Bool[np.ndarray, " n"], int]:
    """(which rows are not like an earlier one that stays, how many were looked at).

    Stops once k rows stay. In blocks, so that memory is of the order of one block times k.
    """
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    stay, kept, at = np.zeros(len(rows), bool), 0, 0
    chosen = np.empty_like(unit[:k])
    while at < len(rows) and kept < k:
        block = unit[at : at + _BLOCK]
        free = (block @ chosen[:kept].T).max(axis=1, initial=-2.0) < cosine
        inside = block @ block.T >= cosine
        for row in np.flatnonzero(free):
            if kept == k:
                return stay, at + int(row)
            if not (inside[row, :row] & stay[at : at + row]).any():
                stay[at + row] = True
                chosen[kept] = block[row]
                kept += 1
        at += len(block)
    return stay, at


def _check_keys(collection: Collection, rows: pa.Table) -> None:
    """Keys number the parts of the collection as it was when it was scored."""
    if not rows.num_rows:
        return
    rank = rows["key"].to_numpy() >> 32
    first = np.unique(rank, return_index=True)[1]
    names = rows["part"].take(first).to_pylist()
    if any(collection.ranks.get(name) != int(rank[at]) for name, at in zip(names, first)):
        raise UserError(
            f"{collection.address} has other parts than when it was scored: restore them, or score"
            " it anew in another folder."
        )


def _drawn(
    collection: Collection, domain: str, keys: np.ndarray, filters: Filters | None
) -> tuple[pa.Table, dict[str, int]]:
    import pyarrow as pa

    known = collection.metadata(keys)
    keep, refused = filters.mask(known) if filters else (np.ones(len(keys), bool), {})
    part, row = np.empty(len(keys), object), np.empty(len(keys), np.int64)
    for one, at, rows in collection.places(keys):
        part[at], row[at] = one.name, rows
    head = pa.table({
        "domain": pa.array([domain] * len(keys), pa.string()),
        "rank": np.arange(len(keys), dtype=np.int32),
        "score": pa.nulls(len(keys), pa.float32()),
        "part": pa.array(part, pa.string()), "row": row, "key": keys,
    })  # fmt: skip
    return _described(collection, head, known).filter(keep), refused


def _described(collection: Collection, head: pa.Table, known: pa.Table) -> pa.Table:
    """domain, rank, score, id, part, row, url, caption, nsfw ... whatever it was called before."""
    import pyarrow as pa

    parts = head["part"].to_pylist()
    ids = [f"{part}-{row:09d}.jpg" for part, row in zip(parts, head["row"].to_pylist())]
    columns: dict[str, Any] = {name: head[name] for name in ("domain", "rank", "score")}
    columns |= {"id": pa.array(ids, pa.string()), "part": head["part"], "row": head["row"]}
    for kind in ("url", "caption", "nsfw", "similarity", "language", "licence", "hash"):
        values = column(known, kind)
        if values is not None:
            numbers = pa.types.is_floating(values.type)
            columns[kind] = values if numbers else values.cast(pa.string())
    return pa.table(columns)


def _write(
    out: Path | str, tables: list[pa.Table], counts: dict[str, Any], settings: dict[str, Any],
    filtered: dict[str, int],
) -> dict[str, Any]:  # fmt: skip
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.concat_tables(tables, promote_options="permissive")
    out = Path(out)
    with whole_file(out / TABLE) as file:
        pq.write_table(table, file)
    about = {"images": table.num_rows, "domains": counts, "filtered": filtered} | settings
    write_json(out / ABOUT, about)
    return plain(about)


def read_sample(folder: Path | str) -> tuple[pa.Table, dict[str, Any]]:
    """(table, counts) of a folder that `vislang curate sample` made."""
    import pyarrow.parquet as pq

    folder = Path(folder)
    if not (folder / ABOUT).exists():
        raise UserError(f"{folder} holds no sample ({ABOUT}). `vislang curate sample` makes one.")
    return pq.read_table(folder / TABLE), read_json(folder / ABOUT)
