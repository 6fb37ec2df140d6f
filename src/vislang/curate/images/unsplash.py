"""Unsplash: GET /search/photos of its official API (https://unsplash.com/documentation)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vislang.curate.images.provider import Found, Photo, number, part, results, text


class Unsplash:
    """Photographs of Unsplash; alternative texts; needs UNSPLASH_ACCESS_KEY."""

    endpoint = "https://api.unsplash.com/search/photos"
    key = "UNSPLASH_ACCESS_KEY"
    key_needed = True
    register = "https://unsplash.com/developers"
    page_size = 30
    most_pages = 333  # the original's 9,990 results
    window_s = 3600.0  # 50 requests an hour for trials, 5,000 in production

    def request(self, word: str, page: int, key: str) -> tuple[dict[str, str], dict[str, str]]:
        query = {"query": word, "page": str(page), "per_page": str(self.page_size)}
        return query, {"Authorization": f"Client-ID {key}", "Accept-Version": "v1"}

    def read(self, answer: Mapping[str, Any], page: int) -> Found:
        photos = [_photo(item) for item in results(answer, "results")]
        return Found(photos, number(answer.get("total")), number(answer.get("total_pages")))

    def busy(self, status: int, text: str) -> bool:
        return status == 403 and "rate limit" in text.lower()  # where others answer 429


def _photo(item: Mapping[str, Any]) -> Photo:
    user, urls = part(item, "user"), part(item, "urls")
    return Photo(
        text(item.get("id")),
        text(urls.get("small")),
        text(urls.get("raw")).partition("?")[0],
        text(item.get("alt_description")) or text(item.get("description")),
        text(part(item, "links").get("html")),
        text(user.get("name")) or text(user.get("username")),
        text(part(user, "links").get("html")),
        "Unsplash License",
        "https://unsplash.com/license",
        number(item.get("width")),
        number(item.get("height")),
    )
