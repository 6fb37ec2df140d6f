"""Drawn pictures in rows: kept as a file beside a suite's records, shown on its page and in a
run's report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislang.errors import UserError
from vislang.files import read_json
from vislang.report.markup import Html, clip, foreign, join, tag
from vislang.report.pictures import data_address

if TYPE_CHECKING:
    from PIL import Image

SIDE, MOST = 360, 60
Draw = Callable[[Mapping[str, Any]], "Image.Image | None"]
Group = dict[str, Any]  # {"title", "cards": [{"text", "told", "picture", "width", "height"}]}


def drawn_group(
    title: str, records: Sequence[Mapping[str, Any]], told: Callable[[Any], str], draw: Draw
) -> Group:
    """One row of pictures; what cannot be drawn says so and stops nothing.

    Args:
        title: above the row.
        records: with a text each.
        told: record -> what stands below the text.
        draw: record -> its picture, or None.
    """
    cards = []
    for record in records:
        card = {"text": str(record["text"]), "told": told(record)}
        try:
            card |= picture(draw(record))
        except Exception as error:  # the page is made all the same
            card["why"] = clip(str(error), 200)
        cards.append(card)
    return {"title": title, "cards": cards}


def picture(image: Image.Image | None) -> dict[str, Any]:
    """A picture as a card holds it."""
    if image is None:
        return {"why": "no picture"}
    image.thumbnail((SIDE, SIDE))
    return {"picture": data_address(image), "width": image.width, "height": image.height}


def gallery(groups: Sequence[Mapping[str, Any]], heading: str = "h3") -> Html:
    """The rows as markup, each below a heading."""
    parts = [tag("p", "Found: red. True: blue. Brighter: the heat-map.", class_="note")]
    for group in groups:
        cards = [_card(card) for card in group.get("cards", ())[:MOST]]
        parts.append(tag(heading, foreign(group.get("title", ""), 60)))
        parts.append(tag("div", cards or tag("p", "There is none."), class_="curves"))
    return join(parts)


def kept_gallery(folder: Path, name: object) -> Html | None:
    """The rows of a file below a run folder; nothing where there is none."""
    path = (folder / str(name)).resolve()
    if not name or not path.is_relative_to(folder.resolve()) or not path.is_file():
        return None
    try:
        groups = read_json(path)
        return gallery(groups, "h4") if isinstance(groups, list) else None
    except (UserError, ValueError, AttributeError, TypeError):
        return None


def _card(card: Mapping[str, Any]) -> Html:
    shown = tag("span", foreign(card.get("why") or "no picture", 200), class_="missing")
    address = str(card.get("picture", ""))
    if address.startswith("data:image/"):
        text = f"boxes for {clip(str(card.get('text', '')), 80)}"
        size = {key: int(card[key]) for key in ("width", "height")}
        shown = tag("img", src=address, alt=text, **size)
    return tag(
        "figure",
        shown,
        tag(
            "figcaption",
            tag("span", foreign(card.get("text", ""), 120)),
            tag("small", foreign(card.get("told", ""), 80)),
        ),
    )
