"""Zero-shot classification: the class whose described prompts are nearest to the image.

C: classes, T: templates, D: width of the shared space, N: images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.data.prompts import fill, read_prompts
from vislang.data.proper_names import proper_names
from vislang.errors import UserError
from vislang.evaluate.classified import score_classes
from vislang.evaluate.requests import Embeddings, Requests, need
from vislang.evaluate.scores import Scores
from vislang.files import fingerprint
from vislang.metrics.features import unit

if TYPE_CHECKING:
    from jaxtyping import Float

    from vislang.data.sample import Source


class ZeroShot:
    """Zero-shot classification by class names in prompt templates.

    The classifier of a class is the mean of its filled templates' embeddings, each normalised
    first, then normalised itself; the score is the cosine to the image. CLIP, Radford et al. 2021,
    arXiv:2103.00020, section 3.1.

    Args:
        prompts: auto (the source's own, else simple), simple, name, varied, photos (18 for small
            pictures), openai_imagenet, a file with one template a line, or the templates.
        normalise: normalise each prompt before the mean; False averages them as they are, which
            weighs prompts by their length (ITRA's convention).
        classes: class names to use in place of the source's, in the order of the labels; or the
            data set whose proper names to take: cifar10, cifar100, caltech101, imagenet,
            tiny_imagenet.
    """

    name = "zeroshot"

    def __init__(
        self,
        prompts: str | Sequence[str] = "auto",
        normalise: bool = True,
        classes: Sequence[str] | str | None = None,
    ):
        self.prompts, self.normalise, self.classes = prompts, normalise, classes
        self._templates: tuple[str, ...] = ()
        self._names: list[str] = []

    def requests(self, source: Source) -> Requests:
        """Images and every class name in every template."""
        need(source, "label", self.name)
        given = self.classes
        if isinstance(given, str) and given:
            given = proper_names(source, given)
        names = list(given or source.classes)
        if not names:
            raise UserError(
                f"zeroshot needs names of the classes, but the source {source.name!r} has none."
                " Give them with the option classes, in the order of the labels."
            )
        if self.classes and source.classes and len(names) != len(source.classes):
            raise UserError(
                f"zeroshot: the option classes has {len(names)} names, but the source"
                f" {source.name!r} has {len(source.classes)} classes."
            )
        self._templates = read_prompts(self.prompts, getattr(source, "templates", ()))
        self._names = names
        filled = [fill(template, name) for name in names for template in self._templates]
        return Requests(images=True, labels=True, texts=tuple(dict.fromkeys(filled)))

    def score(self, embeddings: Embeddings) -> Scores:
        """Accuracy, top-5, mean recall of the classes, confusion."""
        chosen = embeddings.labelled()
        if chosen.class_count > len(self._names):
            raise UserError(
                f"zeroshot: a label is {chosen.class_count - 1}, but there are only"
                f" {len(self._names)} class names."
            )
        rows = [
            [fill(template, name) for template in self._templates] for name in self._names
        ]  # [C, T]
        texts = embeddings.prompt_embeddings([text for row in rows for text in row])
        weights = classifier(texts.reshape(len(rows), len(self._templates), -1), self.normalise)
        scores = unit(chosen.space("embedding")) @ weights.T
        table = {"columns": ["template"], "rows": [[template] for template in self._templates]}
        return score_classes(
            self.name, scores, chosen.label, self._names, chosen.ids, tables={"prompts": table}
        )

    def settings(self) -> dict[str, Any]:
        """Templates and names count by their fingerprints."""
        return {
            "templates": len(self._templates),
            "prompts": fingerprint(self._templates),
            "classes": fingerprint(self._names),
            "normalise": self.normalise,
        }


def classifier(
    texts: Float[np.ndarray, "C T D"], normalise: bool = True
) -> Float[np.ndarray, "C D"]:
    """Unit rows: the mean over templates of (normalised) prompt embeddings, normalised.

    >>> classifier(np.array([[[2.0, 0.0], [0.0, 1.0]]])).round(3)
    array([[0.707, 0.707]])
    >>> classifier(np.array([[[2.0, 0.0], [0.0, 1.0]]]), normalise=False).round(3)
    array([[0.894, 0.447]])
    """
    if normalise:
        texts = unit(texts.reshape(-1, texts.shape[-1])).reshape(texts.shape)
    return unit(texts.mean(axis=1))
