"""What the tasks of one set work on: prompts, features embedded once, pictures for tuning.

N: test samples, n: training samples, C: classes, D: joint width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.data.elevater_sets import ElevaterSet, set_folder
from vislang.data.elevater_words import SetWords, set_words
from vislang.data.knowledge import Knowledge, read_knowledge
from vislang.data.sample import Sample, Source
from vislang.data.sources.elevater import ElevaterImages
from vislang.embed.texts import embed_texts
from vislang.errors import UserError
from vislang.evaluate.elevater.settings import ElevaterOptions
from vislang.evaluate.elevater.subsets import few_shot
from vislang.evaluate.embedded import embed_requests
from vislang.evaluate.pictures import Pictures
from vislang.evaluate.requests import Requests
from vislang.files import fingerprint
from vislang.metrics.features import unit

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from vislang.models.dual import DualEncoder


class Chosen:
    """Some samples of a source.

    Args:
        source: where they are.
        positions: theirs.
    """

    def __init__(self, source: Source, positions: Sequence[int]):
        self.source, self.positions = source, [int(p) for p in positions]
        self.name, self.gives, self.classes = source.name, source.gives, source.classes
        self.fingerprint = fingerprint([source.fingerprint, self.positions])

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Sample:
        return self.source[self.positions[index]]

    def shards(self) -> Sequence[range]:
        return [range(len(self))]


@dataclass
class Material:
    """One set, opened.

    Args:
        entry: the set.
        model: the dual encoder.
        root: the folder above classification/.
        options: of the evaluation.
        stores: where embeddings are kept.
        how: batch_size, device, precision, workers and limits.
    """

    entry: ElevaterSet
    model: DualEncoder
    root: Path
    options: ElevaterOptions
    stores: Path | None
    how: Mapping[str, Any]

    def _open(self, split: str) -> ElevaterImages:
        folder = set_folder(self.entry, self.root)
        return ElevaterImages(str(folder), split=split, registry=self.options.registry)

    @cached_property
    def test(self) -> ElevaterImages:
        """The test samples; in a set of one class a sample, all of them must have it."""
        found = self._open("test")
        if not self.entry.multi_label and (found.targets() < 0).any():
            raise UserError(f"{self.entry.name}: a test sample has no label.")
        return found

    @cached_property
    def train(self) -> ElevaterImages:
        """The training samples."""
        found = self._open("train")
        if found.classes != self.test.classes:
            both = [(a, b) for a, b in zip(found.classes, self.test.classes) if a != b]
            raise UserError(
                f"{self.entry.name}: train and test name their classes differently, first"
                f" {both[0] if both else (len(found.classes), len(self.test.classes))}."
            )
        return found

    @property
    def classes(self) -> int:
        """C."""
        return len(self.test.classes)

    @cached_property
    def words(self) -> SetWords:
        """Class names and templates."""
        return set_words(self.entry, self.test.classes, self.options.words)

    @cached_property
    def prompts(self) -> list[list[str]]:
        """All prompts of each class, knowledge included."""
        known = self._knowledge()
        return [known.prompts(name, self.words.templates) for name in self.words.names]

    def _knowledge(self) -> Knowledge:
        o = self.options
        home, name = Path(o.knowledge_folder), self.entry.registered
        return read_knowledge(
            o.knowledge, home / f"{name}_knowledge.tsv", home / f"GPT3_{name}.tsv",
            o.gpt3_items, o.gpt3_besides,
        )  # fmt: skip

    @cached_property
    def text(self) -> Float[np.ndarray, "C D"] | None:
        """The zero-shot classifier: of each class the unit mean of unit prompts."""
        if self.model.text is None:
            return None
        flat = [prompt for row in self.prompts for prompt in row]
        way = {key: self.how[key] for key in ("batch_size", "device", "precision")}
        rows = unit(embed_texts(self.model, flat, **way).astype(np.float64))
        ends = np.cumsum([len(row) for row in self.prompts])[:-1]
        return unit(np.stack([part.mean(0) for part in np.split(rows, ends)]))

    def start(self) -> Float[np.ndarray, "C D"]:
        """What heads begin as."""
        text = self.text if self.options.start == "text" else None
        return np.zeros((self.classes, self.model.side("image").width)) if text is None else text

    def features(
        self, source: ElevaterImages, positions: Sequence[int] | None = None
    ) -> tuple[Float[np.ndarray, "n D"], Int[np.ndarray, " n"]]:
        """(embeddings of the samples that can be used, their places among `positions`)."""
        chosen = source if positions is None else Chosen(source, positions)
        with self.preprocessing():
            found, _ = embed_requests(
                self.model, chosen, None, Requests(images=True), self.stores, self.how
            )
        ids = source.ids
        wanted = ids if positions is None else [ids[p] for p in positions]
        place = {id_: k for k, id_ in enumerate(wanted)}
        return np.array(found.images), np.array([place[id_] for id_ in found.ids], np.int64)

    def pictures(self, source: ElevaterImages, positions: Sequence[int]) -> Pictures:
        """Decoded pictures."""
        tower: Any = self.model.side("image").tower
        with self.preprocessing():
            return Pictures(
                source, positions, tower.preprocess, workers=self.how["workers"],
                limits=self.how["limits"],
            )  # fmt: skip

    @contextmanager
    def preprocessing(self) -> Iterator[None]:
        """Inside, the tower takes pictures as this set wants them."""
        tower: Any = self.model.side("image").tower
        before = tower.preprocess
        if not self.entry.crop:
            tower.preprocess = replace(before, fit="squash")
        try:
            yield
        finally:
            tower.preprocess = before

    def learnt(self, shots: int, seed: int) -> list[int]:
        """Positions of the training samples of a task, in its order.

        Of a set of one class a sample, those without it are left out. One shot is two, of which
        one is held out, as in the toolkit.
        """
        labels = self.train.label_rows
        able = [i for i, row in enumerate(labels) if row or self.entry.multi_label]
        if shots < 0:
            return able
        rows = few_shot([labels[i] for i in able], self.classes, max(shots, 2), seed)
        return [able[row] for row in rows]

    def labels_of(self, positions: Sequence[int]) -> list[tuple[int, ...]]:
        """Labels of training samples."""
        labels = self.train.label_rows
        return [labels[p] for p in positions]
