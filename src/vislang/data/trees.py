"""Named files in a folder or in zip archives, which are read in place.

A tree is a sorted list of names (paths with "/" below its root) with a place for each. Only
containers are opened: what a name's bytes are is found out when a sample is asked for.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vislang.data.places import read_at
from vislang.data.sample import BadSample, Place
from vislang.data.zips import read_directory
from vislang.errors import UserError
from vislang.files import fingerprint

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm",
    ".pgm", ".jp2", ".avif", ".tga",
)  # fmt: skip


_MOST_STATS, _MOST_OPENED = 100_000, 1_000  # files
_BLOCK, _MOST_READ = 16 << 10, 64 << 20  # bytes


def is_image(name: str) -> bool:
    """Whether a file's name ends as an image's does.

    >>> is_image("a/B.JPEG"), is_image("a/notes.txt")
    (True, False)
    """
    return name.lower().endswith(IMAGE_SUFFIXES)


class Names:
    """File names sorted by (folder, file), a folder's path being held once.

    Ten million names are 10M x (4 + length of the file's own name) bytes, in blocks that forked
    workers share; as Python strings they would be 2 GB, copied by every worker as it counts
    references.

    Args:
        by_folder: folder path ("" for the root) -> names of files in it.
    """

    def __init__(self, by_folder: dict[str, list[str]]):
        import pyarrow as pa

        self.folders = sorted(folder for folder, files in by_folder.items() if files)
        sizes = [len(by_folder[folder]) for folder in self.folders]
        self.folder = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        blocks = [_strings(sorted(by_folder[folder])) for folder in self.folders]
        self.files: pa.Array = pa.concat_arrays(blocks) if blocks else _strings([])

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, row: int) -> str:
        folder = self.folders[self.folder[row]]
        file = self.files[row].as_py()
        return f"{folder}/{file}" if folder else file

    def taken(self, rows: np.ndarray) -> Names:
        """Only these rows, in this order."""
        import pyarrow as pa

        names = object.__new__(Names)
        names.folders, names.folder = self.folders, self.folder[rows]
        names.files = self.files.take(pa.array(np.asarray(rows, np.int64)))
        return names


class FolderTree:
    """Files below a folder. Hidden files and folders are left out; links are followed."""

    def __init__(self, root: Path, wanted: Callable[[str], bool] = is_image):
        self.root, self.names = root, Names(_walk(root, wanted))

    def __len__(self) -> int:
        return len(self.names)

    def place(self, row: int) -> Path:
        """Where the file lies."""
        return self.root / self.names[row]

    def origin(self, row: int) -> str:
        """For messages."""
        return str(self.place(row))

    def fingerprint(self) -> str:
        """Of all names, and of sizes and times (see fingerprint_many)."""
        return fingerprint_many(self.root, self.names, len(self))

    def taken(self, rows: np.ndarray) -> FolderTree:
        """The tree of only these rows."""
        tree = object.__new__(FolderTree)
        tree.root, tree.names = self.root, self.names.taken(rows)
        return tree


class ZipTree:
    """Members of one or several zip archives, sorted by (folder, file)."""

    def __init__(self, archives: Sequence[Path], wanted: Callable[[str], bool] = is_image):
        self.archives = list(archives)
        at: dict[str, tuple[int, ...]] = {}
        by_folder: dict[str, list[str]] = {}
        for number, path in enumerate(self.archives):
            members = read_directory(path)
            columns = zip(
                members.header, members.size, members.raw_size, members.method, members.checksum
            )
            for name, column in zip(members.names, columns):
                if wanted(name) and not _hidden(name):
                    if name in at:
                        other = self.archives[at[name][0]]
                        raise UserError(f"{name!r} is in {path} and already in {other}.")
                    at[name] = (number, *column)
                    folder, _, file = name.rpartition("/")
                    by_folder.setdefault(folder, []).append(file)
        self.names = Names(by_folder)
        rows = [at[self.names[row]] for row in range(len(self.names))]
        # columns: archive, local header at, stored size, size, method, CRC-32
        self._columns = np.array(rows, np.int64).reshape(-1, 6)

    def __len__(self) -> int:
        return len(self.names)

    def place(self, row: int) -> Place:
        """Where the member's bytes lie; BadSample when its local header is not there."""
        archive, header, size, raw_size, method = map(int, self._columns[row, :5])
        path = self.archives[archive]
        if method not in (0, 8):
            kind = "it is encrypted" if method < 0 else f"compression method {method}"
            raise BadSample("", f"unreadable zip member: {kind}", self.origin(row))
        try:
            local = read_at(path, header, 30)
        except OSError as error:
            raise BadSample("", f"missing file: {path} ({error})", self.origin(row)) from error
        if local[:4] != b"PK\3\4" or len(local) < 30:
            raise BadSample("", f"damaged container: {path} at {header}", self.origin(row))
        # the local name and extra field may be longer than those of the directory
        name_length, extra_length = struct.unpack_from("<HH", local, 26)
        start = header + 30 + name_length + extra_length
        return Place(path, start, size, "deflate" if method == 8 else "stored", raw_size)

    def origin(self, row: int) -> str:
        """For messages."""
        return f"{self.archives[int(self._columns[row, 0])]}:{self.names[row]}"

    def fingerprint(self) -> str:
        """Of the archives' names, and of places, sizes and checksums of the members that count."""
        digest = hashlib.sha256(self._columns.tobytes()).hexdigest()
        return fingerprint([[archive.name for archive in self.archives], digest])

    def taken(self, rows: np.ndarray) -> ZipTree:
        """The tree of only these rows."""
        tree = object.__new__(ZipTree)
        tree.archives, tree.names = self.archives, self.names.taken(rows)
        tree._columns = self._columns[rows]
        return tree


Tree = FolderTree | ZipTree


def open_tree(path: Path | str, wanted: Callable[[str], bool] = is_image) -> Tree:
    """The tree below a folder, or in the zip archives that a path or pattern names."""
    from vislang.data.patterns import expand

    path = Path(path)
    if path.is_dir():
        return FolderTree(path, wanted)
    archives = expand(str(path))
    for archive in archives:
        if archive.is_dir() or archive.suffix.lower() != ".zip":
            raise UserError(f"{archive} is neither a folder nor a .zip archive.")
    return ZipTree(archives, wanted)


def fingerprint_many(root: Path, names: Callable[[int], str] | Names, n: int) -> str:
    """Of all names below `root`, of sizes of at most 100,000 files and bytes of 1,000 of these.

    A copy on another machine has the same, whatever its times. To ask for the sizes of ten
    million would take a network drive half an hour.
    """
    name_of = names if callable(names) else names.__getitem__
    digest = hashlib.sha256()
    step, far = max(1, n // _MOST_STATS), max(1, n // _MOST_OPENED)
    for row in range(n):
        name = line = name_of(row)
        try:
            if row % far == 0:
                line += f" {_read(root / name, _BLOCK)}"
            if row % step == 0:
                line += f" {os.stat(root / name).st_size}"
        except OSError:
            line += " missing"
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()[:16]


def fingerprint_files(paths: Sequence[Path]) -> str:
    """Of names, sizes and bytes of files: a copy on another machine has the same.

    64 MiB are read at most: of small files everything, of large ones as much as is due to each
    in blocks spread from its first byte to its last (a zip's list of members, with their
    checksums, and a Parquet file's footer lie at the end).
    """
    share = max(4 * _BLOCK, _MOST_READ // max(1, len(paths)))
    return fingerprint([(path.name, os.stat(path).st_size, _read(path, share)) for path in paths])


def _read(path: Path, share: int) -> str:
    """The digest of a file's bytes, or of blocks of it where it has more than `share` bytes."""
    size, digest = os.stat(path).st_size, hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        if size <= share:
            digest.update(file.read())
        else:
            for at in np.linspace(0, size - _BLOCK, max(2, share // _BLOCK)).astype(np.int64):
                digest.update(os.pread(file.fileno(), _BLOCK, int(at)))
    return digest.hexdigest()


def _walk(root: Path, wanted: Callable[[str], bool]) -> dict[str, list[str]]:
    """folder -> wanted files in it; a folder linked into itself is not entered again."""
    found: dict[str, list[str]] = {}
    waiting: list[tuple[str, tuple[str, ...]]] = [("", (os.path.realpath(root),))]
    while waiting:
        folder, above = waiting.pop()
        files = found.setdefault(folder, [])
        with os.scandir(root / folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if not entry.is_dir():
                    if wanted(entry.name):
                        files.append(entry.name)
                    continue
                inner = f"{folder}/{entry.name}" if folder else entry.name
                real = os.path.realpath(entry.path) if entry.is_symlink() else None
                if real is None or not any(a == real or a.startswith(real + "/") for a in above):
                    waiting.append((inner, (*above, real) if real else above))
    return found


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def _strings(values: list[str]) -> pa.Array:
    import pyarrow as pa

    try:
        return pa.array(values, pa.large_string())
    except UnicodeEncodeError as error:
        bad = next(v for v in values if any(0xD800 <= ord(c) < 0xE000 for c in v))
        raise UserError(f"The file name {bad!r} is not UTF-8: rename it.") from error
