"""Pictures with captions, found by searching for words at sites that offer a search for it.

from vislang.curate.images import search_images
search_images("words/", "images/", providers=("openverse",), per_word=100)
"""

from typing import Any

PROVIDERS: dict[str, str] = {
    "openverse": "vislang.curate.images.openverse:Openverse",
    "unsplash": "vislang.curate.images.unsplash:Unsplash",
    "wikimedia": "vislang.curate.images.wikimedia:Wikimedia",
}

_LAZY = {
    "Searching": "vislang.curate.images.job",
    "search_images": "vislang.curate.images.job",
    "join_images": "vislang.curate.images.join",
}


def __getattr__(name: str) -> Any:
    """pyarrow loads when something is searched for."""
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
