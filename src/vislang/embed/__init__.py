"""Embedding: a model and a source make a store.

from vislang.embed import embed_source
store = embed_source("runs/clip-digits", "digits:test", "stores/digits-test")
"""

from typing import Any

_LAZY = {
    "embed_domains": "vislang.embed.domains",
    "embed_source": "vislang.embed.source",
    "embed_texts": "vislang.embed.texts",
    "Embedder": "vislang.embed.embedder",
    "Part": "vislang.embed.embedder",
}


def __getattr__(name: str) -> Any:
    """Torch loads when something is embedded."""
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
