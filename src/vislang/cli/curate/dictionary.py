"""vislang curate dictionary: list image and caption of a RedCaps-like folder in one file."""

from pathlib import Path


def dictionary(
    path: Path,
    *,
    out: Path,
    split: str = "",
    year: int = 0,
    caption: str = "caption",
    max_bytes: int = 0,
    max_aspect: float = 0.0,
) -> None:
    """List a folder of RedCaps, CC3M or CC12M as one file: image and caption of each instance.

    Args:
        path: the root; below it [SPLIT/]FOLDER/ID.jpg beside ID.json.
        out: .json for the language-guided code's form; .parquet or .csv for a table that
            `table:OUT` opens.
        split: a folder right below the root.
        year: only folders <subreddit>_<year>_<number> of that year.
        caption: its key in the JSON files.
        max_bytes: leave out larger image files; 0 takes all.
        max_aspect: leave out images longer than this many times their width; 0 does not look.
    """
    from vislang.curate.dictionary import make_dictionary

    made = make_dictionary(
        path, out, split=split, year=year, caption=caption, max_bytes=max_bytes,
        max_aspect=max_aspect,
    )  # fmt: skip
    print(f"Dictionary: {out} ({made.instances:,} instances in {made.folders:,} folders)")
    for reason, count in sorted(made.skipped.items()):
        print(f"  skipped: {count:,} ({reason})")
