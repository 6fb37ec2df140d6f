"""Pages of a MediaWiki XML dump, one after the other, in constant memory.

The parser is expat, which comes with Python and is maintained with it. Unlike readers that build
elements (mwxml, lxml's iterparse) it hands text over in pieces, so that a page of a gigabyte is
measured and dropped without ever lying in memory; and since a dump has no DOCTYPE, one that has is
refused, so that there are no entities to make a bomb of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from vislang.curate.words.unpack import Cut, unpack
from vislang.errors import UserError

MAX_CHARACTERS = 2_000_000  # MediaWiki itself takes at most 2 MiB by default
_MAX_TAG, _MAX_DEPTH, _MAX_NAME = 1 << 24, 32, 10_000
# "#REDIRECT [[...", in every language: a list's item has a blank or nothing behind its sign.
_REDIRECT = re.compile(r"\s*#\w+\s*:?\s*\[\[")
_WANTED = {
    "mediawiki/page/title": "title",
    "mediawiki/page/ns": "ns",
    "mediawiki/page/id": "id",
    "mediawiki/page/revision/model": "model",
    "mediawiki/page/revision/text": "text",
    "mediawiki/siteinfo/namespaces/namespace": "namespace",
}


class Page(NamedTuple):
    """An article, or a page that is none: then `skip` says why and `text` is empty."""

    id: str
    title: str
    text: str
    skip: str


class Dump:
    """Reads pages and, ahead of them, what the site calls its namespaces.

    Args:
        path: the file: XML, .bz2 (also multistream) or .gz.
        max_characters: a longer wikitext is skipped.

    Attributes:
        namespaces: number -> names, known once the first page was read.
    """

    def __init__(self, path: Path | str, max_characters: int = MAX_CHARACTERS):
        self.path, self.max_characters = Path(path), max_characters
        self.namespaces: dict[int, list[str]] = {}
        self._found: list[Page] = []
        self._path, self._depth, self._fed = "", 0, 0
        self._pieces: list[str] | None = None
        self._length = self._limit = 0
        self._page: dict[str, str] = {}
        self._key = 0
        self._root = False
        parser = self._parser = expat.ParserCreate()
        parser.buffer_text, parser.buffer_size = True, 1 << 16
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.StartDoctypeDeclHandler = self._doctype

    def __iter__(self) -> Iterator[Page]:
        """Every page, in the dump's order; of a page with several revisions the last.

        Raises:
            Cut: the dump ends early or is damaged; every page before that was given.
            UserError: the file is no MediaWiki dump.
        """
        return self.pages(unpack(self.path))

    def pages(self, blocks: Iterable[bytes]) -> Iterator[Page]:
        """The same of bytes that come from elsewhere."""
        try:
            for block in blocks:
                self._feed(block)
                yield from self._taken()
            self._feed(b"", last=True)
            yield from self._taken()
        except Cut:
            yield from self._taken()
            raise

    def _taken(self) -> list[Page]:
        found, self._found = self._found, []
        return found

    def _feed(self, block: bytes, last: bool = False) -> None:
        try:
            self._parser.Parse(block, last)
        except expat.ExpatError as error:
            what = expat.errors.messages[error.code]
            if not self._root:
                raise UserError(f"{self.path} is no MediaWiki XML dump: {what}.") from error
            if last:
                raise Cut("its XML ends in the middle") from error
            raise Cut(f"its XML is damaged in line {error.lineno:,} ({what})") from error
        self._fed += len(block)
        if self._fed - max(self._parser.CurrentByteIndex, 0) > _MAX_TAG:
            raise Cut(f"it has a tag of more than {_MAX_TAG:,} bytes")

    def _doctype(self, name: str, *_: object) -> None:
        raise UserError(
            f"{self.path} has a DOCTYPE ({name}), which no MediaWiki dump has; it is not read,"
            " because entities can be made to fill any memory."
        )

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._path = f"{self._path}/{name}" if self._depth else name
        self._depth += 1
        if self._depth == 1:
            if name != "mediawiki":
                raise UserError(f"{self.path} is no MediaWiki XML dump: it begins with <{name}>.")
            self._root = True
        if self._depth > _MAX_DEPTH:
            raise Cut(f"its XML nests more than {_MAX_DEPTH} deep")
        wanted = _WANTED.get(self._path)
        if self._path == "mediawiki/page":
            self._page = {}
        elif self._path == "mediawiki/page/redirect":
            self._page["skip"] = "redirect"
        elif wanted:
            self._pieces, self._length = [], 0
            self._limit = self.max_characters if wanted == "text" else _MAX_NAME
            self._parser.CharacterDataHandler = self._data
            if wanted == "namespace":
                self._key = int(attributes.get("key", "0"))
            elif wanted == "text":
                self._page.pop("text skip", None)
                if "deleted" in attributes:
                    self._page["text skip"] = "deleted"

    def _data(self, text: str) -> None:
        self._length += len(text)
        if self._pieces is not None and self._length <= self._limit:
            self._pieces.append(text)

    def _end(self, name: str) -> None:
        wanted = _WANTED.get(self._path)
        if self._path == "mediawiki/page":
            self._found.append(self._finished())
        elif wanted and self._pieces is not None:
            value = "".join(self._pieces) if self._length <= self._limit else ""
            self._parser.CharacterDataHandler, self._pieces = None, None
            if wanted == "namespace":
                self.namespaces.setdefault(self._key, []).append(value)
            else:
                self._page[wanted] = value
                if self._length > self._limit:
                    self._page[f"{wanted} skip"] = "too long"
        self._depth -= 1
        self._path = self._path.rpartition("/")[0]

    def _finished(self) -> Page:
        page = self._page
        title, text = page.get("title", ""), page.get("text", "")
        skip = ""
        if self._namespace(page, title) != "0":
            skip = "other namespace"
        elif page.get("skip"):
            skip = page["skip"]
        elif page.get("model", "wikitext") != "wikitext":
            skip = "not wikitext"
        elif page.get("text skip") or page.get("title skip"):
            skip = page.get("text skip") or page["title skip"]
        elif not text.strip():
            skip = "no text"
        elif _REDIRECT.match(text):
            skip = "redirect"
        return Page(page.get("id", ""), title, "" if skip else text, skip)

    def _namespace(self, page: dict[str, str], title: str) -> str:
        """Dumps before version 0.6 have no <ns>: there the title's beginning tells."""
        if "ns" in page:
            return page["ns"].strip()
        start, colon, _ = title.partition(":")
        numbers = [n for n, names in self.namespaces.items() if start in names]
        return str(numbers[0]) if colon and numbers else "0"


def read_pages(path: Path | str, max_characters: int = MAX_CHARACTERS) -> Iterator[Page]:
    """Every page of a dump; see `Dump`."""
    return iter(Dump(path, max_characters))
