"""Mixture: several sources as one, each with a share of every epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from vislang.data.sample import BadSample, Sample, Source
from vislang.errors import UserError
from vislang.files import fingerprint
from vislang.lookup import nearest

# One part as the options say it: its spec, or a mapping with these keys.
KEYS = ("source", "options", "weight")
Part = str | Mapping[str, Any]


class Mixture:
    """Mixture of sources with weights: train_options {parts: {'flickr:PATH': 2, 'folder:PATH': 1}}.

    Positions are those of the parts one after another. An epoch of N samples (all parts'
    together, or data.episode) takes N · weight / sum of weights from each part, by largest
    remainder; which ones changes from epoch to epoch, and none comes again before all its
    part's samples were visited (beyond its size, a part is visited several times an epoch).
    Without weights every sample is visited once. An evaluation reads all samples once.

    A sample without a class has label -1 and stays, also for objectives that need labels.
    Parts are either all sources of pairs, or none is.

    Args:
        path: a name for the mixture; empty makes one of the parts' names.
        parts: a mapping of spec -> weight, or a list of specs or of mappings
            {source: spec, options: {...}, weight: w}.
        same_classes: classes of the same name in several parts are one class; else each part
            keeps its own, numbered after those of the parts before it.
    """

    def __init__(
        self,
        path: str = "",
        *,
        parts: Mapping[str, float] | Sequence[Part] = (),
        same_classes: bool = False,
    ):
        from vislang.data.sources import open_source

        told = [_read(part) for part in _listed(parts)]
        self.parts: tuple[Source, ...] = tuple(
            open_source(spec, **options) for spec, options, _ in told
        )
        sizes = [len(part) for part in self.parts]
        weights = _weights([weight for _, _, weight in told], sizes)
        # What data/episodes.py reads: (samples, weight) of each part.
        self.shares = tuple(zip(sizes, weights))
        self._starts = np.cumsum([0, *sizes])
        self._names = _distinct([part.name for part in self.parts])
        self.classes, self._labels = _joined(self.parts, self._names, same_classes)
        given = [part.gives for part in self.parts]
        label = frozenset({"label"}) & frozenset().union(*given)
        self.gives = frozenset.intersection(*given) | label
        self.partly_labelled = any("label" not in part for part in given)
        self.name = path or "-".join(["mix", *self._names])[:80].rstrip("-._")
        self._same_classes = same_classes
        if any(_paired(self.parts, self._names)):
            self.partner = self._partner

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Sample:
        number, place = self._part_of(index)
        return self._own(number, lambda: self.parts[number][place])

    def _partner(self, index: int, rng: np.random.Generator) -> Sample:
        """The partner of a sample, where the parts are sources of pairs."""
        number, place = self._part_of(index)
        return self._own(number, lambda: self.parts[number].partner(place, rng))  # type: ignore[attr-defined]

    def _part_of(self, index: int) -> tuple[int, int]:
        """(number of the part, position in it)."""
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return number, index - int(self._starts[number])

    def _own(self, number: int, read: Callable[[], Sample]) -> Sample:
        """A sample of a part under the mixture's ids and labels."""
        name, labels = self._names[number], self._labels[number]
        try:
            sample = read()
        except BadSample as bad:
            raise BadSample(f"{name}/{bad.id}", bad.reason, bad.origin) from bad
        joint = tuple(labels[label] for label in sample.labels)
        return replace(sample, id=f"{name}/{sample.id}", labels=joint)

    def shards(self) -> Sequence[range]:
        """Those of the parts, one part after another."""
        return [
            range(shard.start + int(start), shard.stop + int(start))
            for start, part in zip(self._starts, self.parts)
            for shard in part.shards()
        ]

    @cached_property
    def fingerprint(self) -> str:
        """Of the parts; weights do not change what lies at a position."""
        return fingerprint([[part.fingerprint for part in self.parts], self._same_classes])


def _listed(parts: Mapping[str, float] | Sequence[Part]) -> list[Part]:
    if isinstance(parts, str) or not parts:
        raise UserError(
            "The source 'mix' needs parts: {'flickr:captions.csv': 2, 'folder:photos': 1}, or a"
            f" list of {{source: ..., options: {{...}}, weight: ...}}; got {parts!r}."
        )
    if isinstance(parts, Mapping):
        return [{"source": spec, "weight": weight} for spec, weight in parts.items()]
    return list(parts)


def _read(part: Part) -> tuple[str, dict[str, Any], Any]:
    """(spec, options, weight or None) of one part."""
    if isinstance(part, str):
        return part, {}, None
    if not isinstance(part, Mapping) or not isinstance(part.get("source"), str):
        raise UserError(
            f"A part of a mixture is a spec or {{source: spec, options: {{...}}, weight: w}},"
            f" got {part!r}."
        )
    for key in part:
        if key not in KEYS:
            raise UserError(
                f"A part of a mixture has no {key!r}.{nearest(str(key), KEYS)}"
                f" Known: {', '.join(KEYS)}."
            )
    options = part.get("options") or {}
    if not isinstance(options, Mapping):
        raise UserError(f"The options of the part {part['source']!r} must be a mapping.")
    return part["source"], dict(options), part.get("weight")


def _paired(parts: Sequence[Source], names: Sequence[str]) -> list[bool]:
    paired = [hasattr(part, "partner") for part in parts]
    if any(paired) and not all(paired):
        raise UserError(
            f"Of the parts of the mixture {names[paired.index(True)]!r} is a source of pairs and"
            f" {names[paired.index(False)]!r} is not, so the views of a batch would mean two"
            " things: mix either pairs or plain sources."
        )
    return paired


def _weights(given: Sequence[Any], sizes: Sequence[int]) -> list[float]:
    """A weight for each part; without any, its number of samples."""
    if all(weight is None for weight in given):
        return [float(size) for size in sizes]
    for weight in given:
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not 0 < weight < float("inf"):
            raise UserError(
                f"The weight of every part of a mixture must be a number above 0, got {weight!r}."
                " Leave a part out to see nothing of it, or all weights to see everything once."
            )
    return [float(weight) for weight in given]


def _distinct(names: Sequence[str]) -> list[str]:
    """Names with a number behind those that are there more than once.

    >>> _distinct(["train", "cats", "train"])
    ['train-1', 'cats', 'train-2']
    """
    often, seen = Counter(names), Counter[str]()
    out = []
    for name in names:
        seen[name] += 1
        out.append(f"{name}-{seen[name]}" if often[name] > 1 else name)
    return out


def _joined(
    parts: Sequence[Source], names: Sequence[str], same: bool
) -> tuple[tuple[str, ...], list[list[int]]]:
    """All class names, and for each part the joint label of each of its labels."""
    for part, own in zip(parts, names):
        if "label" in part.gives and not part.classes:
            raise UserError(
                f"The part {own!r} of the mixture has labels but no class names, so nobody knows"
                " how many classes it has: name them (its option classes), or leave its labels out."
            )
    often = Counter(name for part in parts for name in part.classes)
    joint: list[str] = []
    labels: list[list[int]] = []
    for part, own in zip(parts, names):
        # Two classes of one name would be one answer in a zero-shot question.
        called = [n if same or often[n] == 1 else f"{n} ({own})" for n in part.classes]
        known = {name: i for i, name in enumerate(joint)} if same else {}
        labels.append([])
        for name in called:
            if name not in known:
                joint.append(name)
            labels[-1].append(known.get(name, len(joint) - 1))
    return tuple(joint), labels
