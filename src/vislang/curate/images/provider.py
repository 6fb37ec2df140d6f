"""What a provider of pictures is: a question for a word and a page, and how to read the answer.

A provider opens no connection, waits for nothing and knows no file: `asking.py` does that for all.
"""

from __future__ import annotations

import html.parser
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit


class Photo(NamedTuple):
    """One picture of an answer, as the provider describes it; unknown is empty or 0.

    Args:
        photo_id: the provider's own name for it.
        url: where its file is, in the size that is to be fetched.
        original: address of the largest file, by which the same picture is known elsewhere.
        caption: what it shows, in words.
        page: address of the page about it.
        author: who made it.
        author_page: address of the author.
        licence: its short name.
        licence_page: address of its text.
        width: pixels of the largest file.
        height: likewise.
        reject: why it is of no use, if so.
    """

    photo_id: str
    url: str
    original: str
    caption: str
    page: str = ""
    author: str = ""
    author_page: str = ""
    licence: str = ""
    licence_page: str = ""
    width: int = 0
    height: int = 0
    reject: str = ""


class Found(NamedTuple):
    """A page of an answer.

    Args:
        photos: in the provider's order.
        total: pictures that the provider says there are; -1: it does not say.
        pages: pages that can be asked for; -1: it does not say.
    """

    photos: list[Photo]
    total: int
    pages: int


class BadAnswer(Exception):
    """An answer that cannot be read: its reason."""


class Provider(Protocol):
    """Attributes are plain constants of the class.

    Attributes:
        endpoint: the address that is asked.
        key: environment variable with the key.
        key_needed: whether it answers nobody without.
        register: where to get one.
        most_pages: that it answers for one word.
        window_s: seconds for which its limit of requests counts, where answers do not say.
    """

    endpoint: str
    key: str
    key_needed: bool
    register: str
    most_pages: int
    window_s: float

    def request(self, word: str, page: int, key: str) -> tuple[dict[str, str], dict[str, str]]:
        """(query, headers) of the request for a page, counted from 1."""
        ...

    def read(self, answer: Mapping[str, Any], page: int) -> Found:
        """What an answer holds; BadAnswer where that is not to be found."""
        ...

    def busy(self, status: int, text: str) -> bool:
        """Whether an answer means that too much was asked, besides 429 and 503."""
        ...


def text(value: Any) -> str:
    """A text as it came, or nothing for whatever else stands in its place."""
    return value if isinstance(value, str) else ""


def number(value: Any) -> int:
    """A whole number of at least 0, or 0.

    >>> number("640"), number(None), number(-1), number(True)
    (640, 0, 0, 0)
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        return 0
    try:
        return min(max(0, int(value)), 2**53)
    except ValueError:
        return 0


def part(answer: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A nested object, or an empty one."""
    found: Any = answer
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def results(answer: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The list of pictures of an answer."""
    found = answer.get(name)
    if not isinstance(found, list):
        raise BadAnswer(f"the answer has no list {name!r}")
    return [item for item in found if isinstance(item, dict)]


def tidy(caption: str) -> str:
    r"""A caption in one line: control characters, line breaks and repeated blanks become a blank.

    Marks of the writing direction stay, since texts that run from right to left may need them.

    >>> tidy("a\x00 cat\r\n on  a\tmat\ud800 ")
    'a cat on a mat'
    """
    caption = "".join(
        " " if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") else char for char in caption
    )
    return " ".join(caption.split())


def readable(markup: str) -> str:
    """HTML of a description as text.

    >>> readable('A <a href="x">red &amp; blue</a> kite<style>p{}</style>')
    'A red & blue kite'
    """
    if "<" not in markup and "&" not in markup:
        return markup
    reader = _Text()
    reader.feed(markup)
    reader.close()
    return "".join(reader.pieces)


class _Text(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self._hidden += tag in ("style", "script")
        if tag in ("br", "p", "div", "li", "td", "tr"):
            self.pieces.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("style", "script") and self._hidden:
            self._hidden -= 1

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.pieces.append(data)


_TRACKING = re.compile(r"(?:utm_\w+|ixid|ixlib)=[^&]*&?")


def address_key(url: str) -> str:
    """What is equal for two addresses of one file: without scheme, tracking and fragment.

    >>> address_key("https://Images.example/a.jpg?ixid=M3w&w=400#x")
    'images.example/a.jpg?w=400'
    """
    try:
        parts = urlsplit(url.strip())
        host = (parts.hostname or "").lower() + (f":{parts.port}" if parts.port else "")
    except ValueError:
        return url
    query = _TRACKING.sub("", parts.query).rstrip("&")
    return f"{host}{parts.path}" + (f"?{query}" if query else "")
