"""A dump's bytes: plain, bzip2 (of one stream or many) or gzip, told apart by their beginning.

Blocks are small however well a file is packed, so that a bomb costs time and no memory.
"""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vislang.errors import UserError

_READ, _BLOCK = 1 << 18, 1 << 18


class Cut(Exception):
    """A dump ends early or is damaged; what came before it is good."""


def unpack(path: Path | str) -> Iterator[bytes]:
    """Blocks of at most 256 KiB of what a file holds.

    Raises:
        Cut: the packed data end early or are damaged; every block before that was given.
        UserError: the file cannot be read, or is packed in another way.
    """
    path = Path(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"The dump {path} cannot be read: {error.strerror}.") from error
    with file:
        start = file.read(6)
        file.seek(0)
        if start[:3] == b"BZh":
            yield from _unpacked(file, _Bzip2)
        elif start[:2] == b"\x1f\x8b":
            yield from _unpacked(file, _Gzip)
        elif start == b"7z\xbc\xaf\x27\x1c" or start[:4] in (b"PK\x03\x04", b"\x28\xb5\x2f\xfd"):
            raise UserError(
                f"{path} is packed as 7z, zip or zstd. Unpack it first, or take the .bz2 or .gz"
                " form of the dump."
            )
        else:
            while block := file.read(_BLOCK):
                yield block


class _Bzip2:
    """One stream of a .bz2 file."""

    def __init__(self) -> None:
        self._one = bz2.BZ2Decompressor()

    def feed(self, data: bytes) -> bytes:
        return self._one.decompress(data, _BLOCK)

    @property
    def hungry(self) -> bool:
        return self._one.needs_input

    @property
    def ended(self) -> bool:
        return self._one.eof

    @property
    def rest(self) -> bytes:
        return self._one.unused_data


class _Gzip:
    """One member of a .gz file."""

    def __init__(self) -> None:
        self._one = zlib.decompressobj(wbits=31)

    def feed(self, data: bytes) -> bytes:
        return self._one.decompress(self._one.unconsumed_tail + data, _BLOCK)

    @property
    def hungry(self) -> bool:
        return not self._one.unconsumed_tail

    @property
    def ended(self) -> bool:
        return self._one.eof

    @property
    def rest(self) -> bytes:
        return self._one.unused_data


def _unpacked(file: BinaryIO, kind: type[_Bzip2] | type[_Gzip]) -> Iterator[bytes]:
    """Stream after stream; padding of zeros behind the last one is allowed, as gzip does."""
    stream, begun = kind(), False
    while data := file.read(_READ):
        while True:
            if stream.ended:
                data = stream.rest + data if begun else data
                stream, begun = kind(), False
                data = data if data.strip(b"\0") else b""
            if not data and stream.hungry:
                break
            begun = True
            try:
                block = stream.feed(data)
            except (OSError, EOFError, zlib.error) as error:
                raise Cut(f"its packed data are damaged before byte {file.tell():,}") from error
            data = b""
            if block:
                yield block
            if stream.hungry and not stream.ended:
                break
    if begun and not stream.ended:
        raise Cut(f"its packed data end early, at byte {file.tell():,}")
