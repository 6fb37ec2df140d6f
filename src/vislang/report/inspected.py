"""A page about a source: what it holds, what was left out, and random samples to look at."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vislang.curate.inspect import Inspected, drawn, is_unsafe
from vislang.files import write_whole
from vislang.report.histogram import histogram
from vislang.report.markup import Html, foreign, join, tag
from vislang.report.page import _document, _entry, _section
from vislang.report.pictures import KEPT_SIDE, Pictures, to_picture
from vislang.report.sections import Section
from vislang.report.tables import facts, table

_PAIRS = 8  # of copies shown


def write_inspected(
    found: Inspected, out: Path | str, *, shown: int = 48, nsfw: bool = False, seed: int = 0
) -> Path:
    """Write one offline page.

    Args:
        found: what `inspect_source` gave.
        out: the file.
        shown: random samples on the page.
        nsfw: show also pictures that are tagged as possibly unsafe.
        seed: of the draw.
    """
    sections = [Section("summary", "Summary", _summary(found))]
    if found.rejected or found.unreadable:
        sections.append(Section("rejected", "Left out", _rejected(found)))
    if found.sides:
        sections.append(Section("pictures", "Pictures", _pictures(found)))
    if found.characters:
        sections.append(Section("captions", "Captions", _captions(found)))
    if found.sides:
        sections.append(Section("copies", "Copies", _copies(found, nsfw)))
    sections.append(Section("samples", "Random samples", _samples(found, shown, nsfw, seed)))
    body, entries = [_section(s) for s in sections], [_entry(s) for s in sections]
    out = Path(out)
    write_whole(out, _document(f"Source {found.name}", [], body, entries))
    return out


def _summary(found: Inspected) -> Html:
    n, looked = len(found.source), len(found.rows)
    copies = f"{len(found.copies):,} of {len(found.sides):,} pictures"
    with_text = sum(1 for count in found.captions if count)
    rows: list[tuple[str, Any]] = [
        ("samples", f"{n:,}"),
        ("looked at", f"{looked:,}" + (" drawn at random" if looked < n else ", all of them")),
        ("classes", f"{len(found.source.classes):,}" if found.source.classes else None),
        ("captions", f"{len(found.characters):,} of {with_text:,} samples"),
        ("scripts", ", ".join(f"{s} {_share(c, found.scripts)}" for s, c in
                              found.scripts.most_common(4))),
        ("unreadable", f"{sum(found.unreadable.values()):,}"),
        ("near copies of another", copies if found.sides else None),
        ("tagged as possibly unsafe", f"{found.tagged:,}" if found.unsafe else None),
        *((name, f"{count:,}") for name, count in found.about.items()),
    ]  # fmt: skip
    return facts(rows)


def _share(count: int, of: Any) -> str:
    return f"{count / max(1, sum(of.values())):.0%}"


def _rejected(found: Inspected) -> Html:
    parts = dict(found.rejected)
    if found.unreadable:
        parts["unreadable, of those looked at"] = dict(found.unreadable)
    rows = [
        [where, foreign(reason, 80), count]
        for where, reasons in parts.items()
        for reason, count in sorted(reasons.items(), key=lambda item: -item[1])
    ]
    if not rows:
        return tag("p", "Nothing was left out.")
    return table(["where", "reason", "rows"], rows, "Left out, by reason")


def _pictures(found: Inspected) -> Html:
    wide = max(found.sides) > 20 * max(1, min(found.sides))
    figures = [
        histogram("Shorter side", found.sides, "pixels", log=wide),
        histogram("Width / height", found.aspects, "ratio", log=True),
        histogram("Size of the file", [size / 1000 for size in found.sizes], "kB", log=True),
    ]
    return tag("div", figures, class_="curves")


def _captions(found: Inspected) -> Html:
    long = max(found.characters) > 500
    some = [count for count in found.characters if count]
    figures = [
        histogram("Characters", some if long else found.characters, "characters", log=long),
        histogram("Words", found.words, "words"),
        histogram("Captions of a sample", found.captions, "captions"),
    ]
    scripts = [
        [foreign(s, 40), c, _share(c, found.scripts)] for s, c in found.scripts.most_common()
    ]
    repeated = [[foreign(text, 160), count] for text, count in found.repeated]
    words = [[foreign(word, 40), count] for word, count in found.frequent]
    parts = [tag("div", figures, class_="curves")]
    parts += [table(["script", "captions", "share"], scripts, "Scripts, as a guess at languages")]
    if repeated:
        parts.append(table(["caption", "samples"], repeated, "Captions that several samples have"))
    parts.append(table(["word", "captions"], words, "Words in most captions"))
    return join(parts)


def _copies(found: Inspected, nsfw: bool) -> Html:
    if not found.copies:
        return tag("p", "No picture looked at is nearly the same as another.")
    rows = [
        [cell for row in pair[::-1] for cell in _side(found, row, nsfw)]
        for pair in found.copies[:_PAIRS]
    ]
    more = len(found.copies) - len(rows)
    note = tag("p", f"And {more:,} more.", class_="note") if more > 0 else None
    head = ["picture", "its captions", "copy", "its captions"]
    return join([table(head, rows, "Pictures that are nearly the same"), note])


def _side(found: Inspected, row: int, nsfw: bool) -> list[Html]:
    picture, texts = _sample(found, row, nsfw)
    return [picture, join(tag("p", text) for text in texts)]


def _samples(found: Inspected, shown: int, nsfw: bool, seed: int) -> Html:
    parts = []
    for row in drawn(found, shown, seed):
        picture, texts = _sample(found, row, nsfw)
        parts.append(
            tag("article", picture, tag("div", [tag("p", tag("q", text)) for text in texts] or
                tag("p", "no caption", class_="note")), class_="example")
        )  # fmt: skip
    return tag("div", parts, class_="examples narrow")


def _sample(found: Inspected, row: int, nsfw: bool) -> tuple[Html, list[Html]]:
    """A sample's picture and its first captions; what ails it, where it has none."""
    try:
        sample = found.source[row]
        texts = list(_first(sample.texts))
        if is_unsafe(found, sample) and not nsfw:
            return tag("span", "hidden (tagged unsafe)", class_="nopicture example"), texts
        image = to_picture(sample.image)
    except Exception as error:  # the page is made all the same
        return tag("span", foreign(str(error), 120), class_="nopicture example"), []
    pictures = Pictures({}, [])
    if image is not None:
        image.thumbnail((KEPT_SIDE, KEPT_SIDE))
        pictures.images[sample.id] = image
    return pictures.show(sample.id, "example"), texts


def _first(texts: Iterable[str], most: int = 3) -> Iterable[Html]:
    listed = list(texts)
    yield from (foreign(text, 240) for text in listed[:most])
    if len(listed) > most:
        yield foreign(f"… and {len(listed) - most} more captions")
