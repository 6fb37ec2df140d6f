"""Layouts of data on disk, one file each, and `open_source`, which finds the right one.

To add a layout: a file here with a class whose constructor's arguments are its options, and a
line in SOURCES and in GIVES.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vislang.data.sample import Source
from vislang.errors import UserError
from vislang.lookup import check_options, lookup, nearest

# In the order in which they are asked whether they recognise a path.
SOURCES: dict[str, str] = {
    "digits": "vislang.data.sources.digits:Digits",
    "pairs": "vislang.data.sources.pairs:Pairs",
    "huggingface": "vislang.data.sources.huggingface:HuggingFaceDataset",
    "webdataset": "vislang.data.sources.webdataset:WebDataset",
    "flickr": "vislang.data.sources.flickr:FlickrCaptions",
    "table": "vislang.data.sources.table:Table",
    "karpathy": "vislang.data.sources.karpathy:KarpathyCaptions",
    "coco": "vislang.data.sources.coco:CocoCaptions",
    "redcaps": "vislang.data.sources.redcaps:RedCaps",
    "elevater": "vislang.data.sources.elevater:ElevaterImages",
    "imagenet": "vislang.data.sources.imagenet:ImageNet",
    "zip": "vislang.data.sources.zip:ZipOfClasses",
    "folder": "vislang.data.sources.folder:FolderOfClasses",
    "torchvision": "vislang.data.sources.torchvision:TorchvisionDataset",
    "mix": "vislang.data.sources.mix:Mixture",
    "pure": "vislang.data.sources.pure:Pure",
}

# What a layout can give, for the message when something is missing.
_ALL = frozenset({"image", "text", "label"})
GIVES: dict[str, frozenset[str]] = {
    "digits": _ALL,
    "pairs": _ALL,
    "huggingface": _ALL,
    "webdataset": _ALL,
    "flickr": frozenset({"image", "text"}),
    "table": _ALL,
    "karpathy": frozenset({"image", "text"}),
    "coco": frozenset({"image", "text"}),
    "redcaps": frozenset({"image", "text"}),
    "elevater": frozenset({"image", "label"}),
    "imagenet": _ALL,  # text: by template
    "zip": _ALL,
    "folder": _ALL,
    "torchvision": _ALL,
    "mix": _ALL,
    "pure": _ALL,
}


def open_source(spec: str | Path, **options: Any) -> Source:
    """The source that `spec` names.

    Args:
        spec: a path whose layout is recognised ('photos/train'), 'layout:path'
            ('webdataset:shards/{000..099}.tar'), a bare layout that needs no path ('digits',
            'digits:test'), or your own 'package.module:Name' or 'package.module:Name:path'.
        options: arguments of the layout (`vislang list sources`): columns, split, images ...

    Raises:
        UserError: an unknown layout, option, path or column, or an empty source.

    >>> len(open_source("digits:test"))
    500
    """
    spec = str(spec)
    layout, path = split_spec(spec)
    if layout is None:
        layout = recognise(Path(path))
    make = lookup("source", SOURCES, layout)
    return _make(layout, make, path, options, spec)


def as_source(source: Source | str | Path, options: Mapping[str, Any] | None = None) -> Source:
    """A source as it is, or the one that is named, with `options` (see `open_source`)."""
    return open_source(source, **(options or {})) if isinstance(source, str | Path) else source


def split_spec(spec: str) -> tuple[str | None, str]:
    """(layout or None, path) of a spec; a bare path has no layout.

    >>> split_spec("coco:captions.json"), split_spec("digits")
    (('coco', 'captions.json'), ('digits', ''))
    """
    if not spec:
        raise UserError(
            f"The source is empty. Give a path, 'layout:path' or one of: {', '.join(SOURCES)}."
        )
    layout, colon, path = spec.partition(":")
    if layout in SOURCES and (colon or not Path(spec).exists()):
        return layout, path
    if Path(spec).exists() or _is_pattern(spec):
        return None, spec
    if colon and "." in layout and "/" not in layout and _importable(layout):
        name, _, path = path.partition(":")
        return f"{layout}:{name}", path
    if colon and "/" not in layout:
        raise UserError(
            f"No source is called {layout!r}.{nearest(layout, SOURCES)}"
            f" Known: {', '.join(sorted(SOURCES))}. Or give a path that exists."
        )
    raise missing_path(Path(spec), "source")


def missing_path(path: Path, what: str) -> UserError:
    """The error for a path that does not exist, with the nearest name beside it."""
    lost = path  # the topmost part that is not there
    while lost.parent != lost and not lost.parent.is_dir():
        lost = lost.parent
    where = "" if lost == path else f" There is no {str(lost)!r}."
    near = nearest(lost.name, (entry.name for entry in lost.parent.iterdir()))
    extra = "" if what != "source" else f" Or one of the names: {', '.join(SOURCES)}."
    return UserError(f"The {what} {path} does not exist.{where}{near}{extra}")


def _is_pattern(spec: str) -> bool:
    return any(mark in spec for mark in "*?{[")


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def recognise(path: Path) -> str:
    """The first layout of SOURCES that says it knows what lies at `path`."""
    for layout in SOURCES:
        made = lookup("source", SOURCES, layout)
        knows = getattr(made, "recognises", None)
        if knows is not None and knows(path):
            return layout
    raise UserError(
        f"No layout is recognised at {path}. Say which it is, as in 'table:{path}'."
        f" Known: {', '.join(SOURCES)}."
    )


def _make(layout: str, make: Any, path: str, options: Mapping[str, Any], spec: str) -> Source:
    parameters = inspect.signature(make).parameters
    known = [name for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if not open_ended:
        check_options(f"The source {layout!r}", options, known)
    first = next(iter(parameters.values()), None)
    needs_path = first is not None and first.default is first.empty
    if needs_path and not path:
        raise UserError(f"The source {layout!r} needs a path, as in '{layout}:PATH'.")
    source = make(path, **options)
    if len(source) == 0:
        raise UserError(
            f"The source {spec!r} is empty: {layout} found no samples there."
            " Check the path and the options (split, columns, extensions)."
        )
    return source


def which_give(keys: Iterable[str]) -> str:
    """Layouts that can give all of `keys`, as a list for an error message.

    >>> "digits" in which_give(["image", "text", "label"])
    True
    """
    return ", ".join(name for name in SOURCES if set(keys) <= GIVES[name])


def layout_of(source: Source) -> str:
    """The layout that a source was opened by; empty for one of your own."""
    target = f"{type(source).__module__}:{type(source).__name__}"
    return next((name for name, known in SOURCES.items() if known == target), "")
