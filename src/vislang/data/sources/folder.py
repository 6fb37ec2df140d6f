"""Folder of classes: one folder a class, images anywhere below it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vislang.data.labelled import LabelledImages, choose_split, folder_classes
from vislang.data.labels import read_classes, read_words, readable
from vislang.data.patterns import name_of
from vislang.data.trees import Tree, open_tree
from vislang.errors import UserError
from vislang.lookup import nearest


class FolderOfClasses(LabelledImages):
    """Folder of classes: <root>/[<split>/]<class>/**/<image>; without class folders just images.

    Args:
        path: the folder.
        split: a folder right below it that holds one of several splits (train, val, test).
        names: file of 'folder<tab>name' lines (or JSON) with readable class names; else the
            folder's name with spaces for underscores.
        classes: class folders in the order of their labels, as a list or a file of lines; else
            sorted. Needed when a split lacks a class.
        template: captions made of class names, as in 'a photo of a {}.'
        captions: names takes each file's name, less its ending, for its caption.
    """

    def __init__(
        self,
        path: str,
        *,
        split: str = "",
        names: str = "",
        classes: str | Sequence[str] = (),
        template: str | Sequence[str] = (),
        captions: str = "",
    ):
        if captions not in ("", "names"):
            raise UserError(f"captions must be names or empty, got {captions!r}.")
        tree = self._open(path)
        if len(tree) == 0:
            raise UserError(
                f"The source {path} is empty: it has no images"
                " (files that end in .jpg, .png, .webp ...)."
            )
        tree, parts = choose_split(tree, split, path)
        found = folder_classes(tree, parts, path)
        labels, keys = found if found else (None, [])
        if labels is not None and classes:
            labels, keys = _in_order(labels, keys, read_classes(classes))
        words = read_words(Path(names)) if names else {}
        name = name_of(path, split)
        known = readable(keys, words)
        super().__init__(tree, labels, known, name, template, by_name=bool(captions))

    @staticmethod
    def _open(path: str) -> Tree:
        from vislang.data.sources import missing_path

        if not Path(path).is_dir():
            if Path(path).exists():
                raise UserError(f"{path} is a file, where a folder of images was expected.")
            raise missing_path(Path(path), "folder")
        return open_tree(path)

    @staticmethod
    def recognises(path: Path) -> bool:
        """Any folder: this layout is asked last."""
        return path.is_dir()


def _in_order(
    labels: np.ndarray, keys: list[str], classes: list[str]
) -> tuple[np.ndarray, list[str]]:
    """Labels that follow a given order of the classes."""
    for key in keys:
        if key not in classes:
            raise UserError(
                f"The folder {key!r} is not among the {len(classes)} given classes."
                f"{nearest(key, classes)}"
            )
    return np.array([classes.index(key) for key in keys])[labels], classes
