"""Flickr8k and Flickr30k caption files in their several spellings."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING

from vislang.data.columns import first_line, sniff_delimiter
from vislang.data.grouped import GroupedCaptions
from vislang.data.images import NamedImages, find_images
from vislang.data.patterns import name_of
from vislang.errors import UserError
from vislang.lookup import nearest

if TYPE_CHECKING:
    import pyarrow as pa

_IMAGE = ("image", "image_name", "filename", "file_name", "img")
_NUMBER = ("caption_id", "comment_number", "caption_number", "sentid")
_CAPTION = ("caption", "comment", "sentence", "text")
_FOLDERS = ("images", "Images", "Flicker8k_Dataset", "flickr30k-images", "flickr30k_images")
_TOKEN = re.compile(r"^(?P<image>.+\.\w+)#\d+\t(?P<caption>.*)$")


class FlickrCaptions(GroupedCaptions):
    """Flickr caption file, one caption a row: CSV, Flickr8k.token.txt or flickr30k's results.csv.

    Images are sorted by name, captions stay in the file's order.

    Args:
        path: the file. With a header: columns image, caption and perhaps a number and split;
            without: lines of 'name.jpg#0<tab>caption'.
        images: folder or zip archive with the images; found by itself when it lies beside.
        split: value of the column split, or a file that lists the images of a split.
    """

    def __init__(self, path: str, *, images: str = "", split: str = ""):
        import pyarrow as pa

        file = _existing(path)
        rows, damaged = _read(file)
        if split:
            rows, damaged = _of_split(rows, split, file), []
        grouped: dict[str, list[str]] = {}
        for image, caption, _ in rows:
            grouped.setdefault(image, []).append(caption)
        if not grouped:
            raise UserError(f"The source {file} is empty: it has no captions.")
        names = sorted(grouped)
        column: pa.Array = pa.array(names, pa.large_string())
        home = Path(images) if images else find_images(file, column, _FOLDERS)
        captions = [[text for text in grouped[name] if text] for name in names]
        name = name_of(path, Path(split).stem)
        super().__init__(name, file, names, NamedImages(home, column), captions, damaged)

    @staticmethod
    def recognises(path: Path) -> bool:
        """A text file whose first line looks like one of the spellings."""
        if path.suffix.lower() not in (".csv", ".txt", ".token") or not path.is_file():
            return False
        line = first_line(path)
        header = [part.strip().lower() for part in line.split(sniff_delimiter(line))]
        return bool(_TOKEN.match(line)) or (
            any(name in header for name in _IMAGE) and any(name in header for name in _NUMBER)
        )


def _existing(path: str) -> Path:
    from vislang.data.sources import missing_path

    if not Path(path).is_file():
        raise missing_path(Path(path), "caption file")
    return Path(path)


Rows = list[tuple[str, str, str]]


def _read(file: Path) -> tuple[Rows, list[tuple[int, str]]]:
    """([(image, caption, split)], damaged lines)."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text: {error}.") from error
    lines = text.splitlines()
    if lines and _TOKEN.match(lines[0]):
        return _read_tokens(lines)
    mark = sniff_delimiter(lines[0]) if lines else ","
    # In flickr30k's results.csv quotes are ordinary characters.
    quoting = csv.QUOTE_NONE if mark == "|" else csv.QUOTE_MINIMAL
    reader = csv.reader(text.splitlines(keepends=True), delimiter=mark, quoting=quoting)
    header = [name.strip() for name in next(reader, [])]
    lower = [name.lower() for name in header]
    image = _column(lower, header, _IMAGE, file)
    caption = _column(lower, header, _CAPTION, file)
    split = lower.index("split") if "split" in lower else None
    rows, damaged = [], []
    for row in reader:
        if len(row) != len(header):
            if row:
                damaged.append((reader.line_num, f"{len(row)} columns, not {len(header)}"))
            continue
        part = row[split].strip() if split is not None else ""
        rows.append((row[image].strip(), row[caption].strip(), part))
    return rows, damaged


def _read_tokens(lines: list[str]) -> tuple[Rows, list[tuple[int, str]]]:
    rows, damaged = [], []
    for number, line in enumerate(lines, 1):
        match = _TOKEN.match(line)
        if match:
            rows.append((match["image"], match["caption"].strip(), ""))
        elif line.strip():
            damaged.append((number, "not of the form name.jpg#0<tab>caption"))
    return rows, damaged


def _column(lower: list[str], header: list[str], usual: tuple[str, ...], file: Path) -> int:
    for name in usual:
        if name in lower:
            return lower.index(name)
    raise UserError(
        f"{file} has no column {usual[0]!r}.{nearest(usual[0], header)}"
        f" Columns: {', '.join(header)}. For other names open it as 'table:{file}'."
    )


def _of_split(rows: Rows, split: str, file: Path) -> Rows:
    """Rows of one split, by the column or by a list of image names."""
    if Path(split).is_file():
        listed = {line.strip() for line in Path(split).read_text().splitlines()}
        return [row for row in rows if row[0] in listed]
    splits = sorted({part for _, _, part in rows if part})
    if split not in splits:
        raise UserError(
            f"{file} has no split {split!r}.{nearest(split, splits)}"
            f" Splits: {', '.join(splits) or 'none; give a file that lists image names'}."
        )
    return [row for row in rows if row[2] == split]
