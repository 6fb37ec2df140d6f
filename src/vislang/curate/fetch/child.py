"""A process that turns foreign bytes into JPEGs and can do nothing else worth attacking.

It reads a length and bytes from its input and writes a head and bytes to its output, until the
input ends. The operating system limits its memory and its time for each picture and lets it open
no file and no connection any more. What is written here is read by `decoding.py`, which trusts
none of it.
"""

from __future__ import annotations

import contextlib
import math
import os
import struct
import sys
import time
from typing import Any

QUESTION = struct.Struct("<Q")
ANSWER = struct.Struct("<4s7IQ")  # mark, ok, width, height, original ones, frames, format; bytes
MARK = b"vlp1"
_COPIES = 20  # bytes of memory for each pixel: what decoders and conversions hold at a time
_PRIVILEGES, _NAMESPACES = 38, 0x10000000 | 0x40000000  # PR_SET_NO_NEW_PRIVS, user and network


def main(given: dict[str, Any]) -> None:
    """Serve until the input ends.

    Args:
        given: `making` and `limits`, the fields of those classes.
    """
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    with open(os.devnull, "wb") as nowhere:  # what a library prints must not become an answer
        os.dup2(nowhere.fileno(), 1)
    source = os.fdopen(os.dup(0), "rb")
    from vislang.curate.fetch.network import Refused
    from vislang.curate.fetch.picture import Making, make_picture
    from vislang.data.decode import Limits

    how, limits = Making(**given["making"]), Limits(**given["limits"])
    for data in _first_pictures():  # what is imported late has then been
        with contextlib.suppress(Refused):
            make_picture(data, how, limits)
    _confine(limits)
    while len(head := source.read(QUESTION.size)) == QUESTION.size:
        (size,) = QUESTION.unpack(head)
        data = source.read(size)
        if len(data) < size:
            break
        _allow(how.decode_s)
        _say(out, data, lambda data: make_picture(data, how, limits))


def _say(out: Any, data: bytes, make: Any) -> None:
    from vislang.curate.fetch.network import Refused
    from vislang.curate.fetch.picture import FORMATS

    try:
        made = make(data)
        head, body = (1, *made[1:6], FORMATS.index(made.format)), made.jpeg
    except Refused as refused:
        head, body = (0,) * 7, f"{refused.kind}\0{refused.detail}".encode("utf-8", "replace")
    except MemoryError:
        head, body = (0,) * 7, b"too much memory\0decoding"
    except Exception as error:
        head, body = (0,) * 7, f"cannot decode\0{type(error).__name__}: {error}"[:500].encode()
    out.write(ANSWER.pack(MARK, *head, len(body)))
    view = memoryview(body)
    while view:
        view = view[out.write(view) :]


def _first_pictures() -> list[bytes]:
    """A small picture of each format, and one that is none."""
    import io

    from PIL import Image

    from vislang.curate.fetch.picture import FORMATS

    made = [b"BM", b"GIF89a"]
    for kind in FORMATS:
        out = io.BytesIO()
        with contextlib.suppress(Exception):  # a Pillow that was built without it
            Image.new("RGB", (16, 16)).save(out, kind)
            made.append(out.getvalue())
    return made


def _confine(limits: Any) -> None:
    """Limits that hold for the rest of the process's life; those that a system lacks are left.

    A process that may have no further descriptors opens neither files nor connections.
    """
    with contextlib.suppress(Exception):
        import ctypes

        libc = ctypes.CDLL(None)
        libc.prctl(_PRIVILEGES, 1, 0, 0, 0)
        libc.unshare(_NAMESPACES)
    with contextlib.suppress(ImportError):
        import resource

        memory = _COPIES * limits.max_pixels + 4 * limits.max_bytes + _held()
        for name, value in (("AS", memory), ("FSIZE", 0), ("CORE", 0), ("NOFILE", 0)):
            with contextlib.suppress(ValueError, OSError, AttributeError):
                resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


def _held() -> int:
    """Bytes of address space in use."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 1 << 30


def _allow(seconds: float) -> None:
    """So much computing from now on; the system ends the process at its end."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        until = math.ceil(time.process_time() + seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (until, hard))


if __name__ == "__main__":
    sys.exit("This is a part of `vislang curate fetch`.")
