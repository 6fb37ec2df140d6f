"""Captions grouped by image: the shape of COCO's, Flickr's and any one-caption-a-row table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from vislang.data.images import NamedImages
from vislang.data.labelled import even_shards
from vislang.data.sample import BadSample, Sample
from vislang.data.trees import fingerprint_files
from vislang.files import fingerprint

if TYPE_CHECKING:
    import pyarrow as pa


class GroupedCaptions:
    """Images by name with their captions, held as Arrow columns.

    Args:
        name: of the source.
        file: from which it was read, for messages and the fingerprint.
        ids: an id for each image.
        images: the images, or None for text alone.
        captions: a list of captions for each image.
        damaged: rows of the file that could not be read, as (line, what is wrong); each becomes
            one more sample, which is rejected when its turn comes.
    """

    classes: tuple[str, ...] = ()

    def __init__(
        self,
        name: str,
        file: Path,
        ids: Sequence[str],
        images: NamedImages | None,
        captions: Sequence[Sequence[str]],
        damaged: Sequence[tuple[int, str]] = (),
    ):
        import pyarrow as pa

        self.name, self.file = name, file
        self._ids: pa.Array = pa.array(ids, pa.large_string())
        self._captions: pa.Array = pa.array(captions, pa.large_list(pa.large_string()))
        self._images = images
        self._damaged = list(damaged)
        self.gives = frozenset({"text"} | ({"image"} if images else set()))

    def __len__(self) -> int:
        return len(self._ids) + len(self._damaged)

    def __getitem__(self, index: int) -> Sample:
        if index >= len(self._ids):
            raise damaged_row(self.file, *self._damaged[index - len(self._ids)])
        id_ = self._ids[index].as_py()
        texts = tuple(self._captions[index].as_py())
        origin = f"{self.file}:{id_}"
        try:
            image = self._images[index] if self._images else None
        except BadSample as bad:
            raise BadSample(id_, bad.reason, origin) from bad
        return Sample(id_, image, texts, (), origin)

    def shards(self) -> Sequence[range]:
        return even_shards(len(self))

    @cached_property
    def fingerprint(self) -> str:
        images = self._images.fingerprint() if self._images else ""
        return fingerprint([self.name, fingerprint_files([self.file]), images, len(self)])


def damaged_row(file: Path, line: int, what: str) -> BadSample:
    """The verdict on a row of a text file that has the wrong number of columns."""
    return BadSample(f"{file.name}:{line}", f"damaged row: {what}", f"{file}:{line}")
