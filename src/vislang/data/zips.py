"""The directory of a zip archive as columns, so that members are read in place.

Format: PKWARE APPNOTE 6.3.10, sections 4.3.12 (central directory), 4.3.14-16 (its end, zip64).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vislang.data.places import forget, read_at
from vislang.errors import UserError

_END = struct.Struct("<4s4xHHIIH")
_END64 = struct.Struct("<4s8x4x8xQQQQ")
# signature, flags, method, crc, stored size, size, lengths of name, extra, comment, header at
_ENTRY = struct.Struct("<4s4xHH4xIIIHHH8xI")
_FULL = 0xFFFFFFFF
_ENCRYPTED, _UTF8 = 0x1, 0x800


@dataclass(frozen=True)
class Directory:
    """Members of a zip in the order of its directory; folders left out.

    `method` is 0 (stored), 8 (deflate), another number, or -1 for an encrypted member.
    `header` is where a member's local header begins.
    """

    names: list[str]
    header: np.ndarray
    size: np.ndarray
    raw_size: np.ndarray
    method: np.ndarray
    checksum: np.ndarray


def read_directory(path: Path) -> Directory:
    """Read the central directory of a zip.

    Raises:
        UserError: it is not a zip, or cut off (the directory is at its end).
    """
    forget(path)
    end, total = _read_end(path)
    count, length, offset, shift = end
    block = read_at(path, offset + shift, length)
    if len(block) < length or count * _ENTRY.size > total:
        raise _damaged(path)
    names, rows, at = [], [], 0
    for _ in range(count):
        try:
            mark, flags, method, crc, size, raw, n, extra, comment, header = _ENTRY.unpack_from(
                block, at
            )
        except struct.error as error:
            raise _damaged(path) from error
        if mark != b"PK\1\2":
            raise _damaged(path)
        start = at + _ENTRY.size
        name = block[start : start + n].decode("utf-8" if flags & _UTF8 else "cp437", "replace")
        if _FULL in (size, raw, header):
            fields = block[start + n : start + n + extra]
            raw, size, header = _wide(fields, raw, size, header)
        at = start + n + extra + comment
        if not name.endswith("/"):
            names.append(name)
            method = -1 if flags & _ENCRYPTED else method
            rows.append((header + shift, size, raw, method, crc))
    columns = np.array(rows, np.int64).reshape(-1, 5).T
    methods, checksums = columns[3].astype(np.int16), columns[4].astype(np.uint32)
    return Directory(names, columns[0], columns[1], columns[2], methods, checksums)


def _read_end(path: Path) -> tuple[tuple[int, int, int, int], int]:
    """((members, bytes of the directory, its offset, bytes before the archive), file size)."""
    try:
        total = os.stat(path).st_size
        tail_at = max(0, total - (65536 + _END.size + 96))
        tail = read_at(path, tail_at, total - tail_at)
    except OSError as error:
        raise UserError(f"The zip {path} cannot be read: {error}.") from error
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(tail):
        raise _damaged(path)
    _, _, count, length, offset, _ = _END.unpack_from(tail, at)
    directory_end = tail_at + at
    locator = tail[at - 20 : at]
    if at >= 20 and locator[:4] == b"PK\6\7":
        directory_end -= 20 + 56
        wide = read_at(path, directory_end, 56)
        if len(wide) < 56 or wide[:4] != b"PK\6\6":
            raise _damaged(path)
        _, _, count, length, offset = _END64.unpack(wide)
    # Archives with something in front (a self-extractor) count from their own beginning.
    shift = directory_end - length - offset
    if shift < 0:
        raise _damaged(path)
    return (count, length, offset, shift), total


def _wide(fields: bytes, raw: int, size: int, header: int) -> tuple[int, int, int]:
    """Sizes of more than 32 bits, from the extra field 0x0001."""
    at = 0
    while at + 4 <= len(fields):
        kind, length = struct.unpack_from("<HH", fields, at)
        if kind == 1:
            numbers = iter(struct.unpack_from(f"<{length // 8}Q", fields, at + 4))
            raw = next(numbers, raw) if raw == _FULL else raw
            size = next(numbers, size) if size == _FULL else size
            header = next(numbers, header) if header == _FULL else header
            break
        at += 4 + length
    return raw, size, header


def _damaged(path: Path) -> UserError:
    return UserError(
        f"{path} is not a whole zip archive: its directory, at the end, is missing or damaged."
        " Fetch or make it again."
    )
