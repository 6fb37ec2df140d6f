"""Pictures with captions, found by searching for words at sites that offer a search for it.

from vislang.curate.images import search_images
search_images("words/", "images/", providers=("openverse",), per_word=100)
"""

from vislang.lookup import lazily

PROVIDERS: dict[str, str] = {
    "openverse": "vislang.curate.images.openverse:Openverse",
    "unsplash": "vislang.curate.images.unsplash:Unsplash",
    "wikimedia": "vislang.curate.images.wikimedia:Wikimedia",
}

# pyarrow loads when something is searched for.
__getattr__ = lazily(
    __name__,
    {
        "Searching": "vislang.curate.images.job",
        "search_images": "vislang.curate.images.job",
        "join_images": "vislang.curate.images.join",
    },
)
