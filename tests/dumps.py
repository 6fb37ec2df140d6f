"""Small MediaWiki dumps for tests: well made, multistream, and made with malice."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

HEAD = (
    '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="en">\n'
    '<siteinfo><namespaces><namespace key="0" case="first-letter" />'
    '<namespace key="6">File</namespace><namespace key="14">Category</namespace>'
    "</namespaces></siteinfo>\n"
)
TAIL = "</mediawiki>\n"


def page(number: int, text: str, title: str = "", ns: int = 0, more: str = "") -> str:
    """One page as the export writes it."""
    return (
        f"<page><title>{escape(title or f'Page {number}')}</title><ns>{ns}</ns><id>{number}</id>"
        f"{more}<revision><id>{number}</id><model>wikitext</model>"
        f'<text bytes="{len(text)}" xml:space="preserve">{escape(text)}</text></revision></page>\n'
    )


def dump(texts: Sequence[str]) -> str:
    """A whole dump of articles with these texts."""
    return HEAD + "".join(page(n, text) for n, text in enumerate(texts)) + TAIL


def write_dump(path: Path, texts: Sequence[str], per_stream: int = 0) -> Path:
    """A dump, packed as the path's ending says; with `per_stream` pages in each bzip2 stream."""
    if per_stream:
        pages = [page(n, text) for n, text in enumerate(texts)]
        streams = [HEAD]
        streams += ["".join(pages[at : at + per_stream]) for at in range(0, len(pages), per_stream)]
        streams.append(TAIL)
        path.write_bytes(b"".join(bz2.compress(stream.encode()) for stream in streams))
        return path
    data = dump(texts).encode()
    if path.suffix == ".bz2":
        data = bz2.compress(data)
    elif path.suffix == ".gz":
        data = gzip.compress(data)
    path.write_bytes(data)
    return path
