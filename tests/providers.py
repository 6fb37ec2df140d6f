"""A web server on loopback that answers as the three providers of pictures do, well and badly."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from loopback import running

PER_PAGE = {"unsplash": 30, "openverse": 20, "wikimedia": 50}


def photo(word: str, number: int) -> dict[str, Any]:
    """Facts of the n-th picture of a word; every tenth is that of the word "shared"."""
    owner = "shared" if number % 10 == 9 else word
    return {"id": f"{owner}-{number}", "caption": f"A {owner}, number {number}", "n": number}


class Handler(BaseHTTPRequestHandler):
    """/unsplash, /openverse and /wikimedia; `server.tricks` may answer first."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        name = parts.path.strip("/")
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        with self.server.lock:
            self.server.asked.append((name, query, dict(self.headers.items())))
        with contextlib.suppress(OSError):
            self.server.answer(self, name, query)
        self.close_connection = True

    def send(self, body: Any, status: int = 200, **headers: str) -> None:
        """JSON, or bytes as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        headers = {"Content_Type": "application/json"} | headers
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal."""


class Server(ThreadingHTTPServer):
    """Attributes: asked (provider, query, headers); tricks, called in turn; pictures of a word."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.asked: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self.tricks: list[Callable[[Handler, str, dict[str, str]], bool]] = []
        self.pictures = 65
        self.picture_url = "https://pictures.example/{id}.jpg"
        self.change: Callable[[str, dict[str, Any]], None] = lambda name, answer: None

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def endpoints(self) -> dict[str, str]:
        return {name: f"{self.base}/{name}" for name in PER_PAGE}

    def count(self) -> Counter[str]:
        """Requests of each provider."""
        return Counter(name for name, *_ in self.asked)

    def answer(self, handler: Handler, name: str, query: dict[str, str]) -> None:
        for trick in list(self.tricks):
            if trick(handler, name, query):
                return
        answer = getattr(self, name)(query)
        self.change(name, answer)
        handler.send(answer)

    def _page(self, name: str, word: str, page: int) -> list[dict[str, Any]]:
        first = (page - 1) * PER_PAGE[name]
        return [photo(word, n) for n in range(first, min(first + PER_PAGE[name], self.pictures))]

    def _url(self, fact: dict[str, Any]) -> str:
        return self.picture_url.format(**fact)

    def unsplash(self, query: dict[str, str]) -> dict[str, Any]:
        found = self._page("unsplash", query["query"], int(query["page"]))
        pages = -(-self.pictures // PER_PAGE["unsplash"])
        return {"total": self.pictures, "total_pages": pages, "results": [
            {"id": f["id"], "width": 4000, "height": 3000, "alt_description": f["caption"],
             "description": None, "likes": 3, "user": {
                 "name": "Ana", "username": "ana", "links": {"html": "https://people.example/ana"}},
             "urls": {"raw": f"{self._url(f)}?ixid=x&ixlib=rb", "small":
                      f"{self._url(f)}?ixid={query['query']}{query['page']}&w=400"},
             "links": {"html": f"https://photos.example/{f['id']}"}} for f in found]}  # fmt: skip

    def openverse(self, query: dict[str, str]) -> dict[str, Any]:
        found = self._page("openverse", query["q"], int(query["page"]))
        pages = min(20, -(-self.pictures // PER_PAGE["openverse"]))
        return {"result_count": self.pictures, "page_count": pages, "page_size": 20,
                "page": int(query["page"]), "results": [
                    {"id": f"ov-{f['id']}", "title": f["caption"], "url": self._url(f),
                     "foreign_landing_url": f"https://land.example/{f['id']}", "creator": "Bo",
                     "creator_url": "https://people.example/bo", "license": "by-sa",
                     "license_version": "4.0", "license_url": "https://licences.example/by-sa",
                     "width": 800, "height": 600} for f in found]}  # fmt: skip

    def wikimedia(self, query: dict[str, str]) -> dict[str, Any]:
        word = query["gsrsearch"].removeprefix("filetype:bitmap ")
        first = int(query["gsroffset"])
        found = self._page("wikimedia", word, first // PER_PAGE["wikimedia"] + 1)
        answer: dict[str, Any] = {"batchcomplete": True}
        if first + len(found) < self.pictures:
            answer["continue"] = {"gsroffset": first + len(found), "continue": "gsroffset||"}
        meta = lambda value: {"value": value, "source": "commons-desc-page"}  # noqa: E731
        if found:
            answer["query"] = {"searchinfo": {"totalhits": self.pictures}, "pages": [
                {"pageid": hash_of(f["id"]), "ns": 6, "title": f"File:{f['id']}.jpg",
                 "index": first + i + 1, "imageinfo": [{
                     "url": self._url(f), "thumburl": f"{self._url(f)}?w=500",
                     "descriptionurl": f"https://commons.example/{f['id']}", "mime": "image/jpeg",
                     "width": 1000, "height": 700, "extmetadata": {
                         "ImageDescription": meta(f"<p>{f['caption']} &amp; more</p>"),
                         "Artist": meta('<a href="x">Cy</a>'), "LicenseShortName": meta("CC0"),
                         "LicenseUrl": meta("https://licences.example/cc0")}}]}
                for i, f in reversed(list(enumerate(found)))]}  # fmt: skip
        return answer


def hash_of(name: str) -> int:
    """A page's number from its name."""
    import zlib

    return zlib.crc32(name.encode())


@contextlib.contextmanager
def providing() -> Iterator[Server]:
    """A running server."""
    with running(Server()) as server:
        yield server
