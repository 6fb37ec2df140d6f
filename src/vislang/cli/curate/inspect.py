"""vislang curate inspect: a page on what a source holds."""

from pathlib import Path
from typing import Any


def inspect(
    source: str,
    *,
    out: Path,
    options: dict[str, Any] | None = None,
    most: int = 2000,
    shown: int = 48,
    hash_bits: int = 4,
    nsfw: bool = False,
    seed: int = 0,
) -> None:
    """Look at a source: counts, sizes, captions, scripts, copies, what was left out, samples.

    Args:
        source: any source, or a folder of `vislang curate fetch` or `vislang curate validate`.
        out: the page to write.
        options: of the source, such as split or columns.
        most: samples to look at, drawn at random; 0: all.
        shown: random samples on the page.
        hash_bits: pictures whose perceptual hashes differ in at most this many of 64 bits are
            copies; -1 does not look.
        nsfw: show also pictures that are tagged as possibly unsafe.
        seed: of the draws.
    """
    from vislang.curate.inspect import inspect_source
    from vislang.report.inspected import write_inspected

    found = inspect_source(source, options, most=most, hash_bits=hash_bits, seed=seed)
    page = write_inspected(found, out, shown=shown, nsfw=nsfw, seed=seed)
    print(f"{len(found.source):,} samples, {len(found.rows):,} looked at")
    for reason, count in found.unreadable.most_common():
        print(f"  unreadable, {reason}: {count:,}")
    print(f"  near copies: {len(found.copies):,}")
    print(f"Page: {page}")
