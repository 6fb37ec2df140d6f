"""Embedding: a model and a source make a store.

from vislang.embed import embed_source
store = embed_source("runs/clip-digits", "digits:test", "stores/digits-test")
"""

from vislang.lookup import lazily

# Torch loads when something is embedded.
__getattr__ = lazily(
    __name__,
    {
        "embed_domains": "vislang.embed.domains",
        "embed_source": "vislang.embed.source",
        "embed_texts": "vislang.embed.texts",
        "Embedder": "vislang.embed.embedder",
        "Part": "vislang.embed.embedder",
    },
)
