"""Many files by one name: braces as webdataset writes them, and globs."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from vislang.errors import UserError

_BRACE = re.compile(r"\{([^{}]*)\}")


def expand_braces(pattern: str) -> list[str]:
    """All names of a pattern with {a,b} and {000..012}.

    >>> expand_braces("s-{08..10}.tar")
    ['s-08.tar', 's-09.tar', 's-10.tar']
    >>> expand_braces("{a,b}{0..1}")
    ['a0', 'a1', 'b0', 'b1']
    """
    match = _BRACE.search(pattern)
    if match is None:
        return [pattern]
    inside = match.group(1)
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", inside)
    if numbers:
        first, last = numbers.groups()
        width = len(first)
        parts = [f"{i:0{width}d}" for i in range(int(first), int(last) + 1)]
    else:
        parts = inside.split(",")
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [name for part in parts for name in expand_braces(before + part + after)]


def expand(pattern: str) -> list[Path]:
    """Existing files that a pattern names; braces keep their order, globs are sorted.

    Raises:
        UserError: nothing matches, or a file named by the braces is missing.
    """
    from vislang.data.sources import missing_path

    if Path(pattern).exists():
        return [Path(pattern)]
    found: list[Path] = []
    missing: list[Path] = []
    for name in expand_braces(pattern):
        if glob.has_magic(name):
            found += [Path(match) for match in sorted(glob.glob(name, recursive=True))]
        else:
            (found if Path(name).exists() else missing).append(Path(name))
    if missing and "{" not in pattern:
        raise missing_path(missing[0], "file")
    if missing:
        raise UserError(
            f"{len(missing)} of {len(missing) + len(found)} files of {pattern} do not exist,"
            f" first {missing[0]}."
        )
    if not found:
        raise UserError(f"No file matches {pattern}.")
    return found


def name_of(path: str, *parts: str) -> str:
    """A short name for what lies at a path, fit for a folder's name.

    >>> name_of("shards/cc3m-{000..331}.tar", "train"), name_of("photos/*.zip"), name_of("a/b/")
    ('cc3m-train', 'photos', 'b')
    """
    whole = Path(path)
    stem = re.sub(r"\{[^}]*\}?|[*?\[\]]", "", whole.name.split(".")[0])
    name = stem.strip("-_. ") or whole.parent.name
    words = [re.sub(r"[^\w.-]+", "_", word) for word in (name, *parts) if word]
    return "-".join(words) or "source"
