"""A source of thirty samples of which some cannot be used, for tests of batches."""

from functools import lru_cache
from pathlib import Path

import torch

from pictures import jpeg
from vislang.data.batches import Batches
from vislang.data.sample import BadSample, Sample
from vislang.preprocess import Preprocess

SMALL = Preprocess(size=(16, 16))
ALL = ("image", "image_2", "text", "text_2", "label")


@lru_cache
def picture(index: int) -> bytes:
    return jpeg(index, 20, 24)


class Mixed:
    """Thirty samples of which some cannot be used, each in its own way."""

    name, classes, fingerprint = "mixed", ("a", "b"), "mixed"
    gives = frozenset({"image", "text", "label"})
    bad = {
        3: "damaged row: it is torn",
        5: "no caption: the sample has none",
        8: "not an image: the format is not known",
        13: "no label: the sample has none",
        21: "missing file: /nowhere/21.jpg",
        22: "no caption: the sample has none",
    }

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> Sample:
        if index == 3:
            raise BadSample("s3", self.bad[3], "mixed:3")
        texts = {5: (), 22: ("", "  ")}.get(index, (f"first {index}", "", f"other {index}"))
        image = {8: b"junk", 21: Path("/nowhere/21.jpg")}.get(index, picture(index))
        labels = () if index == 13 else (index % 2,)
        return Sample(f"s{index}", image, texts, labels, f"mixed:{index}")

    def shards(self) -> list[range]:
        return [range(30)]


def tokenize(texts: list[str]) -> torch.Tensor:
    return torch.tensor([[ord(c) for c in text.ljust(24)[:24]] for text in texts])


def make(source=None, batch_size=6, **options) -> Batches:
    options = {"needs": ALL, "image": SMALL, "tokenizer": tokenize, "augment": "simclr"} | options
    return Batches(source or Mixed(), batch_size, **options)


def same(left, right) -> None:
    assert left.keys() == right.keys()
    for key, value in left.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == right[key].dtype and torch.equal(value, right[key]), key
        else:
            assert value == right[key], key
