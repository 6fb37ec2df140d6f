"""Wikimedia Commons: action=query, generator=search, prop=imageinfo of its api.php."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vislang.curate.images.provider import (
    BadAnswer,
    Found,
    Photo,
    number,
    part,
    readable,
    text,
)

_PICTURES = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/tiff")


class Wikimedia:
    """Pictures of Wikimedia Commons; descriptions; no key."""

    endpoint = "https://commons.wikimedia.org/w/api.php"
    key = ""
    key_needed = False
    register = ""
    page_size = 50
    most_pages = 200  # the search answers for its first 10,000 results
    window_s = 60.0

    def request(self, word: str, page: int, key: str) -> tuple[dict[str, str], dict[str, str]]:
        query = {
            "action": "query", "format": "json", "formatversion": "2", "maxlag": "5",
            "generator": "search", "gsrsearch": f"filetype:bitmap {word}", "gsrnamespace": "6",
            "gsrlimit": str(self.page_size), "gsroffset": str((page - 1) * self.page_size),
            "gsrinfo": "totalhits", "prop": "imageinfo", "iiprop": "url|size|mime|extmetadata",
            "iiurlwidth": "500", "iiextmetadatalanguage": "en",
            "iiextmetadatafilter": "ImageDescription|Artist|LicenseShortName|LicenseUrl|Credit",
        }  # fmt: skip
        return query, {}

    def read(self, answer: Mapping[str, Any], page: int) -> Found:
        if "query" not in answer and "batchcomplete" not in answer:
            raise BadAnswer("the answer has no part 'query'")
        pages = part(answer, "query").get("pages", [])
        items = pages.values() if isinstance(pages, Mapping) else pages
        items = [item for item in items if isinstance(item, Mapping)]
        # Pages come in any order; their index is the place in the search.
        photos = [_photo(item) for item in sorted(items, key=lambda i: number(i.get("index")))]
        info = part(answer, "query", "searchinfo")
        more = "gsroffset" in part(answer, "continue")
        total = number(info["totalhits"]) if "totalhits" in info else -1
        return Found(photos, total, page + more)

    def busy(self, status: int, text: str) -> bool:
        return status == 200 and any(
            f'"code":"{code}"' in text[:400].replace(" ", "") for code in ("maxlag", "ratelimited")
        )


def _photo(item: Mapping[str, Any]) -> Photo:
    several = item.get("imageinfo")
    info = several[0] if isinstance(several, list) and several else {}
    info = info if isinstance(info, Mapping) else {}
    names = ("ImageDescription", "Artist", "LicenseShortName", "LicenseUrl")
    told = {name: text(part(info, "extmetadata", name).get("value")) for name in names}
    title = text(item.get("title")).partition(":")[2].rpartition(".")[0].replace("_", " ")
    mime = text(info.get("mime"))
    identity = item.get("pageid")
    return Photo(
        str(identity) if isinstance(identity, int) else "",
        text(info.get("thumburl")) or text(info.get("url")),
        text(info.get("url")),
        readable(told["ImageDescription"]) or title,
        text(info.get("descriptionurl")),
        readable(told["Artist"]).strip(),
        "",
        told["LicenseShortName"],
        told["LicenseUrl"],
        number(info.get("width")),
        number(info.get("height")),
        reject="" if not mime or mime in _PICTURES else f"not a picture ({mime[:40]})",
    )
