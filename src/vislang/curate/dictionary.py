"""Dataset dictionaries: one file that lists image and caption of every usable instance.

RedCaps, CC3M and CC12M lie on disk as <root>/[<split>/]<folder>/<id>.jpg beside <id>.json. The
language-guided code's dictionary of them is {folder: {id: [path, caption]}}.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vislang.curate.columns import read_column
from vislang.data.places import read_bytes
from vislang.data.sample import BadSample
from vislang.data.sources.redcaps import RedCaps
from vislang.errors import UserError
from vislang.files import whole_file

MOST_HEADER = 64_000_000


@dataclass
class Dictionary:
    """What a dictionary was made of.

    Args:
        folders: with at least one instance.
        instances: in the file.
        skipped: reason -> how many instances were left out.
    """

    folders: int = 0
    instances: int = 0
    skipped: Counter = field(default_factory=Counter)


def make_dictionary(
    path: Path | str,
    out: Path | str,
    *,
    split: str = "",
    year: int = 0,
    caption: str = "caption",
    max_bytes: int = 0,
    max_aspect: float = 0.0,
) -> Dictionary:
    """Write the dictionary of a RedCaps-like folder, sorted by folder and id.

    Paths are relative to `path`, the split included. The same file comes of the same content on
    every machine.

    Args:
        path: the root.
        out: .json for the original's form; .parquet or .csv for a table (id, image, caption,
            subreddit, year) that `table:` opens with images_root PATH.
        split: a folder right below the root.
        year: only folders <subreddit>_<year>_<number> of that year.
        caption: its key in the JSON files; of a list the first.
        max_bytes: leave out larger image files; 0 takes all.
        max_aspect: leave out images longer than this many times their width (or the other way
            round), by the file's header; 0 does not look.

    Raises:
        UserError: no such folder, no instance, or another suffix.
    """
    out = Path(out)
    if out.suffix not in (".json", ".parquet", ".csv"):
        raise UserError(f"out must end in .json, .parquet or .csv, got {str(out)!r}.")
    source = RedCaps(str(path), split=split, year=year, caption=caption)
    made = Dictionary()
    rows = _rows(source, f"{split}/" if split else "", max_bytes, max_aspect, made)
    if out.suffix == ".json":
        _write_json(rows, out, made)
    else:
        _write_table(rows, out, made)
    return made


def _rows(
    source: RedCaps, prefix: str, max_bytes: int, max_aspect: float, made: Dictionary
) -> Iterator[tuple[str, str, str]]:
    """(id, path, caption) of usable instances; counts the others."""
    for index in range(len(source)):
        try:
            sample = source[index]
            reason = _unusable(sample.image, sample.texts, max_bytes, max_aspect)
        except BadSample as bad:
            reason = bad.reason.partition(":")[0]
            if "no key" in bad.reason:
                reason = "no caption"
            made.skipped[reason] += 1
            continue
        if reason:
            made.skipped[reason] += 1
            continue
        yield sample.id, prefix + source.file_of(index), sample.texts[0]


def _unusable(image, texts: tuple[str, ...], max_bytes: int, max_aspect: float) -> str:
    """Why an instance is left out; empty if it is not."""
    if image is None:
        return "annotation without image"
    if not texts:
        return "no caption"
    if not max_bytes and not max_aspect:
        return ""
    size = image.stat().st_size if isinstance(image, Path) else image.raw_size
    if max_bytes and size > max_bytes:
        return "image file too large"
    if max_aspect:
        import io

        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(io.BytesIO(read_bytes(image, MOST_HEADER))) as opened:
                width, height = opened.size
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
            return "image that cannot be read"
        if max(width, height) > max_aspect * min(width, height):
            return "image too long"
    return ""


def _write_json(rows: Iterator[tuple[str, str, str]], out: Path, made: Dictionary) -> None:
    """Folder by folder, so that millions of instances need no memory."""
    last = None
    with whole_file(out, "w") as file:
        file.write("{")
        for id_, path, text in rows:
            folder, _, name = id_.rpartition("/")
            if folder != last:
                key = json.dumps(folder.rpartition("/")[2] or ".", ensure_ascii=False)
                file.write(("" if last is None else "}, ") + key + ": {")
                made.folders, last = made.folders + 1, folder
            else:
                file.write(", ")
            entry = json.dumps([path, text], ensure_ascii=False)
            file.write(f"{json.dumps(name, ensure_ascii=False)}: {entry}")
            made.instances += 1
        file.write(("" if last is None else "}") + "}\n")
        _check(made)  # what stood there before stays


def _write_table(rows: Iterator[tuple[str, str, str]], out: Path, made: Dictionary) -> None:
    import pyarrow as pa
    import pyarrow.csv as pc
    import pyarrow.parquet as pq

    found = list(rows)
    ids = [row[0] for row in found]
    made.instances, none = len(ids), [-1] * len(ids)
    made.folders = len({id_.rpartition("/")[0] for id_ in ids})
    columns = {
        "id": ids,
        "image": [row[1] for row in found],
        "caption": [row[2] for row in found],
        **{name: read_column(name, ids, none) for name in ("subreddit", "year")},
    }
    _check(made)
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    with whole_file(out) as file:
        (pq.write_table if out.suffix == ".parquet" else pc.write_csv)(table, file)


def _check(made: Dictionary) -> None:
    if not made.instances:
        counts = ", ".join(f"{reason}: {count:,}" for reason, count in made.skipped.items())
        raise UserError(f"Not one instance is usable ({counts}). Look at the caption's key.")
