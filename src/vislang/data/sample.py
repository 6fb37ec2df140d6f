"""The nouns of data: a sample, a place where its image lies, a source, a rejected sample."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True)
class Place:
    """Bytes inside a container (a tar, a zip) that is read in place and never extracted.

    Args:
        path: the container.
        offset: where the stored bytes begin.
        size: how many stored bytes there are.
        method: "stored", or "deflate" for a compressed zip member.
        raw_size: bytes after decompression (equal to `size` when stored).
    """

    path: Path
    offset: int
    size: int
    method: str = "stored"
    raw_size: int = -1


@dataclass(frozen=True, slots=True)
class Sample:
    """One record of a source.

    Args:
        id: unique within its source, stable across machines.
        image: a file, bytes of an image file, a Place, a decoded PIL image, or None (text only).
        texts: captions; may be empty.
        labels: class indices; one for ordinary classification, several for multi-label, or none.
        origin: where it came from, for error messages and the report ("train.tar:000012").
    """

    id: str
    image: "Path | bytes | Place | Image.Image | None"
    texts: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    origin: str = ""


class BadSample(Exception):
    """A sample that cannot be used. Loaders turn it into a row of Rejected; nothing crashes."""

    def __init__(self, id: str, reason: str, origin: str = ""):
        super().__init__(f"{id}: {reason}")
        self.id, self.reason, self.origin = id, reason, origin

    def __reduce__(self):
        return BadSample, (self.id, self.reason, self.origin)


@dataclass(frozen=True, slots=True)
class Rejected:
    """The row that a bad sample leaves in the log and in the report."""

    id: str
    reason: str
    origin: str = ""


@runtime_checkable
class Source(Protocol):
    """Samples by index, so that any order can be drawn exactly, and shards as units of work.

    `gives` names what every sample is expected to have, out of {"image", "text", "label"}.
    `classes` are the names of the label indices, empty when there are none.
    `fingerprint` changes when the content does (names, sizes and times of files, not all bytes).
    """

    name: str
    gives: frozenset[str]
    classes: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """The sample at `index`; raises BadSample when its record is unusable."""
        ...

    def shards(self) -> Sequence[range]:
        """Ranges of indices that lie together on disk and make good units of work."""
        ...
