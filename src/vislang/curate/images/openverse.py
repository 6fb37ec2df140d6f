"""Openverse: GET /v1/images/ (https://api.openverse.org/v1/).

It collects openly licensed pictures of many sites. Its captions are titles, which are worse than
alternative texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vislang.curate.images.provider import Found, Photo, number, results, text


class Openverse:
    """Openly licensed pictures of many sites; titles; OPENVERSE_TOKEN allows more requests."""

    endpoint = "https://api.openverse.org/v1/images/"
    key = "OPENVERSE_TOKEN"
    key_needed = False
    register = "https://api.openverse.org/v1/#tag/auth"
    page_size = 20  # more is refused to those without a token
    most_pages = 20
    window_s = 60.0

    def request(self, word: str, page: int, key: str) -> tuple[dict[str, str], dict[str, str]]:
        query = {"q": word, "page": str(page), "page_size": str(self.page_size)}
        return query, {"Authorization": f"Bearer {key}"} if key else {}

    def read(self, answer: Mapping[str, Any], page: int) -> Found:
        photos = [_photo(item) for item in results(answer, "results")]
        return Found(photos, number(answer.get("result_count")), number(answer.get("page_count")))

    def busy(self, status: int, text: str) -> bool:
        return False


def _photo(item: Mapping[str, Any]) -> Photo:
    kind, version = text(item.get("license")), text(item.get("license_version"))
    named = {"cc0": "CC0", "pdm": "Public Domain Mark"}.get(kind, f"CC {kind.upper()}")
    return Photo(
        text(item.get("id")),
        text(item.get("url")),
        text(item.get("url")),
        text(item.get("title")),
        text(item.get("foreign_landing_url")),
        text(item.get("creator")),
        text(item.get("creator_url")),
        f"{named} {version}".strip() if kind else "",
        text(item.get("license_url")),
        number(item.get("width")),
        number(item.get("height")),
        reject="" if kind else "no licence",
    )
