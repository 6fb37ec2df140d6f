"""Rows of a collection that must not be used, told by its columns; whole columns at a time.

n: rows of a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

# What the columns are called in LAION, Re-LAION, clip-retrieval and DataComp.
COLUMNS: dict[str, tuple[str, ...]] = {
    "url": ("url", "URL"),
    "caption": ("caption", "TEXT", "text"),
    "nsfw": ("NSFW", "nsfw", "punsafe"),
    "similarity": ("similarity", "clip_similarity", "clip_l14_similarity_score"),
    "language": ("LANGUAGE", "language"),
    "licence": ("LICENSE", "license", "licence"),
    "width": ("original_width", "WIDTH", "width"),
    "height": ("original_height", "HEIGHT", "height"),
    "opt_out": ("opt_out", "opted_out", "optout"),
    "hash": ("md5", "hash", "sha256"),
}


@dataclass(frozen=True)
class Filters:
    """What must not be used. A filter concerns only tables that have its column.

    Args:
        nsfw: keep rows whose tag is "UNLIKELY", or whose probability is at most
            `max_unsafe`; rows without a tag go.
        max_unsafe: of a column of probabilities.
        opt_out: leave out rows whose opt-out column is true.
        caption: leave out rows without a caption.
        min_similarity: least cosine of image and text that the collection notes.
        min_side: least shorter side in pixels.
        languages: keep these alone; empty keeps all.
        licences: likewise.
        blocked_urls: a file with one URL or host a line.
        blocked_hashes: a file with one image hash a line.
    """

    nsfw: bool = True
    max_unsafe: float = 0.5
    opt_out: bool = True
    caption: bool = True
    min_similarity: float = 0.0
    min_side: int = 0
    languages: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    blocked_urls: str = ""
    blocked_hashes: str = ""

    def needed(self) -> list[str]:
        """The columns that `mask` looks at, under all their names."""
        looked = {
            "nsfw": self.nsfw,
            "opt_out": self.opt_out,
            "caption": self.caption,
            "similarity": True,
            "width": self.min_side,
            "height": self.min_side,
            "language": self.languages,
            "licence": self.licences,
            "url": self.blocked_urls,
            "hash": self.blocked_hashes,
        }
        return [name for kind, on in looked.items() if on for name in COLUMNS[kind]]

    def mask(self, table: pa.Table) -> tuple[np.ndarray, dict[str, int]]:
        """(bool [n]: may be used, filter -> rows that it alone or with others refuses)."""
        keep = np.ones(table.num_rows, bool)
        refused: dict[str, int] = {}
        for name, good in self._looks(table):
            refused[name] = int((~good).sum())
            keep &= good
        return keep, refused

    def _looks(self, table: pa.Table) -> list[tuple[str, np.ndarray]]:
        found = {kind: column(table, kind) for kind in COLUMNS}
        looks = []
        if self.nsfw and found["nsfw"] is not None:
            looks.append(("nsfw", _safe(found["nsfw"], self.max_unsafe)))
        if self.opt_out and found["opt_out"] is not None:
            looks.append(("opted out", ~_truth(found["opt_out"])))
        if self.caption and found["caption"] is not None:
            looks.append(("no caption", _not_blank(found["caption"])))
        if found["similarity"] is not None:
            looks.append(("similarity", _numbers(found["similarity"]) >= self.min_similarity))
        if self.min_side and found["width"] is not None and found["height"] is not None:
            side = np.minimum(_numbers(found["width"]), _numbers(found["height"]))
            looks.append(("size", side >= self.min_side))
        for name, allowed in (("language", self.languages), ("licence", self.licences)):
            if allowed and found[name] is not None:
                looks.append((name, is_in(found[name], allowed)))
        if self.blocked_urls and found["url"] is not None:
            lines = _lines(self.blocked_urls)
            blocked = is_in(found["url"], lines) | is_in(host_of(found["url"]), lines)
            looks.append(("blocked URL", ~blocked))
        if self.blocked_hashes and found["hash"] is not None:
            looks.append(("blocked image", ~is_in(found["hash"], _lines(self.blocked_hashes))))
        return looks


def column(table: pa.Table, kind: str) -> Any:
    """The column of a kind under any of its names, or None."""
    for name in COLUMNS[kind]:
        if name in table.column_names:
            return table[name].combine_chunks()
    return None


def is_in(values: Any, wanted: Any) -> np.ndarray:
    """Which of a column's values are among `wanted`; null is not."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = values.cast(pa.string())
    found = pc.is_in(text, value_set=pa.array(list(wanted), pa.string()))  # type: ignore[attr-defined]
    return found.to_numpy(zero_copy_only=False).astype(bool)


def host_of(urls: Any) -> Any:
    """Host names, lower case.

    >>> import pyarrow as pa
    >>> host_of(pa.array(["https://A.org:8/b", "x"])).to_pylist()
    ['a.org', 'x']
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    lower = pc.utf8_lower(urls.cast(pa.string()))  # type: ignore[attr-defined]
    pattern = r"^(?:[a-z][a-z0-9+.-]*://)?(?:[^/@?#]*@)?(\[[^\]]*\]|[^/:?#]*).*$"
    return pc.replace_substring_regex(lower, pattern, r"\1")  # type: ignore[attr-defined]


def _safe(values: Any, most: float) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(values.type):
        return _numbers(values) <= most
    upper = pc.utf8_upper(values.cast(pa.string()))  # type: ignore[attr-defined]
    return is_in(upper, ("UNLIKELY", "FALSE", "SAFE"))


def _truth(values: Any) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    lower = pc.utf8_lower(values.cast(pa.string()))  # type: ignore[attr-defined]
    return is_in(lower, ("true", "1", "yes"))


def _not_blank(values: Any) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    length = pc.utf8_length(pc.utf8_trim_whitespace(values.cast(pa.string())))  # type: ignore[attr-defined]
    return _numbers(length) > 0


def _numbers(values: Any) -> np.ndarray:
    """As float64; null and what is no number become NaN, which no comparison lets pass."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        text = values.cast(pa.string())
        number = pc.match_substring_regex(text, r"^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$")  # type: ignore[attr-defined]
        values = pc.if_else(pc.fill_null(number, False), text, None)  # type: ignore[attr-defined]
    return values.cast(pa.float64()).to_numpy(zero_copy_only=False)


@lru_cache(maxsize=8)
def _lines(path: str) -> tuple[str, ...]:
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The list {path} cannot be read ({error}): one entry a line.") from error
    kept = (line.strip() for line in lines)
    return tuple(line for line in kept if line and not line.startswith("#"))


def total(reports: Any) -> dict[str, int]:
    """Sum of several reports of `Filters.mask`.

    >>> total([{"nsfw": 1}, {"nsfw": 2, "size": 1}])
    {'nsfw': 3, 'size': 1}
    """
    out: dict[str, int] = {}
    for report in reports:
        assert isinstance(report, Mapping)
        for name, count in report.items():
            out[name] = out.get(name, 0) + count
    return out
