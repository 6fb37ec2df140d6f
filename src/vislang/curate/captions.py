"""Captions as they come from the web, made fit for training; what was done to them is counted."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

# Invisible characters that change what is seen: embeddings and overrides of direction.
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Joiners and marks of direction that scripts need.
_KEPT = frozenset("\u200c\u200d\u200e\u200f\u061c")
_OUT = {"Cc", "Cs", "Co", "Cn", "Zl", "Zp"}


def clean_caption(text: str, most: int = 1000) -> tuple[str, set[str]]:
    r"""A caption on one line without characters that cannot be seen, and what was done to it.

    Control characters become spaces, lone surrogates, unassigned characters and overrides of
    direction go, spaces are joined; text that reads from right to left stays as it is. A longer
    one is cut before the word that goes beyond `most` characters.

    >>> clean_caption("a\x00 cat\non\u202e a mat  ")
    ('a cat on a mat', {'control characters'})
    >>> clean_caption("one two three", 9)
    ('one two', {'cut'})
    """
    done = set()
    if not (text.isascii() and text.isprintable()):
        cleaned = "".join(map(_cleaned, unicodedata.normalize("NFC", text)))
        # Ends of lines and tabs are spaces; only what nobody means to write is told.
        if any(_deceives(char) for char in text):
            done.add("control characters")
        text = cleaned
    text = " ".join(text.split())
    if all(char == " " or unicodedata.category(char) == "Cf" for char in text):
        text = ""  # nothing of it can be seen
    if len(text) > most:
        done.add("cut")
        short = text[:most]
        if not text[most].isspace():
            short = re.sub(r"\s\S*\Z", "", short)
        text = short.strip()
    return text, done


def _cleaned(char: str) -> str:
    if char in _KEPT:
        return char
    if char in _DIRECTIONS:
        return ""
    kind = unicodedata.category(char)
    if kind in ("Cc", "Zl", "Zp"):
        return " "
    return "" if kind in _OUT or char == "\ufeff" else char


def _deceives(char: str) -> bool:
    if char in "\n\r\t" or char in _KEPT:
        return False
    return char in _DIRECTIONS or unicodedata.category(char) in _OUT


def clean_captions(texts: Iterable[str | None], most: int, counts: Counter[str]) -> list[str]:
    """The captions of a picture, each once, empty ones left out; what was done is added to
    `counts`: control characters, cut, empty, repeated."""
    kept: dict[str, None] = {}
    for text in texts:
        cleaned, done = clean_caption(text or "", most)
        counts.update(done)
        if not cleaned:
            counts["empty"] += 1
        elif cleaned in kept:
            counts["repeated"] += 1
        else:
            kept[cleaned] = None
    return list(kept)
