"""Real handwritten digits that come with scikit-learn: 1,797 scans of 8 x 8 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from vislang.data.order import order
from vislang.data.sample import Sample
from vislang.errors import UserError
from vislang.files import fingerprint
from vislang.lookup import nearest

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CAPTIONS = (
    "a handwritten digit {}",
    "the number {} written by hand",
    "a scan of the handwritten number {}",
    "somebody wrote the digit {} with a pen",
    "a small grey picture of the digit {}",
)
SPLITS = ("train", "test", "all")
TEST_SIZE = 500


class Digits:
    """Handwritten digits of scikit-learn with captions; nothing is downloaded (`digits:test`).

    Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, UCI (the test part).
    An image has 8 x 8 grey levels 0..16, here spread over 0..255.

    Args:
        path: the split, for the form 'digits:train'; empty for `split`.
        split: train (1,297 samples), test (500, stratified by class) or all.
        seed: of the division into train and test.
    """

    gives = frozenset({"image", "text", "label"})
    classes = CLASSES
    templates = CAPTIONS  # zero-shot classification asks in the words of the captions

    def __init__(self, path: str = "", *, split: str = "train", seed: int = 0):
        split = path or split
        if split not in SPLITS:
            raise UserError(
                f"digits has no split {split!r}.{nearest(split, SPLITS)}"
                f" Known: {', '.join(SPLITS)}."
            )
        scans, labels = _load()
        self.name = f"digits-{split}"
        self._rows = np.arange(len(labels)) if split == "all" else _split(labels, split, seed)
        self._labels = labels[self._rows]
        scans = np.rint(scans.reshape(-1, 8, 8)[self._rows] * (255 / 16)).astype(np.uint8)
        self._scans = scans
        self.fingerprint = fingerprint([split, seed, CAPTIONS, self._rows, scans.sum((1, 2))])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        from PIL import Image

        label = int(self._labels[index])
        row = int(self._rows[index])
        return Sample(
            id=f"digit-{row:04d}",
            image=Image.fromarray(self._scans[index]),
            texts=tuple(caption.format(CLASSES[label]) for caption in CAPTIONS),
            labels=(label,),
            origin=f"sklearn.load_digits:{row}",
        )

    def shards(self) -> Sequence[range]:
        return [range(len(self))]


def _load() -> tuple[np.ndarray, np.ndarray]:
    """(grey levels [1797, 64], labels [1797])."""
    package = find_spec("sklearn")
    file = Path(package.origin).parent / "datasets/data/digits.csv.gz" if (
        package and package.origin) else Path()  # fmt: skip
    if file.is_file():
        # To import sklearn.datasets takes two seconds, in every process; to read this 0.03.
        table = np.loadtxt(file, delimiter=",")
        return table[:, :-1], table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.asarray(bunch.data), np.asarray(bunch.target)  # type: ignore[attr-defined]


def _split(labels: np.ndarray, split: str, seed: int) -> np.ndarray:
    """Rows of the split, sorted; every class has its share in the test part, to within one."""
    shuffled = order(seed, 0, len(labels))
    by_class = [shuffled[labels[shuffled] == label] for label in range(10)]
    exact = np.array([len(rows) * TEST_SIZE / len(labels) for rows in by_class])
    takes = exact.astype(int)
    # the places left by rounding down go to the largest remainders
    for label in np.argsort(takes - exact, kind="stable")[: TEST_SIZE - takes.sum()]:
        takes[label] += 1
    test = np.concatenate([rows[:take] for rows, take in zip(by_class, takes)])
    if split == "test":
        return np.sort(test)
    return np.setdiff1d(np.arange(len(labels)), test)
