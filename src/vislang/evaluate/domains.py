"""What the analyses of domains read: the same images embedded in every domain, and class vectors.

N: images, E: domains, C: classes, D: width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vislang.errors import UserError
from vislang.metrics.true_class import unit64

if TYPE_CHECKING:
    from jaxtyping import Float, Int

PLAIN = "noop"  # the domain of unchanged images

# Presentation order of the 17 described shifts; others follow by name.
ORDER = (
    "make_background_white", "make_background_black", "make_background_blue", "sketchify",
    "posterize", "low_res", "blur", "foggy", "grayscale", "sepia", "dim", "brighten", "closeup",
    "fisheye", "upside_down", "sideways", "tilt",
)  # fmt: skip


class DomainEmbeddings(Protocol):
    """Embeddings of images x domains, and of prompts. Nothing is normalised.

    `labels` are the classes of the images, -1 for none; `classes` their names.
    """

    @property
    def domains(self) -> Sequence[str]: ...
    @property
    def ids(self) -> Any: ...
    @property
    def labels(self) -> Any: ...
    @property
    def classes(self) -> Sequence[str]: ...

    def rows(self, domain: str) -> Any:
        """Embeddings of all images in one domain [N, D]."""
        ...

    def present(self, domain: str) -> Any:
        """Which images have one [N]."""
        ...

    def prompts(self, kind: str, domain: str, *, raw: bool = False) -> Any:
        """Class vectors [C, D]: standard, own (of the domain) or official; raw: not normalised."""
        ...


@dataclass(frozen=True)
class MemoryRows:
    """Rows that lie in memory.

    Args:
        images: domain -> [N, D].
        labels: class of each image [N].
        classes: names.
        texts: (kind, domain) -> class vectors [C, D]; (kind, "") serves every domain. Kinds are
            standard, own, official, and raw for own vectors that are not normalised.
        ids: of the images.
        gaps: domain -> images that are missing in it.
    """

    images: dict[str, Any]
    labels: Any
    classes: Sequence[str]
    texts: dict[tuple[str, str], Any]
    ids: Sequence[str] = ()
    gaps: Mapping[str, Any] = field(default_factory=dict)

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains."""
        return tuple(self.images)

    def rows(self, domain: str) -> Any:
        """Embeddings of all images in one domain."""
        return self.images[domain]

    def present(self, domain: str) -> Any:
        """Which images there are in one domain."""
        found = np.ones(len(self.labels), bool)
        found[np.asarray(self.gaps.get(domain, ()), np.int64)] = False
        return found

    def prompts(self, kind: str, domain: str, *, raw: bool = False) -> Any:
        """Class vectors of one kind."""
        kind = "raw" if raw else kind
        found = self.texts.get((kind, domain), self.texts.get((kind, "")))
        if found is None:
            raise UserError(f"There are no {kind} prompts for the domain {domain!r}.")
        return found


@dataclass(frozen=True)
class Complete:
    """The images that have a label and are there in every domain; the others are counted.

    Args:
        of: where the rows come from.
        domains: names, the plain one first, then in presentation order.
        keep: rows that take part; None: all.
        labels: of these [N].
        unlabelled, missing: images left out for want of a label, or of a domain.
    """

    of: DomainEmbeddings
    domains: tuple[str, ...]
    keep: Int[np.ndarray, " N"] | None
    labels: Int[np.ndarray, " N"]
    unlabelled: int = 0
    missing: int = 0

    @property
    def shifted(self) -> tuple[str, ...]:
        """The domains other than the plain one."""
        return tuple(domain for domain in self.domains if domain != PLAIN)

    @cached_property
    def ids(self) -> list[str]:
        """Ids of the images that take part."""
        ids = list(self.of.ids)
        return ids if self.keep is None else [ids[row] for row in self.keep.tolist()]

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return list(self.of.classes)

    def rows(self, domain: str) -> Any:
        """Embeddings of the images that take part, in one domain."""
        rows = self.of.rows(domain)
        return rows if self.keep is None else rows[self.keep]

    def class_vectors(self, kind: str, domain: str, raw: bool = False) -> Float[np.ndarray, "C D"]:
        """Class vectors in float64, of length 1 unless they are raw.

        Raises:
            UserError: there are no such prompts, or fewer than classes.
        """
        found = np.asarray(self.of.prompts(kind, domain, raw=raw), np.float64)
        if len(found) <= int(self.labels.max()):
            raise UserError(
                f"There are {kind} prompts for {len(found)} classes, but an image has the label"
                f" {int(self.labels.max())}. Give every class at least one word."
            )
        if not np.isfinite(found).all() or not found.any(axis=1).all():
            bare = np.flatnonzero(~(np.isfinite(found).all(axis=1) & found.any(axis=1)))
            names = [self.classes[c] if c < len(self.classes) else str(c) for c in bare[:5]]
            raise UserError(
                f"{len(bare)} classes have no usable {kind} prompt ({', '.join(names)}):"
                " give each a word that the tokenizer knows."
            )
        return found if raw else unit64(found)

    @property
    def notes(self) -> list[str]:
        """What was left out, in sentences."""
        found = []
        if self.unlabelled:
            found.append(f"{self.unlabelled:,} images without a label were left out.")
        if self.missing:
            found.append(
                f"{self.missing:,} images that lack a domain were left out; the analysis is of the"
                f" {len(self.labels):,} that are there in all {len(self.domains)}."
            )
        return found


def complete(of: DomainEmbeddings, analysis: str, plain: bool = True) -> Complete:
    """The complete part of a store.

    Args:
        of: a store of images x domains.
        analysis: its name, for messages.
        plain: the plain domain must be there.

    Raises:
        UserError: no domain beside the plain one, or no image is left.
    """
    domains = in_order(of.domains)
    if plain and PLAIN not in domains:
        raise UserError(
            f"{analysis} compares with the unchanged images, domain {PLAIN!r}, which the store"
            f" lacks; it has {', '.join(domains) or 'none'}. Embed {PLAIN} too."
        )
    if len(domains) < 2:
        raise UserError(
            f"{analysis} needs at least two domains, got {', '.join(domains) or 'none'}."
        )
    labels = np.asarray(of.labels)
    labelled = labels >= 0
    there = np.logical_and.reduce([of.present(domain) for domain in domains])
    keep = np.flatnonzero(labelled & there)
    if not len(keep):
        raise UserError(
            f"{analysis}: of {len(labels):,} images none has a label and all"
            f" {len(domains)} domains. Finish the embedding, or name fewer domains."
        )
    unlabelled = int((~labelled).sum())
    missing = len(labels) - len(keep) - unlabelled
    whole = len(keep) == len(labels)
    return Complete(of, domains, None if whole else keep, labels[keep], unlabelled, missing)


def in_order(domains: Sequence[str]) -> tuple[str, ...]:
    """The plain domain, the described shifts in presentation order, then others by name.

    >>> in_order(["tilt", "zoom", "noop", "blur"])
    ('noop', 'blur', 'tilt', 'zoom')
    """
    place = {name: number for number, name in enumerate((PLAIN, *ORDER))}
    return tuple(sorted(dict.fromkeys(domains), key=lambda d: (place.get(d, len(place)), d)))


def readable(domain: str) -> str:
    """A domain's name for a reader.

    >>> readable("make_background_white"), readable("noop")
    ('background white', 'unchanged')
    """
    return "unchanged" if domain == PLAIN else domain.removeprefix("make_").replace("_", " ")
