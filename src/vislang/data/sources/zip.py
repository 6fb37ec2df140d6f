"""Zip archives that are read in place and never extracted."""

from __future__ import annotations

from pathlib import Path

from vislang.data.sources.folder import FolderOfClasses
from vislang.data.trees import Tree, open_tree


class ZipOfClasses(FolderOfClasses):
    """Zip archives, read in place, of <split>/<class>/<image>; a pattern takes several as one.

    Options are those of a folder of classes.
    """

    @staticmethod
    def _open(path: str) -> Tree:
        return open_tree(path)

    @staticmethod
    def recognises(path: Path) -> bool:
        """One archive, or a pattern for archives."""
        return path.suffix.lower() == ".zip" and not path.is_dir()
