"""A source of images whose classes are told by where they lie; shared by folder, zip, imagenet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from vislang.data.labels import templates
from vislang.data.sample import BadSample, Sample
from vislang.data.trees import Tree
from vislang.errors import UserError
from vislang.lookup import nearest

SPLIT_NAMES = frozenset(
    ("train", "training", "val", "valid", "validation", "dev", "test", "testing")
)
SHARD = 10_000


class LabelledImages:
    """Images of a tree with a class each, and captions made from class names by `template`.

    Args:
        tree: the images.
        labels: class index of each image, -1 for none; None when there are no classes.
        classes: class names.
        name: of the source.
        template: captions, each with {} for the class name.
        by_name: the name of an image's file, less its ending, is its caption.
        called: all names that captions of each class may take, instead of the one in `classes`.

    Raises:
        UserError: a template without classes, or other names without a template.
    """

    def __init__(
        self,
        tree: Tree,
        labels: np.ndarray | None,
        classes: Sequence[str],
        name: str,
        template: str | Sequence[str] = (),
        by_name: bool = False,
        called: Sequence[Sequence[str]] | None = None,
    ):
        self.tree, self.name, self._by_name = tree, name, by_name
        self._labels = None if labels is None else labels.astype(np.int32)
        self.classes = tuple(classes)
        self.templates = templates(template)
        self._called = None if called is None else tuple(map(tuple, called))
        if called is not None and not self.templates:
            raise UserError(
                f"{name}: other names of classes are for captions, so they need a template, such as"
                " template='a photo of a {}.'"
            )
        if self.templates and labels is None:
            raise UserError(f"template needs class names, but {name} has no folders of classes.")
        gives = {"image"} | ({"label"} if labels is not None else set())
        self.gives = frozenset(gives | ({"text"} if self.templates or by_name else set()))

    def __len__(self) -> int:
        return len(self.tree)

    def __getitem__(self, index: int) -> Sample:
        name = self.tree.names[index]
        label = -1 if self._labels is None else int(self._labels[index])
        try:
            place = self.tree.place(index)
        except BadSample as bad:
            raise BadSample(name, bad.reason, bad.origin) from bad
        texts = ()
        if label >= 0:
            names = self._called[label] if self._called else (self.classes[label],)
            texts = tuple(template.format(name) for name in names for template in self.templates)
        if self._by_name:
            texts = (*texts, caption_of(name))
        return Sample(name, place, texts, (label,) if label >= 0 else (), self.tree.origin(index))

    def shards(self) -> Sequence[range]:
        return even_shards(len(self))

    @cached_property
    def fingerprint(self) -> str:
        from vislang.files import fingerprint

        labels = None if self._labels is None else self._labels.tolist()
        told = [self.tree.fingerprint(), labels, self.classes, self.templates]
        told += ["by name"] if self._by_name else []
        return fingerprint([*told, self._called] if self._called else told)


def caption_of(name: str) -> str:
    """The caption that a file's name states.

    >>> caption_of("photos/a_blue  motorcycle.jpg")
    'a blue motorcycle'
    """
    return " ".join(name.rpartition("/")[2].rpartition(".")[0].replace("_", " ").split())


def even_shards(n: int, size: int = SHARD) -> list[range]:
    """0..n-1 in ranges of at most `size`.

    >>> even_shards(5, 2)
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    return [range(at, min(n, at + size)) for at in range(0, n, size)]


def choose_split(tree: Tree, split: str, where: str) -> tuple[Tree, list[list[str]]]:
    """The images of one split, and the parts below it of the path of each folder of the tree.

    Folders that all images share are left out first, so that 'photos/train/cat' is seen as
    'train/cat'. Parts are empty for folders outside of the split.
    """
    present = set(np.unique(tree.names.folder).tolist())
    folders = tree.names.folders
    parts = [folder.split("/") if folder else [] for folder in folders]
    parts = _without_shared(parts, present, split)
    tops = {parts[i][0] for i in present if parts[i]}
    if not split:
        if len(tops) > 1 and tops <= SPLIT_NAMES:
            raise UserError(
                f"{where} holds the splits {', '.join(sorted(tops))}:"
                f" choose one with split, as in split={sorted(tops)[0]}."
            )
        return tree, parts
    chosen = {i for i in present if parts[i][:1] == [split]}
    if not chosen:
        raise UserError(
            f"{where} has no split {split!r}.{nearest(split, tops)}"
            f" Folders there: {', '.join(sorted(tops)[:20]) or 'none'}."
        )
    parts = [part[1:] if i in chosen else [] for i, part in enumerate(parts)]
    rows = np.flatnonzero(np.isin(tree.names.folder, list(chosen)))
    return tree.taken(rows), _without_shared(parts, chosen, "")


def _without_shared(parts: list[list[str]], present: set[int], keep: str) -> list[list[str]]:
    """Drop leading folders that are the same for all and still have folders below them."""
    while present and all(len(parts[i]) > 1 for i in present):
        first = {parts[i][0] for i in present}
        if len(first) > 1 or keep in first:
            break
        parts = [part[1:] for part in parts]
    return parts


def folder_classes(
    tree: Tree, parts: list[list[str]], where: str
) -> tuple[np.ndarray, list[str]] | None:
    """(index of the class folder of each image, sorted class folders); None with but one folder."""
    present = np.unique(tree.names.folder)
    tops = {parts[i][0] if parts[i] else "" for i in present}
    if len(tops) < 2:
        return None
    if "" in tops:
        outside = next(i for i in present if not parts[i])
        stray = tree.names[int(np.flatnonzero(tree.names.folder == outside)[0])]
        raise UserError(
            f"{where} has images both in class folders and outside of them ({stray}):"
            " move these into a folder, or open one folder at a time."
        )
    classes = sorted(tops)
    index = np.array([classes.index(part[0]) if part else -1 for part in parts], np.int32)
    return index[tree.names.folder], classes
