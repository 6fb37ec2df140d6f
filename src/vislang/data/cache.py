"""Where something computed from a data file is kept: beside it, or in the user's cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from vislang.errors import UserError

VARIABLE = "VISLANG_CACHE"


def cache_folder() -> Path:
    """$VISLANG_CACHE, or vislang in the user's cache folder."""
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vislang"


def cached(source: Path, name: str, valid: Callable[[Path], bool], make: Callable[[Path], None]):
    """The file `name` that belongs to `source`, made once.

    It is looked for beside `source`, then in the cache folder; when neither has a valid one it is
    made beside, or, where that folder cannot be written, in the cache folder.

    Args:
        source: the data file.
        name: of the computed file.
        valid: whether a file found is of this content and version.
        make: writes the file whole or not at all.
    """
    beside = source.parent / name
    where = hashlib.sha256(str(source.resolve().parent).encode()).hexdigest()[:16]
    away = cache_folder() / where / name
    for path in (beside, away):
        if path.exists() and valid(path):
            return path
    try:
        make(beside)
        return beside
    except OSError:  # a read-only or foreign folder
        pass
    try:
        make(away)
        return away
    except OSError as error:
        raise UserError(
            f"Neither {beside.parent} nor the cache {away.parent} can be written ({error})."
            f" Set {VARIABLE} to a folder where {name} can be kept."
        ) from error
