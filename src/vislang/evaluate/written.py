"""Words written on images: a source whose images carry a sheet of paper, with a word or without.

N: images, H, W: height and width of one.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.data.decode import decode_sample
from vislang.data.sample import BadSample, Sample, Source
from vislang.errors import UserError
from vislang.files import fingerprint
from vislang.lookup import nearest

if TYPE_CHECKING:
    from jaxtyping import UInt8

CONDITIONS = ("plain", "blank", "own word", "other word")
PLACES = {
    "top": (0.5, 0.08), "bottom": (0.5, 0.92), "centre": (0.5, 0.5), "left": (0.08, 0.5),
    "right": (0.92, 0.5), "top left": (0.08, 0.08), "top right": (0.92, 0.08),
    "bottom left": (0.08, 0.92), "bottom right": (0.92, 0.92),
}  # fmt: skip
LEAST, LEGIBLE = 8, 96  # px a side: fewer are refused; up to this images are enlarged first


@dataclass(frozen=True)
class Writing:
    """How a word is written.

    Args:
        size: height of the letters as a share of the shorter side.
        place: one of PLACES, or "random": drawn anew for every image.
        colour: of the letters, a name or #rrggbb.
        paper: colour of the sheet behind them; empty for none.
        seed: of places and words.
    """

    size: float = 0.15
    place: str = "random"
    colour: str = "black"
    paper: str = "white"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.size <= 1:
            raise UserError(f"typographic: size must be above 0 and at most 1, got {self.size}.")
        if self.place not in (*PLACES, "random"):
            raise UserError(
                f"typographic: place must be random or one of {', '.join(PLACES)}, got"
                f" {self.place!r}.{nearest(self.place, PLACES)}"
            )
        from PIL import ImageColor

        for name, colour in (("colour", self.colour), ("paper", self.paper)):
            try:
                if colour or name == "colour":
                    ImageColor.getrgb(colour)
            except ValueError as error:
                raise UserError(
                    f"typographic: {name} must be a colour such as red or #c02010, got {colour!r}."
                ) from error


def write_word(
    pixels: UInt8[np.ndarray, "H W 3"], word: str, writing: Writing, key: str, blank: bool = False
) -> UInt8[np.ndarray, "H2 W2 3"]:
    """The image with a word on it; the font is the one that comes with Pillow.

    Images of a shorter side below LEGIBLE are enlarged first, as a model would do it.

    Args:
        pixels: RGB.
        word: what to write; a long one is written smaller, so that it fits.
        writing: size, place, colours.
        key: of the image; the same key gives the same place.
        blank: only the sheet, of the size that the word would need.
    """
    from PIL import Image, ImageDraw

    image = enlarged(pixels)
    width, height = image.size
    font, box = _fitting(word, writing.size * min(width, height), width)
    across, down = box[2] - box[0], box[3] - box[1]
    margin = max(2, round(0.25 * down))
    place = writing.place
    if place == "random":
        place = tuple(PLACES)[draw(writing.seed, key, "place") % len(PLACES)]
    x, y = PLACES[place]
    left = round(x * max(width - across - 2 * margin, 0))
    top = round(y * max(height - down - 2 * margin, 0))
    canvas = ImageDraw.Draw(image)
    if writing.paper:
        edges = (left, top, left + across + 2 * margin - 1, top + down + 2 * margin - 1)
        canvas.rectangle(edges, fill=writing.paper)
    if not blank:
        spot = (left + margin - box[0], top + margin - box[1])
        canvas.text(spot, word, fill=writing.colour, font=font)
    return np.asarray(Image.Image.copy(image))


def enlarged(pixels: UInt8[np.ndarray, "H W 3"]) -> Any:
    """A Pillow image whose shorter side has LEGIBLE pixels at least (bicubic)."""
    from PIL import Image

    image = Image.fromarray(pixels)
    least = min(image.size)
    if least >= LEGIBLE:
        return image
    factor = LEGIBLE / least
    size = (round(image.width * factor), round(image.height * factor))
    return image.resize(size, Image.Resampling.BICUBIC)


def _fitting(word: str, height: float, width: int) -> tuple[Any, tuple[int, int, int, int]]:
    """A font of this height, or a smaller one in which the word fits; and the word's box."""
    from PIL import ImageFont

    size = max(height, 6.0)
    while True:
        font = ImageFont.load_default(size)
        box = tuple(round(edge) for edge in font.getbbox(word))
        if box[2] - box[0] <= 0.9 * width or size <= 6:
            return font, box  # type: ignore[return-value]
        size = max(6.0, size * 0.9 * width / (box[2] - box[0]) * 0.98)


def draw(seed: int, key: str, what: str) -> int:
    """A number that depends on these alone, on every machine.

    >>> draw(0, "a", "place") == draw(0, "a", "place") != draw(1, "a", "place")
    True
    """
    entropy = [seed, zlib.crc32(key.encode()), zlib.crc32(what.encode())]
    return int(np.random.default_rng(entropy).integers(1 << 31))


def other_class(label: int, classes: int, seed: int, key: str) -> int:
    """A class other than the image's own, the same for the same seed and image."""
    drawn = draw(seed, key, "word") % (classes - 1)
    return drawn + (drawn >= label)


def words_of(classes: Sequence[str]) -> list[str]:
    """What is written for each class: the first of its synonyms.

    >>> words_of(["tench, Tinca tinca", "polar_bear"])
    ['tench', 'polar bear']
    """
    return [name.split(", ")[0].replace("_", " ") for name in classes]


class Written:
    """Some samples of a source under one condition.

    Args:
        source: samples with images and labels.
        picks: positions in it.
        condition: one of CONDITIONS. All have the same size and place, so that blank paper shows
            what hiding a part of the image does by itself.
        words: what is written for each class.
        writing: how.
    """

    gives = frozenset({"image", "label"})

    def __init__(
        self, source: Source, picks: Sequence[int], condition: str, words: Sequence[str],
        writing: Writing,
    ):  # fmt: skip
        self.source, self.picks, self.condition = source, list(picks), condition
        self.words, self.writing = list(words), writing
        self.classes = tuple(source.classes)
        self.name = f"{source.name}-{condition.replace(' ', '-')}"
        self.fingerprint = fingerprint(
            [source.fingerprint, self.picks, condition, self.words, asdict(writing), LEGIBLE]
        )

    def __len__(self) -> int:
        return len(self.picks)

    def __getitem__(self, index: int) -> Sample:
        from PIL import Image

        sample = self.source[self.picks[index]]
        if not sample.labels:
            raise BadSample(sample.id, "no label: the sample has none", sample.origin)
        pixels = decode_sample(sample).pixels
        if min(pixels.shape[:2]) < LEAST:
            size = f"{pixels.shape[1]} x {pixels.shape[0]}"
            raise BadSample(
                sample.id, f"too small: {size}, to write on it needs {LEAST}", sample.origin
            )
        label, image = sample.labels[0], enlarged(pixels)
        if self.condition != "plain":
            word = self.words[self.word(label, sample.id)]
            blank = self.condition == "blank"
            image = Image.fromarray(write_word(pixels, word, self.writing, sample.id, blank))
        return Sample(sample.id, image, (), (label,), sample.origin)

    def word(self, label: int, id_: str) -> int:
        """The class whose word is on the image's paper (or would be, were it not blank)."""
        if self.condition == "own word":
            return label
        return other_class(label, len(self.words), self.writing.seed, id_)

    def shards(self) -> Sequence[range]:
        return [range(len(self))]
