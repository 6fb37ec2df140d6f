"""Tables: CSV, TSV or Parquet with columns for the image, its captions and its label."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.data.columns import choose
from vislang.data.grouped import damaged_row
from vislang.data.images import NamedImages, PlacedImages
from vislang.data.labelled import even_shards
from vislang.data.labels import encode, read_classes
from vislang.data.patterns import name_of
from vislang.data.sample import BadSample, Sample
from vislang.data.tables import MappedColumn, OpenedTable, open_table
from vislang.data.trees import fingerprint_files
from vislang.errors import UserError
from vislang.files import fingerprint

if TYPE_CHECKING:
    import pyarrow as pa

_IMAGE = (
    "image", "image_path", "filepath", "file_path", "path", "file_name", "filename", "file", "img",
    "image_bytes", "jpg", "bytes",
)  # fmt: skip
_CAPTION = ("caption", "captions", "text", "texts", "title", "sentence", "sentences", "description")
_PLACES = ("image_offset", "image_size")  # of images that lie in tars
_LABEL = ("label", "class", "classname", "class_name", "category", "target")


class Table:
    """CSV, TSV or Parquet with columns for image (path or bytes), captions and label.

    Columns have usual names or are given. Rows that name the same image are one sample with
    several captions; so are several caption columns, and a column of lists.

    Args:
        path: the file; of Parquet also a folder or a pattern.
        image: column with the image's path, or its bytes; '' looks for a usual name.
        caption: column with a caption or a list of them; a list names several columns.
        label: column with a class name or index.
        id: column with the sample's id; else the image's path, or the row's number.
        images_root: folder or zip archive from which paths count; else the table's own folder.
        classes: class names in the order of their indices, as a list or a file of lines.
        delimiter: one character, or comma, tab, semicolon, bar; '' detects it.
        columns: names of the columns of a file without a header line.
        encoding: of the text.
        split: only rows whose column split says so.
    """

    def __init__(
        self,
        path: str,
        *,
        image: str = "",
        caption: str | Sequence[str] = "",
        label: str = "",
        id: str = "",
        images_root: str = "",
        classes: str | Sequence[str] = (),
        delimiter: str = "",
        columns: Sequence[str] = (),
        encoding: str = "utf8",
        split: str = "",
    ):
        opened = open_table(path, delimiter, columns, encoding)
        known, where = opened.columns, f"The table {path}"
        if split:
            opened.choose_rows("split", split, where)
        placed = set(_PLACES) <= set(known)
        picture = choose(image, known, _IMAGE, "image", where)
        wanted = [caption] if isinstance(caption, str) else list(caption)
        texts = [c for w in wanted or [""] if (c := choose(w, known, _CAPTION, "caption", where))]
        target = choose(label, known, _LABEL, "label", where)
        named = choose(id, known, ("id",) if placed else (), "id", where)
        if not picture and not texts:
            raise UserError(
                f"{where} has no column with a usual name for images or captions."
                f" Say which: image=COLUMN, caption=COLUMN. Columns: {', '.join(known)}."
            )
        self.files, self._damaged = opened.files, opened.damaged
        self.name = name_of(path)
        self._options = [picture, texts, target, named, images_root] + [split] * bool(split)
        light = opened.read([c for c in {*texts, target, named} if c])
        first, group = self._open_images(opened, picture, images_root or str(_home(path)))
        n = len(light) if light.num_columns else len(opened.read(known[:1]))
        first = np.arange(n) if first is None else first
        self._captions = _captions([light[c] for c in texts], group, n, len(first))
        self._ids = _strings(light[named]).take(_rows(first)) if named else self._names
        self._take_labels(light[target] if target else None, first, classes)
        self._n = len(first)
        parts = {"image": picture, "text": texts, "label": target}
        self.gives = frozenset(kind for kind, found in parts.items() if found)

    def _take_labels(
        self, column: pa.ChunkedArray | None, first: np.ndarray, classes: str | Sequence[str]
    ) -> None:
        self._labels: np.ndarray | None = None
        self.classes: tuple[str, ...] = ()
        if column is not None:
            values = column.take(_rows(first)).to_pylist()
            self._labels, names = encode(values, read_classes(classes) if classes else ())
            self.classes = tuple(names)

    def _open_images(
        self, opened: OpenedTable, picture: str | None, home: str
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """(first row of each image, image of each row); None where each row is its own."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._names: pa.Array | None = None
        self._bytes: MappedColumn | None = None
        self._images: NamedImages | PlacedImages | None = None
        if not picture:
            return None, None
        if set(_PLACES) <= set(opened.columns):
            light = opened.read([picture, *_PLACES])
            offset, size = (light[name].combine_chunks() for name in _PLACES)
            self._images = PlacedImages(home, _strings(light[picture]), offset, size)
            return None, None
        if opened.text is None:
            kind = pq.read_schema(opened.files[0]).field(picture).type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                if not (pa.types.is_struct(kind) or "binary" in str(kind)):
                    raise UserError(f"The column {picture!r} holds {kind}, not paths or bytes.")
                self._bytes, self._images_root = MappedColumn(opened, picture), Path(home)
                return None, None
        column = _strings(opened.read([picture])[picture]).fill_null("")
        encoded = column.dictionary_encode()
        group = encoded.indices.to_numpy(zero_copy_only=False)
        _, first = np.unique(group, return_index=True)
        self._names = encoded.dictionary
        self._images = NamedImages(home, self._names)
        return first, group

    def __len__(self) -> int:
        return self._n + len(self._damaged)

    def __getitem__(self, index: int) -> Sample:
        if index >= self._n:
            raise damaged_row(self.files[0], *self._damaged[index - self._n])
        id_ = f"{index:09d}" if self._ids is None else str(self._ids[index].as_py())
        origin = f"{self.files[0]}:{id_}"
        try:
            image = self._image(index)
        except BadSample as bad:
            raise BadSample(id_, bad.reason, origin) from bad
        texts = () if self._captions is None else tuple(self._captions[index].as_py())
        label = -1 if self._labels is None else int(self._labels[index])
        return Sample(id_, image, texts, (label,) if label >= 0 else (), origin)

    def _image(self, index: int) -> Any:
        if self._images is not None:
            return self._images[index]
        value = self._bytes[index] if self._bytes is not None else None
        if isinstance(value, dict):  # {"bytes", "path"}
            path = value.get("path")
            value = value.get("bytes") or (self._images_root / path if path else None)
        return value

    def shards(self) -> Sequence[range]:
        return even_shards(len(self))

    @cached_property
    def fingerprint(self) -> str:
        images = self._images.fingerprint() if self._images else ""
        return fingerprint([fingerprint_files(self.files), images, self._options, self.classes])

    @staticmethod
    def recognises(path: Path) -> bool:
        """A file of such a format, a pattern for Parquet, or a folder with Parquet files."""
        if path.is_dir():
            return next(path.glob("*.parquet"), None) is not None
        return path.suffix.lower() in (".csv", ".tsv", ".parquet")


