"""Webdataset: tar shards, read in place through an index that is built once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vislang.data.labels import read_classes
from vislang.data.patterns import expand, name_of
from vislang.data.places import read_at
from vislang.data.sample import BadSample, Place, Sample
from vislang.data.tar_index import read_index
from vislang.data.trees import fingerprint_files
from vislang.errors import UserError
from vislang.files import fingerprint
from vislang.lookup import nearest

_IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "jp2", "avif", "ppm", "img")
_CAPTIONS = ("txt", "text", "caption")
_JSON_KEYS = ("caption", "captions", "text")
_MOST_TEXT = 16_000_000


class WebDataset:
    """Webdataset tar shards (folder, glob or {000..099}), read in place, never extracted.

    A sample is the members of one key (the name up to its first dot). The first open walks each
    shard's headers and keeps an index beside it, or in the cache when that folder is read-only.
    A shard that breaks off gives its whole samples and one rejected row for the rest.

    Args:
        path: a folder of .tar files, one file, or a pattern.
        image: extension of the image; found by itself.
        caption: extension of a text member, 'json:KEY', or a list of these; found by itself:
            .txt, or else the caption in .json.
        label: extension of a member with the class index ('cls' by itself), or 'json:KEY'.
        classes: class names in the order of their indices, as a list or a file of lines.
    """

    def __init__(
        self,
        path: str,
        *,
        image: str = "",
        caption: str | Sequence[str] = (),
        label: str = "",
        classes: str | Sequence[str] = (),
    ):
        self.files = _shards_of(path)
        self.name = name_of(path)
        self._damaged: list[tuple[Path, str]] = []
        tables = []
        for file in self.files:
            table = read_index(file)
            damage = (table.schema.metadata or {}).get(b"damage", b"").decode()
            if damage:
                self._damaged.append((file, damage))
            tables.append(table)
        self._take_keys(tables)
        extensions = sorted({c.rpartition(".")[0] for t in tables for c in t.column_names[1:]})
        self._image = _choose_images(image, extensions, path)
        self._captions = _choose(caption, extensions, _CAPTIONS, _JSON_KEYS[:1], path, "caption")
        self._label = next(iter(_choose(label, extensions, ("cls",), (), path, "label")), "")
        used = {*self._image, *(_extension(c) for c in [*self._captions, self._label] if c)}
        self._at = {e: _column(tables, e) for e in sorted(used)}
        self.classes = tuple(read_classes(classes)) if classes else ()
        parts = {"image": self._image, "text": self._captions, "label": self._label}
        self.gives = frozenset(kind for kind, found in parts.items() if found)
        if not len(self):
            raise UserError(f"The source {path} is empty: its {len(tables)} tars hold no samples.")

    def _take_keys(self, tables: list) -> None:
        import pyarrow as pa

        text = pa.large_string()
        chunks = [chunk for table in tables for chunk in table["key"].cast(text).chunks]
        self._keys = pa.concat_arrays(chunks) if chunks else pa.array([], text)
        self._ends = np.cumsum([len(table) for table in tables])

    def __len__(self) -> int:
        return len(self._keys) + len(self._damaged)

    def __getitem__(self, index: int) -> Sample:
        if index >= len(self._keys):
            file, damage = self._damaged[index - len(self._keys)]
            raise BadSample(f"{file.stem}/rest", f"damaged container: {damage}", str(file))
        file = self.files[int(np.searchsorted(self._ends, index, "right"))]
        key = self._keys[index].as_py()
        id_, origin = f"{file.stem}/{key}", f"{file}:{key}"
        try:
            texts = [text for spec in self._captions for text in self._texts(file, index, spec)]
            labels = self._labels(file, index)
        except BadSample as bad:
            raise BadSample(id_, bad.reason, origin) from bad
        return Sample(id_, self._place(file, index), tuple(texts), labels, origin)

    def _place(self, file: Path, index: int) -> Place | None:
        for extension in self._image:
            offset, size = self._at[extension]
            if offset[index] >= 0:
                return Place(file, int(offset[index]), int(size[index]), "stored", int(size[index]))
        return None

    def _member(self, file: Path, index: int, spec: str) -> Any:
        """Text of a member, or the value of a key in its JSON; None where it is absent."""
        extension, _, key = spec.partition(":")
        offset, size = (int(column[index]) for column in self._at[extension])
        if offset < 0:
            return None
        if size > _MOST_TEXT:
            raise BadSample("", f"damaged record: .{extension} has {size:,} bytes")
        try:
            raw = read_at(file, offset, size)
        except OSError as error:
            raise BadSample("", f"missing file: {file} ({error})") from error
        if len(raw) < size:
            raise BadSample("", f"truncated container: {file} ends within .{extension}")
        try:
            return json.loads(raw).get(key) if key else raw.decode("utf-8", "replace").strip()
        except (ValueError, AttributeError, RecursionError) as error:
            raise BadSample("", f"damaged record: .{extension} is no JSON object") from error

    def _texts(self, file: Path, index: int, spec: str) -> list[str]:
        value = self._member(file, index, spec)
        values = value if isinstance(value, list) else [value]
        return [text.strip() for text in values if isinstance(text, str) and text.strip()]

    def _labels(self, file: Path, index: int) -> tuple[int, ...]:
        value = self._member(file, index, self._label) if self._label else None
        if value is None or value == "":
            return ()
        try:
            labels = tuple(int(v) for v in (value if isinstance(value, list) else [value]))
        except (TypeError, ValueError) as error:
            raise BadSample("", f"damaged record: the label {value!r} is no number") from error
        if any(label < 0 or 0 < len(self.classes) <= label for label in labels):
            raise BadSample("", f"damaged record: label {labels}, of {len(self.classes)} classes")
        return labels

    def shards(self) -> Sequence[range]:
        """One range a tar; what is damaged comes last."""
        starts = [0, *self._ends[:-1].tolist()]
        ranges = [range(a, b) for a, b in zip(starts, self._ends.tolist()) if b > a]
        return ranges + ([range(len(self._keys), len(self))] if self._damaged else [])

    @cached_property
    def fingerprint(self) -> str:
        options = [self._image, self._captions, self._label, self.classes]
        return fingerprint([fingerprint_files(self.files), options])

    @staticmethod
    def recognises(path: Path) -> bool:
        """A .tar, a pattern for .tar files, or a folder with some."""
        if path.is_dir():
            return next(path.glob("*.tar"), None) is not None
        return path.name.endswith(".tar")


def _shards_of(path: str) -> list[Path]:
    if Path(path).is_dir():
        files = sorted(Path(path).glob("*.tar")) or sorted(Path(path).glob("**/*.tar"))
        if not files:
            raise UserError(f"The source {path} is empty: the folder has no .tar files.")
        return files
    return expand(path)


def _column(tables: list, extension: str) -> tuple[np.ndarray, np.ndarray]:
    """(offset, size) of one extension over all shards."""
    columns = []
    for what in ("offset", "size"):
        name = f"{extension}.{what}"
        columns.append(np.concatenate([
            t[name].to_numpy() if name in t.column_names else np.full(len(t), -1, np.int64)
            for t in tables
        ]))  # fmt: skip
    return columns[0], columns[1]


def _extension(spec: str) -> str:
    return spec.partition(":")[0]


def _choose_images(given: str, extensions: list[str], path: str) -> list[str]:
    if given:
        return _choose(given, extensions, (), (), path, "image")
    return [extension for extension in _IMAGES if extension in extensions]


def _choose(
    given: str | Sequence[str], extensions: list[str], usual: Sequence[str],
    json_keys: Sequence[str], path: str, what: str,
) -> list[str]:  # fmt: skip
    """The given specs, each of an extension that occurs; or else the first usual one."""
    specs = [given] if isinstance(given, str) and given else list(given)
    for spec in specs:
        if _extension(spec) not in extensions:
            raise UserError(
                f"No member of {path} ends in .{_extension(spec)} ({what})."
                f"{nearest(_extension(spec), extensions)}"
                f" Endings there: {', '.join(extensions) or 'none'}."
            )
    if specs:
        return specs
    found = [extension for extension in usual if extension in extensions]
    return found[:1] or [f"json:{key}" for key in json_keys if "json" in extensions]
