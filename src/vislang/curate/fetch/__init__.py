"""Fetching pictures from the open web, which may be hostile, into tars or folders.

from vislang.curate.fetch import fetch_sample
fetch_sample("sample/", "pictures/")
"""

from vislang.lookup import lazily

# Pillow and what decodes load when something is fetched.
__getattr__ = lazily(
    __name__,
    {
        "Caps": "vislang.curate.fetch.client",
        "Fetching": "vislang.curate.fetch.session",
        "Network": "vislang.curate.fetch.network",
        "fetch_sample": "vislang.curate.fetch.job",
    },
)
