"""Curation: from what there is to what one trains on.

from vislang.curate import find_neighbours
table = find_neighbours("redcaps/", "sentence_transformers:all-mpnet-base-v2", "nn/redcaps", k=5)
"""

from typing import Any

_LAZY = {
    "find_neighbours": "vislang.curate.neighbours",
    "nearest_among": "vislang.curate.exact",
    "read_original": "vislang.curate.original",
    "write_original": "vislang.curate.original",
    "make_dictionary": "vislang.curate.dictionary",
}


def __getattr__(name: str) -> Any:
    """Torch loads when something is embedded."""
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
