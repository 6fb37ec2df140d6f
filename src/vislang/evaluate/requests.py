"""What an evaluation asks to have embedded, and what it gets.

N: images, M: captions, P: prompts, D: shared width, F: width of the image tower's features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vislang.errors import UserError
from vislang.evaluate.search import stratified_split

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from vislang.data.sample import Source
    from vislang.evaluate.scores import Scores


@dataclass(frozen=True)
class Requests:
    """What must be embedded; requests of several evaluations are joined and met in one pass.

    Args:
        images: image embeddings in the shared space.
        features: the image tower's output before the head.
        captions: the source's texts.
        labels: the source must give labels.
        train: also images or features, and labels, of a training source.
        texts: further texts, such as filled prompts.
        text_optional: captions and texts may be left out where the model has no text side.
    """

    images: bool = False
    features: bool = False
    captions: bool = False
    labels: bool = False
    train: bool = False
    texts: tuple[str, ...] = ()
    text_optional: bool = False

    def __or__(self, other: Requests) -> Requests:
        """Everything that either asks for.

        >>> (Requests(images=True) | Requests(texts=("a",))).texts
        ('a',)
        """
        flags = ("images", "features", "captions", "labels", "train")
        return Requests(
            **{name: getattr(self, name) or getattr(other, name) for name in flags},
            texts=tuple(dict.fromkeys(self.texts + other.texts)),
        )


@dataclass(frozen=True)
class Embeddings:
    """Rows to score. Arrays may lie on disk; nothing is normalised.

    Args:
        ids: of the samples [N].
        label: class of each sample, -1 for none [N].
        classes: names of the classes; may be empty.
        images: [N, D], or None where nobody asked.
        features: [N, F], or None.
        captions: [M, D], or None.
        caption_texts: [M].
        caption_owner: row of the image that each caption describes [M].
        prompts: text -> row of `prompt_rows`.
        prompt_rows: [P, D].
        train: rows of the training source.
        notes: what a reader of the scores should know, in sentences.
    """

    ids: list[str]
    label: Int[np.ndarray, " N"]
    classes: tuple[str, ...] = ()
    images: Any = None
    features: Any = None
    captions: Any = None
    caption_texts: list[str] = field(default_factory=list)
    caption_owner: Int[np.ndarray, " M"] | None = None
    prompts: Mapping[str, int] = field(default_factory=dict)
    prompt_rows: Any = None
    train: Embeddings | None = None
    notes: tuple[str, ...] = ()

    def space(self, name: str) -> Float[np.ndarray, "N D"]:
        """The rows of "features" or "embedding" as an array in memory."""
        rows = self.features if name == "features" else self.images
        if rows is None:
            raise ValueError(f"{name} rows were not requested")
        return np.asarray(rows)

    def prompt_embeddings(self, texts: Sequence[str]) -> Float[np.ndarray, "P D"]:
        """Embeddings of requested texts, in this order."""
        return np.asarray(self.prompt_rows)[[self.prompts[text] for text in texts]]

    @cached_property
    def class_count(self) -> int:
        """K: named classes, or as many as the labels need."""
        labels = [self.label] + ([self.train.label] if self.train is not None else [])
        most = max((int(label.max()) for label in labels if len(label)), default=-1)
        return max(len(self.classes), most + 1)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes; numbers where there are no names."""
        named = list(self.classes)
        return named + [str(k) for k in range(len(named), self.class_count)]

    def labelled(self) -> Embeddings:
        """Only the samples that have a label."""
        return self if (self.label >= 0).all() else self.take(np.flatnonzero(self.label >= 0))

    def take(self, rows: Int[np.ndarray, " n"]) -> Embeddings:
        """These samples, without their captions."""
        return replace(
            self,
            ids=[self.ids[row] for row in rows.tolist()],
            label=self.label[rows],
            images=None if self.images is None else self.images[rows],
            features=None if self.features is None else self.features[rows],
            captions=None,
            caption_texts=[],
            caption_owner=None,
        )

    def with_train(self, seed: int = 0, share: float = 0.2) -> tuple[Embeddings, Embeddings, str]:
        """(train, test, how they were made), both labelled.

        Without a training source the samples themselves are divided, stratified by class: `share`
        of each class for testing, the rest for training.
        """
        test = self.labelled()
        if self.train is not None:
            return self.train.labelled(), test, "training source"
        if not len(test.label):
            raise UserError("No sample has a label, so there is nothing to learn from.")
        train, held = stratified_split(test.label, share, seed)
        if not len(held):
            raise UserError(
                f"The {len(test.label)} labelled samples cannot be divided into training and test:"
                " every class has one sample. Give a training source (--train-source)."
            )
        how = f"stratified {1 - share:.0%} / {share:.0%} of the source itself, seed {seed}"
        return test.take(train), test.take(held), how


class Evaluation(Protocol):
    """An evaluation: its options are the arguments of its constructor."""

    name: str

    def requests(self, source: Source) -> Requests:
        """What must be embedded; a source that cannot be evaluated so is a UserError."""
        ...

    def score(self, embeddings: Embeddings) -> Scores:
        """The scores: a pure function of the embeddings and of the options."""
        ...

    def settings(self) -> dict[str, Any]:
        """Everything that makes two scores incomparable when it differs."""
        ...


def need(source: Source, what: str, evaluation: str) -> None:
    """Refuse a source that does not give "label" or "text"."""
    if what in source.gives:
        return
    remedy = {
        "label": "Use a source with labels (folders of classes, a table with a label column)",
        "text": "Use a source with captions (a table with a caption column, COCO, Flickr)",
    }[what]
    others = {
        "label": "retrieval and overview do without labels",
        "text": "zeroshot, probe, knn, cluster and fewshot do without captions",
    }[what]
    raise UserError(
        f"The evaluation {evaluation!r} needs {'labels' if what == 'label' else 'captions'}, but"
        f" the source {source.name!r} gives {', '.join(sorted(source.gives)) or 'nothing'}."
        f" {remedy}, or leave {evaluation!r} out: {others}."
    )
