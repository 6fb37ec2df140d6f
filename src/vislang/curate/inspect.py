"""What a source holds, by looking at some of its samples: counts, sizes, captions, copies.

n: samples looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vislang.curate.collage import SAFE
from vislang.curate.copies import near_copies
from vislang.curate.duplicates import SIDE, perceptual_hash
from vislang.curate.fetch.written import DONE as FETCHED
from vislang.curate.fetch.written import LEDGER
from vislang.curate.scripts import script_of
from vislang.curate.validate import DONE as VALIDATED
from vislang.curate.validate import REJECTED, TABLE
from vislang.data.decode import Limits, decode_sample
from vislang.data.sample import BadSample, Sample, Source
from vislang.data.sources import open_source
from vislang.errors import UserError
from vislang.files import read_json


@dataclass
class Inspected:
    """What was found.

    Args:
        name: how the source was called.
        source: what was looked at.
        rows: positions of the samples looked at, ascending.
        sides: shorter side of each readable picture; `aspects` width / height; `sizes` bytes.
        captions: of each sample, how many; `characters`, `words` of each caption.
        scripts: script -> captions.
        repeated: the captions that several samples have, most frequent first.
        frequent: the words in most captions.
        copies: (position, position of the earlier one) of pictures that are nearly the same.
        unreadable: reason -> samples looked at.
        rejected: where -> reason -> rows, of what made the source.
        unsafe: ids that are tagged as possibly unsafe; `tagged` samples looked at are.
        about: further facts.
    """

    name: str
    source: Source
    rows: np.ndarray
    sides: list[int] = field(default_factory=list)
    aspects: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    captions: list[int] = field(default_factory=list)
    characters: list[int] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    scripts: Counter[str] = field(default_factory=Counter)
    repeated: list[tuple[str, int]] = field(default_factory=list)
    frequent: list[tuple[str, int]] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)
    unreadable: Counter[str] = field(default_factory=Counter)
    rejected: dict[str, dict[str, int]] = field(default_factory=dict)
    unsafe: frozenset[str] = frozenset()
    tagged: int = 0
    about: dict[str, Any] = field(default_factory=dict)


def inspect_source(
    spec: str,
    options: Mapping[str, Any] | None = None,
    *,
    most: int = 2000,
    hash_bits: int = 4,
    seed: int = 0,
    limits: Limits = Limits(),  # noqa: B008  frozen
) -> Inspected:
    """Look at a source.

    Args:
        spec: any source, or a folder of `vislang curate fetch` or `validate`.
        options: of the source.
        most: samples to look at, drawn at random; 0: all.
        hash_bits: pictures whose perceptual hashes differ in at most this many of 64 bits are
            copies.
        seed: of the draw.
        limits: of a picture.
    """
    if most < 0 or hash_bits < -1:
        raise UserError(f"most must be at least 0 and hash_bits -1, got {most} and {hash_bits}.")
    source, table, rejected, about = _open(spec, dict(options or {}))
    n = len(source)
    rows = np.arange(n)
    if most and n > most:
        rows = np.sort(np.random.default_rng(seed).choice(n, most, replace=False))
    found = Inspected(Path(spec).name or spec, source, rows, rejected=rejected, about=about)
    found.unsafe = _unsafe(table)
    hashes, at = [], []
    texts: Counter[str] = Counter()
    vocabulary: Counter[str] = Counter()
    for row in rows.tolist():
        try:
            sample = source[row]
        except BadSample as bad:
            found.unreadable[bad.reason.partition(":")[0]] += 1
            continue
        _read_captions(found, sample, texts, vocabulary)
        found.tagged += is_unsafe(found, sample)
        if "image" in source.gives:
            value = _read_picture(found, sample, limits)
            if value is not None:
                hashes.append(value)
                at.append(row)
    found.repeated = [(text, count) for text, count in texts.most_common(20) if count > 1]
    found.frequent = vocabulary.most_common(30)
    of = near_copies(np.array(hashes, np.uint64), hash_bits)
    found.copies = [(at[place], at[int(first)]) for place, first in enumerate(of) if first >= 0]
    return found


def _open(
    spec: str, options: dict[str, Any]
) -> tuple[Source, Path | None, dict[str, dict[str, int]], dict[str, Any]]:
    """(source, table that tags samples, what was rejected on the way, facts)."""
    import pyarrow.parquet as pq

    folder = Path(spec)
    if (folder / VALIDATED).exists():
        done = read_json(folder / VALIDATED)
        reasons = Counter(pq.read_table(folder / REJECTED)["reason"].to_pylist())
        rejected = {"not fetched": done["not_fetched"], "not valid": dict(reasons)}
        about = {f"split {name}": count for name, count in done["splits"].items()}
        about |= {f"captions: {k}": v for k, v in done["captions"].items() if k != "kept"}
        source = open_source(f"table:{folder / TABLE}", **options)
        return source, folder / TABLE, rejected, about
    if (folder / FETCHED).exists():
        done = read_json(folder / FETCHED)
        lost = {k: v for k, v in done["status"].items() if k != "ok"}
        spec, table = f"webdataset:{folder}/*/*.tar", folder / LEDGER
        if done["layout"] == "folder":
            spec, table = f"table:{folder / TABLE}", folder / TABLE
        return open_source(spec, **options), table, {"not fetched": lost}, {}
    source = open_source(spec, **options)
    path = Path(spec.partition(":")[2] or spec)
    return source, path if path.suffix == ".parquet" and path.is_file() else None, {}, {}


def _unsafe(table: Path | None) -> frozenset[str]:
    """Names under which samples may go that a column nsfw tags as anything but safe."""
    import pyarrow.parquet as pq

    if table is None:
        return frozenset()
    known = pq.read_schema(table).names
    tag = next((name for name in known if name.lower() == "nsfw"), None)
    if tag is None:
        return frozenset()
    names = [name for name in ("id", "key", "image", "url") if name in known]
    rows = pq.read_table(table, columns=[tag, *names]).to_pylist()
    tagged = [row for row in rows if row[tag] is not None and str(row[tag]).upper() not in SAFE]
    return frozenset(str(row[name]) for row in tagged for name in names if row[name] is not None)


def is_unsafe(found: Inspected, sample: Sample) -> bool:
    """Whether a sample is tagged as possibly unsafe."""
    return bool(found.unsafe) and bool({sample.id, sample.id.rpartition("/")[2]} & found.unsafe)


def _read_captions(
    found: Inspected, sample: Sample, texts: Counter[str], vocabulary: Counter[str]
) -> None:
    found.captions.append(len(sample.texts))
    texts.update(set(sample.texts))
    for text in sample.texts:
        words = text.split()
        found.characters.append(len(text))
        found.words.append(len(words))
        found.scripts[script_of(text[:2000])] += 1
        vocabulary.update({word.strip(".,;:!?\"'()[]").lower() for word in words[:200]} - {""})


def _read_picture(found: Inspected, sample: Sample, limits: Limits) -> int | None:
    try:
        decoded = decode_sample(sample, limits, 2 * SIDE)
    except BadSample as bad:
        found.unreadable[bad.reason.partition(":")[0]] += 1
        return None
    height, width = decoded.full_size
    found.sides.append(min(height, width))
    found.aspects.append(width / height)
    size = _bytes(sample.image)
    if size:
        found.sizes.append(size)
    return perceptual_hash(decoded.pixels)


def _bytes(image: Any) -> int:
    if isinstance(image, bytes):
        return len(image)
    if isinstance(image, Path):
        return image.stat().st_size
    return int(getattr(image, "size", 0)) if not hasattr(image, "mode") else 0


def drawn(found: Inspected, count: int, seed: int = 0) -> Sequence[int]:
    """Positions of random samples, out of those looked at."""
    count = min(count, len(found.rows))
    return np.sort(
        np.random.default_rng([seed, 1]).choice(found.rows, count, replace=False)
    ).tolist()
