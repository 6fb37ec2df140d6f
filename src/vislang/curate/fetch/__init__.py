"""Fetching pictures from the open web, which may be hostile, into tars or folders.

from vislang.curate.fetch import fetch_sample
fetch_sample("sample/", "pictures/")
"""

from typing import Any

_LAZY = {
    "Caps": "vislang.curate.fetch.client",
    "Fetching": "vislang.curate.fetch.session",
    "Network": "vislang.curate.fetch.network",
    "fetch_sample": "vislang.curate.fetch.job",
}


def __getattr__(name: str) -> Any:
    """Pillow and what decodes load when something is fetched."""
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
