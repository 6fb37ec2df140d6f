"""Small pictures of samples: found by id in the source, shrunk, and put into the page as data.

A report never fails for want of a picture: a source that is gone, or an id that is not in it,
leaves the id as text and a sentence in `notes`.
"""

import base64
import io
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislang.errors import UserError
from vislang.report.markup import Html, clip, foreign, tag

if TYPE_CHECKING:
    from PIL import Image

SIDES = {"head": 96, "example": 176}  # pixels of the longer side; shown at about half of it
KEPT_SIDE = 176
MOST_SCANNED = 100_000  # samples of a source looked at while searching for ids
MOST_SECONDS = 30.0
QUALITY = 72


@dataclass
class Pictures:
    """Pictures of one evaluation's samples.

    Args:
        images: id -> picture, at most KEPT_SIDE pixels wide and high.
        notes: why pictures are missing, in sentences.
    """

    images: dict[str, "Image.Image"] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _encoded: dict[tuple[str, str], str] = field(default_factory=dict)

    def show(self, id_: str, kind: str) -> Html:
        """The picture of a sample as an element, or its id where there is none."""
        if id_ not in self.images:
            return tag("span", foreign(id_, 40), class_=f"nopicture {kind}")
        image = self.images[id_]
        if (id_, kind) not in self._encoded:
            self._encoded[id_, kind] = data_address(_shrunk(image, SIDES[kind]))
        width, height = _shrunk_size(image.size, SIDES[kind])
        return tag(
            "img",
            src=self._encoded[id_, kind],
            width=width,
            height=height,
            alt=f"picture {clip(id_, 80)}",
            class_=f"{kind} tiny" if max(image.size) < 48 else kind,
        )

    def atlas(self, ids: list[str]) -> tuple[str, int, int, list[int]]:
        """All pictures of `ids` in one image, for the map's read-out.

        Returns:
            its data address ("" without any picture), side of a tile in pixels, tiles a row, and
            for each id its tile, -1 without one.
        """
        from PIL import Image, ImageOps

        known = [id_ for id_ in dict.fromkeys(ids) if id_ in self.images]
        if not known:
            return "", 0, 0, [-1] * len(ids)
        largest = max(max(self.images[id_].size) for id_ in known)
        side = min(largest, 64 if len(known) <= 200 else 48 if len(known) <= 600 else 36)
        across = math.ceil(math.sqrt(len(known)))
        sheet = Image.new("RGB", (across * side, math.ceil(len(known) / across) * side))
        for place, id_ in enumerate(known):
            tile = ImageOps.fit(self.images[id_], (side, side))
            sheet.paste(tile, (place % across * side, place // across * side))
        tiles = {id_: place for place, id_ in enumerate(known)}
        return data_address(sheet), side, across, [tiles.get(id_, -1) for id_ in ids]


def data_address(image: "Image.Image") -> str:
    """An image as a data: address; WebP where Pillow has it, else JPEG."""
    from PIL import features

    buffer = io.BytesIO()
    if features.check("webp"):
        kind = "webp"
        # Tiny pictures (handwritten digits of 8 pixels) are smaller, and sharp, without loss.
        image.save(buffer, "WEBP", quality=QUALITY, method=4, lossless=max(image.size) < 48)
    else:
        kind = "jpeg"
        image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _shrunk_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _shrunk(image: "Image.Image", side: int) -> "Image.Image":
    size = _shrunk_size(image.size, side)
    return image if size == image.size else image.resize(size)


class Finder:
    """Opens the sources that runs name, once each, and finds pictures in them by id.

    Args:
        open_source: replaces vislang.data.open_source: (spec, **options) -> Source.
    """

    def __init__(self, open_source: Callable[..., Any] | None = None):
        self._open_source = open_source
        self._opened: dict[str, _Opened] = {}

    def find(self, wanted: Iterable[str], places: Iterable["Origin"], fingerprint: str) -> Pictures:
        """Pictures of the ids, from the place of that fingerprint, else the first that has any."""
        ids = list(dict.fromkeys(wanted))
        found = Pictures()
        if not ids:
            return found
        reasons: list[str] = []
        changed = ""
        for origin in places:
            opened = self._open(origin)
            same = not fingerprint or opened.fingerprint in ("", fingerprint)
            images = {} if opened.why or (changed and not same) else opened.pictures(ids)
            if images and (same or not changed):
                found.images = images
                changed = "" if same else f"{origin.spec} (now {opened.fingerprint})"
                if same:
                    break
            elif not images:
                reasons.append(f"{origin.spec}: {opened.why or 'holds none of the ids'}")
        if changed:
            found.notes.append(
                f"The source {changed} has changed since it was scored ({fingerprint}). The"
                " pictures may not be those that were scored."
            )
        if not found.images:
            why = "; ".join(reasons) or "neither the scores nor the config name a source"
            found.notes.append(f"Without pictures: the source could not be read ({why}).")
        elif len(found.images) < len(ids):
            found.notes.append(
                f"Pictures found in the source: {len(found.images):,} of {len(ids):,}; for the"
                " others, their ids are shown."
            )
        return found

    def _open(self, origin: "Origin") -> "_Opened":
        if origin.key not in self._opened:
            self._opened[origin.key] = _Opened(origin, self._open_source)
        return self._opened[origin.key]


@dataclass(frozen=True)
class Origin:
    """A source as a config or a provenance names it."""

    spec: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Equal for equal origins."""
        return f"{self.spec}\n{sorted(self.options.items(), key=str)}"


class _Opened:
    """A source and what was found in it so far; `why` says why it could not be opened."""

    def __init__(self, origin: Origin, open_source: Callable[..., Any] | None):
        self.source: Any = None
        self.why = self.fingerprint = ""
        self.positions: dict[str, int] = {}
        self.scanned = 0
        self.cache: dict[str, Image.Image | None] = {}
        try:
            self.source = (open_source or open_registered)(origin.spec, **origin.options)
            self.fingerprint = str(getattr(self.source, "fingerprint", ""))
        except Exception as error:  # whatever ails it, the page is made without its pictures
            self.why = clip(str(error).strip().split("\n")[0] or type(error).__name__, 200)

    def pictures(self, ids: list[str]) -> dict[str, "Image.Image"]:
        """Those of the ids that the source holds and whose images can be decoded."""
        self._scan(set(ids))
        for id_ in ids:
            if id_ in self.positions and id_ not in self.cache:
                self.cache[id_] = self._picture(self.positions[id_])
        return {id_: image for id_ in ids if (image := self.cache.get(id_)) is not None}

    def _scan(self, missing: set[str]) -> None:
        """Go on through the source until all ids are met, or it is too far."""
        missing = missing - set(self.positions)
        begun = time.monotonic()
        while missing and self.scanned < min(len(self.source), MOST_SCANNED):
            if time.monotonic() - begun > MOST_SECONDS:
                return
            try:
                id_ = self.source[self.scanned].id
                self.positions.setdefault(id_, self.scanned)
                missing.discard(id_)
            except Exception:  # a bad sample has no picture
                pass
            self.scanned += 1

    def _picture(self, position: int) -> "Image.Image | None":
        try:
            image = to_picture(self.source[position].image)
        except Exception:  # a bad sample has no picture
            return None
        if image is not None:
            image.thumbnail((KEPT_SIDE, KEPT_SIDE))
        return image


def open_registered(spec: str, **options: Any) -> Any:
    """Open a source of a registered layout; a run folder may come from elsewhere, so the name of
    a Python object in it is not imported.
    """
    from vislang.data.sources import SOURCES, open_source

    layout, colon, _ = spec.partition(":")
    if colon and layout not in SOURCES and not Path(spec).exists():
        raise UserError(f"the layout {layout!r} is not one of vislang's own")
    return open_source(spec, **options)


def to_picture(raw: Any) -> "Image.Image | None":
    """What a Sample holds as its image, decoded to RGB; None for a sample of text only."""
    if raw is None:
        return None
    from PIL import Image

    from vislang.data.decode import decode

    return Image.fromarray(decode(raw, min_side=KEPT_SIDE))
