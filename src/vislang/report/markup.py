"""Markup that is safe by construction: whatever is not `Html` is escaped on its way in.

Captions, names and ids come from strangers. `tag` escapes every plain string, and `visible` shows
the characters that would deceive the eye (bidirectional overrides, control characters) by name.
"""

import math
import re
import unicodedata
from collections.abc import Iterable
from html import escape
from typing import Any

VOID = {"br", "col", "hr", "img", "input", "link", "meta", "wbr"}
DECEIVING = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
KEPT = {"\n", "\t", "\u200c", "\u200d", "\u00ad"}  # line ends; joiners that scripts and emoji need


class Html(str):
    """Text that is markup already and must not be escaped again."""

    __slots__ = ()


def visible(text: str) -> str:
    r"""`text` with control characters, lone surrogates and direction overrides shown by number.

    >>> visible("abc\u202etxt")
    'abc⟨U+202E⟩txt'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        f"⟨U+{ord(char):04X}⟩" if _deceives(char) else char for char in text.replace("\r\n", "\n")
    )


def _deceives(char: str) -> bool:
    if char in KEPT or unicodedata.category(char) not in DECEIVING:
        return False
    return not 0xE0020 <= ord(char) <= 0xE007F  # the tags that spell the flags of regions


def clip(text: str, most: int = 400) -> str:
    """The first `most` characters, and how many more there are.

    >>> clip("abcdef", 3)
    'abc… (6 characters)'
    """
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """An element; children that are not `Html` are escaped, None is left out, lists are joined.

    A trailing underscore of an attribute is dropped and others become dashes; None and False
    leave an attribute out, True gives it without a value.

    >>> tag("a", "1 < 2", class_="x", data_id='"')
    '<a class="x" data-id="&quot;">1 &lt; 2</a>'
    """
    parts = []
    for key, value in attributes.items():
        key = key.removesuffix("_").replace("_", "-")
        if value is True:
            parts.append(f" {key}")
        elif value is not None and value is not False:
            parts.append(f' {key}="{escape(visible(str(value)), quote=True)}"')
    opening = f"<{name}{''.join(parts)}>"
    return Html(opening if name in VOID else f"{opening}{join(children)}</{name}>")


def join(children: Any) -> Html:
    """Children as markup, one after another."""
    if children is None:
        return Html("")
    if isinstance(children, Html):
        return children
    if isinstance(children, Iterable) and not isinstance(children, str):
        return Html("".join(join(child) for child in children))
    return Html(escape(visible(str(children)), quote=True))


def comma(items: Iterable[Any]) -> Html:
    """Items as markup with commas between them."""
    return Html(", ".join(join(item) for item in items))


def foreign(text: Any, most: int = 400) -> Html:
    """A caption, a name, an id: clipped, escaped, and its writing direction kept inside."""
    return tag("bdi", clip(str(text), most))


def breakable(name: str, most: int = 80) -> Html:
    """A metric's name that may break after its underscores and slashes.

    >>> breakable("text_to@1")
    '<bdi>text_<wbr>to@1</bdi>'
    """
    parts = re.split(r"(?<=[_/])", clip(name, most))
    return tag("bdi", Html(tag("wbr").join(join(part) for part in parts)))


def number(value: Any) -> str:
    """A number with the digits a reader can use.

    >>> [number(x) for x in (0.97123, -12.345, 1234567, 1e-5, 0.0, float("nan"), None, True)]
    ['0.971', '−12.3', '1,234,567', '1e-5', '0.000', 'not finite', '–', 'yes']
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int) and not math.isfinite(value):
        return "not finite"
    return ("−" if value < 0 else "") + _digits(abs(value))


def _digits(size: int | float) -> str:
    if isinstance(size, int):
        return f"{size:,}"
    if 0 < size < 0.001 or size >= 1e15:
        digits, _, power = f"{size:.2e}".partition("e")
        return f"{float(digits):g}e{int(power)}"
    if size >= 1000:
        return f"{size:,.0f}"
    if size >= 100:
        return f"{size:.0f}" if size == int(size) else f"{size:.1f}"
    return f"{size:.1f}" if size >= 10 else f"{size:.3f}"


def duration(seconds: float) -> str:
    """A length of time in the two largest units.

    >>> [duration(s) for s in (4.2, 65, 3725, 90000)]
    ['4.2 s', '1 min 5 s', '1 h 2 min', '25 h 0 min']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds + 0.5), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
