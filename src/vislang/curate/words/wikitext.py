"""Wikitext to the text that a reader sees, by mwparserfromhell's tokens.

The tokens are read as they come instead of being built into a tree, which costs six times as much
as finding them. Kept are paragraphs, headings, lists, cells of tables, labels of links and captions
of files. Left out are templates, comments, footnotes, formulas, galleries, program text, addresses,
links to languages and into categories, and every attribute.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

_HIDDEN = """ref references math chem ce hiero gallery imagemap timeline score graph templatedata
 source syntaxhighlight categorytree inputbox section mapframe maplink script style"""
_INLINE = """a abbr b bdi bdo big cite code del dfn em font i ins kbd mark nowiki q ruby s samp
 small span strike strong sub sup tt u var"""
HIDDEN_TAGS, INLINE_TAGS = frozenset(_HIDDEN.split()), frozenset(_INLINE.split())
_QUOTES = re.compile("''+")  # bold and italic
_SWITCH = re.compile(r"__[A-Z]+__")  # __NOTOC__
# Tags that their writer did not close, as browsers allow, are left as text.
_OPEN = re.compile(r"</?(?:li|ul|ol|p|div|center|span|font|small|big|t[rdh]|table|br)\b[^<>]*>")
# Of a cell whose "|" comes out of a template, the attributes are left as text.
_LEFT = re.compile(
    r"""\s*(?:(?:colspan|rowspan|style|class|align|valign|scope|width|bgcolor|data-sort-value)"""
    r"""\s*=\s*(?:"[^"]*"|'[^']*'|[\w#%]+)\s*)+"""
)
# A link "de:..." leads to the page in another language; these prefixes do not.
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]+)*|simple")
_SHOWN = frozenset(("mw", "doi", "hdl", "rfc", "bug", "oeis", "ftp", "irc", "tel"))
_FILE, _CATEGORY = 6, 14


def prefixes(namespaces: Mapping[int, Iterable[str]]) -> dict[str, str]:
    """What links into the namespaces of files and categories begin with -> "file", "category"."""
    names = {"file": {"file", "image", "media"}, "category": {"category"}}
    for number, kind in ((_FILE, "file"), (-2, "file"), (_CATEGORY, "category")):
        names[kind] |= {name.lower() for name in namespaces.get(number, ()) if name}
    return {name: kind for kind, several in names.items() for name in several}


def plain_text(wikitext: str, links: Mapping[str, str] | None = None) -> str:
    """What a reader sees of an article.

    Args:
        wikitext: the source of a page.
        links: of `prefixes`, for the site's language; English alone by default.

    >>> plain_text("'''Sand''' is [[rock|rocks]]<ref>{{cite|a}}</ref> of 1&nbsp;mm. {{clear}}")
    'Sand is rocks of 1 mm. '
    """
    return _Reader(links or prefixes({})).read(wikitext)


@lru_cache(1)
def _tokenizer() -> Any:
    from mwparserfromhell.parser import Parser

    return Parser()._tokenizer


class _Frame:
    """An open piece of markup: what it is, and the text inside so far."""

    __slots__ = ("kind", "name", "out")

    def __init__(self, kind: str):
        self.kind, self.out = kind, []
        self.name: str | None = None


class _Reader:
    """A stack of frames; each closing token hands its frame's text to the one around it."""

    def __init__(self, links: Mapping[str, str]):
        self.links = links

    def read(self, wikitext: str) -> str:
        from mwparserfromhell.parser import tokens as t

        opens = {
            t.TemplateOpen: "template", t.ArgumentOpen: "template", t.CommentStart: "template",
            t.WikilinkOpen: "link", t.ExternalLinkOpen: "address", t.HTMLEntityStart: "entity",
            t.HeadingStart: "heading", t.TagOpenOpen: "tag",
        }  # fmt: skip
        closes = {
            t.TemplateClose, t.ArgumentClose, t.CommentEnd, t.WikilinkClose, t.ExternalLinkClose,
            t.HTMLEntityEnd, t.HeadingEnd, t.TagCloseClose, t.TagCloseSelfclose,
        }  # fmt: skip
        halves = {t.WikilinkSeparator, t.ExternalLinkSeparator, t.TagCloseOpen}
        text, numeric, hexadecimal, last = (
            t.Text,
            t.HTMLEntityNumeric,
            t.HTMLEntityHex,
            t.TagOpenClose,
        )
        stack = [_Frame("page")]
        out = stack[0].out
        for token in _tokenizer().tokenize(wikitext, 0, True):
            kind = type(token)
            if kind is text:
                out.append(token.text)
            elif kind in opens:
                stack.append(_Frame(opens[kind]))
                out = stack[-1].out
            elif kind in closes:
                frame = stack.pop()
                out = stack[-1].out
                out.append(self._closed(frame))
            elif kind in halves:
                frame = stack[-1]
                frame.name = (out[0] if out else "") if kind is t.TagCloseOpen else "".join(out)
                out = frame.out = []
            elif kind is last:  # behind it stands the tag's name once more
                out.append("\0")
            elif kind is numeric:
                out.append("#")
            elif kind is hexadecimal:
                out.append(token.char)
        return _OPEN.sub("\n", _SWITCH.sub(" ", _QUOTES.sub("", "".join(out))))

    def _closed(self, frame: _Frame) -> str:
        if frame.kind == "template":
            return ""
        if frame.kind == "link":
            return self._link(frame)
        if frame.kind == "tag":
            return _tag(frame)
        inside = "".join(frame.out)
        if frame.kind == "address":
            return inside if frame.name is not None else " "
        if frame.kind == "entity":
            return html.unescape(f"&{inside};").replace("\xa0", " ")
        return f"\n{inside}\n"  # a heading

    def _link(self, frame: _Frame) -> str:
        inside = "".join(frame.out)
        target = inside if frame.name is None else frame.name
        start, colon, _ = target.partition(":")
        start = start.strip()
        if colon and start:
            kind = self.links.get(start.lower())
            if kind == "category" or (
                not kind and _LANGUAGE.fullmatch(start) and start not in _SHOWN
            ):
                return ""
            if kind == "file":
                # Options ("thumb", in any language) are single words, captions hardly ever are.
                caption = "" if frame.name is None else inside.rpartition("|")[2]
                return f"\n{caption}\n" if " " in caption.strip() else "\n"
        return inside.lstrip(":") if frame.name is None else inside


def _tag(frame: _Frame) -> str:
    closing = frame.name is not None
    name = frame.name if closing else (frame.out[0] if frame.out else "")
    name = str(name).strip().lower()
    if name in HIDDEN_TAGS:
        return ""
    inside = "".join(frame.out).rpartition("\0")[0] if closing else ""
    if name in ("td", "th") and (found := _LEFT.match(inside)):
        inside = inside[found.end() :]
    return inside if name in INLINE_TAGS else f"\n{inside}\n"