def _home(path: str) -> Path:
    return Path(path) if Path(path).is_dir() else Path(path).parent


def _rows(values: np.ndarray) -> pa.Array:
    import pyarrow as pa

    return pa.array(values.astype(np.int64))


def _strings(column: pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa

    text = column.cast(pa.large_string())
    return pa.concat_arrays(text.chunks) if text.num_chunks else pa.array([], pa.large_string())


def _captions(
    columns: list[pa.ChunkedArray], group: np.ndarray | None, n: int, samples: int
) -> pa.Array | None:
    """A list of captions for each sample: by row, within a row by column; blank ones left out.

    Args:
        columns: strings, or lists of strings, n rows each.
        group: the sample of each row; None: each row is one.
        n: rows.
        samples: how many there are.
    """
    import pyarrow as pa
    import pyarrow.compute

    pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers
    if not columns:
        return None
    values, rows = [], []
    for column in columns:
        whole = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
        if pa.types.is_list(whole.type) or pa.types.is_large_list(whole.type):
            rows.append(pc.list_parent_indices(whole).to_numpy())
            whole = pc.list_flatten(whole)
        else:
            rows.append(np.arange(n))
        values.append(pc.utf8_trim_whitespace(whole.cast(pa.large_string()).fill_null("")))
    row = np.concatenate(rows)
    owner = row if group is None else group[row]
    flat = pa.concat_arrays(values)
    order = np.lexsort((row, owner))  # stable: within a row in the order of columns
    order = order[pc.not_equal(flat, "").to_numpy(zero_copy_only=False)[order]]
    counts = np.bincount(owner[order], minlength=samples)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int64())
    return pa.LargeListArray.from_arrays(offsets, flat.take(_rows(order)))
