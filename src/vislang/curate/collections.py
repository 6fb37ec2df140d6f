"""Somebody's collection of embeddings: img_emb_<n>.npy beside metadata_<n>.parquet, row by row.

The layouts of LAION-5B (a folder a collection), of clip-retrieval (img_emb/, metadata/) and of the
original's own copy (ImageEmbeddings/<type>/, Metadata/<type>/) are read as they are.

n: rows of a part, D: width.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.errors import UserError
from vislang.store.rows import read_header

if TYPE_CHECKING:
    import pyarrow as pa

ROW_BITS = 32  # a row's key: rank of its part among all, then its number in the part
ARRAYS = ("img_emb", "text_emb")
_PLAIN = re.compile(r"(?i)(img_emb|text_emb|image_?embeddings|metadata|.*-metadata)")


@dataclass(frozen=True)
class Part:
    """One array and its table; row r of one belongs to row r of the other.

    Args:
        group: the collection's name within a folder of several ("laion2B-en"); may be empty.
        number: of the part.
        array: the .npy.
        table: the .parquet; None for embeddings alone.
    """

    group: str
    number: int
    array: Path
    table: Path | None = None

    @property
    def name(self) -> str:
        """As the original names it: '<group>-<number, 4 digits>'.

        >>> Part("laion2B-en", 7, Path("a.npy")).name
        'laion2B-en-0007'
        """
        return f"{self.group}-{self.number:04d}" if self.group else f"{self.number:04d}"

    def row_id(self, row: int) -> str:
        """The original's name of an image.

        >>> Part("laion2B-en", 7, Path("a.npy")).row_id(12)
        'laion2B-en-0007-000000012.jpg'
        """
        return f"{self.name}-{row:09d}.jpg"

    @cached_property
    def shape(self) -> tuple[int, int]:
        """(n, D), from the array's header, once everything about the pair was checked.

        Raises:
            UserError: a file is missing, torn, not float16 to float64 in two dimensions, or the
                two have unequally many rows.
        """
        shape, _ = read_header(self.array)
        if len(shape) != 2:
            raise UserError(f"{self.array} holds {list(shape)}; embeddings are rows [n, D].")
        if self.table is not None:
            rows = read_table(self.table, "metadata").num_rows
            if rows != shape[0]:
                raise UserError(
                    f"{self.array} has {shape[0]:,} rows, but {self.table.name} has {rows:,}: they"
                    " are not of the same part. Fetch both again (`vislang curate shards`)."
                )
        return int(shape[0]), int(shape[1])

    @property
    def dtype(self) -> np.dtype:
        """Of the array on disk."""
        return read_header(self.array)[1]

    def columns(self, names: Sequence[str] | None = None) -> pa.Table:
        """The table, or only those of `names` that it has."""
        if self.table is None:
            raise UserError(f"The part {self.name} has embeddings but no metadata table.")
        if names is not None:
            schema = read_table(self.table, "schema")
            names = [name for name in dict.fromkeys(names) if name in schema.names]
        return read_table(self.table, "table", columns=names)


def read_table(path: Path, what: str, **options: Any) -> Any:
    """A Parquet file's metadata, schema or table; a torn one is a clear error."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    read = {"metadata": pq.read_metadata, "schema": pq.read_schema, "table": pq.read_table}[what]
    try:
        return read(path, **options)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: fetch it again (`vislang curate shards`).") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"{path} is no whole Parquet file ({str(error).splitlines()[0]}). Fetch it again."
        ) from error


