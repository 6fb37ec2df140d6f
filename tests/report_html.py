"""A page taken apart: elements, texts, and whether every tag that opens closes in order."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

from vislang.report.markup import VOID


@dataclass
class Element:
    name: str
    attributes: dict[str, str]
    inside: tuple[str, ...]
    text: str = ""


@dataclass
class Page(HTMLParser):
    """Parse with `Page.of(text)`.

    Attributes:
        elements: all elements in order; `text` is all text below them.
        faults: tags that do not nest.
    """

    elements: list[Element] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[Element] = []

    @classmethod
    def of(cls, text: str) -> Page:
        page = cls()
        page.feed(text)
        page.close()
        page.faults += [f"<{element.name}> is never closed" for element in page.open]
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if len({name for name, _ in attrs}) < len(attrs):
            self.faults.append(f"<{tag}> has an attribute twice")
        element = Element(
            tag, {name: value or "" for name, value in attrs}, tuple(e.name for e in self.open)
        )
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1].name != tag:
            self.faults.append(f"</{tag}> closes nothing")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data

    def named(self, name: str) -> list[Element]:
        return [element for element in self.elements if element.name == name]

    def classed(self, name: str) -> list[Element]:
        return [e for e in self.elements if name in (e.attributes.get("class") or "").split()]

    def by_id(self, id_: str) -> Element:
        (found,) = [e for e in self.elements if e.attributes.get("id") == id_]
        return found

    @property
    def text(self) -> str:
        """All that a reader sees: without style and script."""
        body = self.named("main")[0]
        return self.named("header")[0].text + body.text