@dataclass
class Collection:
    """The parts of a folder, in the order of their names.

    Args:
        address: where it lies.
        parts: sorted by group and number.
        bad: part -> why it cannot be used; these are not among `parts`.
    """

    address: str
    parts: list[Part]
    bad: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(part.shape[0] for part in self.parts)

    @property
    def nbytes(self) -> int:
        """Of all arrays."""
        return sum(int(np.prod(part.shape)) * part.dtype.itemsize for part in self.parts)

    @property
    def width(self) -> int:
        """D."""
        return self.parts[0].shape[1]

    @cached_property
    def ranks(self) -> dict[str, int]:
        """Part -> its rank when the names of images are sorted as texts, the tie rule's order."""
        # '-' ends the number: with five digits '10000-' must sort as the names of images do.
        names = sorted((part.name for part in self.parts), key=lambda name: f"{name}-")
        return {name: rank for rank, name in enumerate(names)}

    def keys(self, part: Part, rows: np.ndarray) -> np.ndarray:
        """int64 keys that sort as the names of images do."""
        return (self.ranks[part.name] << ROW_BITS) | rows.astype(np.int64)

    def places(self, keys: np.ndarray) -> Iterator[tuple[Part, np.ndarray, np.ndarray]]:
        """(part, where in `keys`, rows of the part) of each part that the keys name."""
        by_rank = {self.ranks[part.name]: part for part in self.parts}
        rank, row = keys >> ROW_BITS, keys & ((1 << ROW_BITS) - 1)
        for one in np.unique(rank):
            at = np.flatnonzero(rank == one)
            yield by_rank[int(one)], at, row[at]

    def rows(self, keys: np.ndarray) -> np.ndarray:
        """Embeddings of rows by key, float32 [m, D]."""
        out = np.empty((len(keys), self.width), np.float32)
        for part, at, row in self.places(keys):
            mapped = np.load(part.array, mmap_mode="r", allow_pickle=False)
            order = np.argsort(row)  # disks like ascending reads
            out[at[order]] = mapped[row[order]]
        return out

    def metadata(self, keys: np.ndarray, names: Sequence[str] | None = None) -> pa.Table:
        """Rows of the tables by key, in the keys' order; columns that not all have are null."""
        import pyarrow as pa

        tables, order = [], []
        for part, at, row in self.places(keys):
            tables.append(part.columns(names).take(pa.array(row)))
            order.append(at)
        if not tables:
            return pa.table({name: pa.array([], pa.string()) for name in names or ()})
        back = np.argsort(np.concatenate(order))
        return pa.concat_tables(tables, promote_options="permissive").take(pa.array(back))

    def fingerprint_of(self) -> list[list[Any]]:
        """Names, sizes and types of all parts, for the settings of what is made from them."""
        return [[p.name, *p.shape, str(p.dtype)] for p in self.parts]


def open_collection(address: str | Path, *, width: int = 0, array: str = "img_emb") -> Collection:
    """Find the parts below a local folder and look at the header of every file.

    A part that is torn, of another width, or without its other half goes to `bad` with the reason,
    and the others stay usable.

    Args:
        address: a folder. What lies elsewhere is fetched first: `vislang curate shards`.
        width: what all arrays must have; 0 takes that of most.
        array: img_emb, or text_emb for the captions' embeddings.

    Raises:
        UserError: there is no folder, or no usable part in it.
    """
    folder = Path(address)
    if not folder.is_dir():
        remote = "://" in str(address)
        raise UserError(
            f"There is no folder {address}."
            + (" Fetch its shards first: `vislang curate shards`." if remote else "")
        )
    if array not in ARRAYS:
        raise UserError(f"array must be one of {', '.join(ARRAYS)}, got {array!r}.")
    arrays, tables = _numbered(folder, array, ".npy"), _numbered(folder, "metadata", ".parquet")
    parts, bad = [], {}
    for place in sorted({*arrays, *tables}):
        part = Part(*place, arrays.get(place, folder), tables.get(place))
        try:
            if place not in arrays:
                bad[part.name] = f"{part.table} has no {array} array beside it: fetch it."
            elif part.table is None and tables:
                bad[part.name] = f"{part.array} has no metadata table, though others do: fetch it."
            else:
                part.shape  # noqa: B018  looks at the files
                parts.append(part)
        except UserError as error:
            bad[part.name] = str(error)
    parts, wrong = _of_one_width(parts, width)
    bad |= wrong
    if not parts:
        why = "".join(f" {name}: {reason}" for name, reason in list(bad.items())[:2])
        raise UserError(
            f"{folder} holds no {array}_<number>.npy that can be used.{why}"
            " Give a folder in the layout of LAION or clip-retrieval."
        )
    return Collection(str(address), parts, bad)


def _of_one_width(parts: list[Part], width: int) -> tuple[list[Part], dict[str, str]]:
    widths = [part.shape[1] for part in parts]
    usual = width or (max(set(widths), key=widths.count) if widths else 0)
    wrong = {
        part.name: f"{part.array} has width {part.shape[1]}, but {usual} is needed: it was made by"
        " another model. Remove it, or fetch the right one."
        for part in parts
        if part.shape[1] != usual
    }
    return [part for part in parts if part.name not in wrong], wrong


def _numbered(folder: Path, stem: str, suffix: str) -> dict[tuple[str, int], Path]:
    """(group, number) -> file, wherever below the folder it lies."""
    found: dict[tuple[str, int], Path] = {}
    for path in sorted(folder.rglob(f"{stem}_*{suffix}")):
        match = re.fullmatch(rf"{stem}_(\d+)", path.stem)
        if match is None:
            continue
        place = group_of(path.relative_to(folder).as_posix()), int(match[1])
        if place in found:
            raise UserError(f"{found[place]} and {path} are both part {place[1]} of {place[0]!r}.")
        found[place] = path
    return found


def group_of(path: str) -> str:
    """The collection to which a file below the folder belongs.

    >>> group_of("laion2B-en/laion2B-en-metadata/metadata_0001.parquet")
    'laion2B-en'
    >>> group_of("img_emb/img_emb_0.npy")
    ''
    """
    return "-".join(p for p in PurePosixPath(path).parent.parts if not _PLAIN.fullmatch(p))
