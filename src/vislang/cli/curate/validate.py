"""vislang curate validate: fetched pictures to one clean table with splits."""

from pathlib import Path


def validate(
    pictures: Path,
    *,
    out: Path,
    min_side: int = 112,
    max_caption: int = 1000,
    captions: bool = True,
    hash_bits: int = 4,
    shares: dict[str, float] | None = None,
    split_by: str = "sha256",
    engine: str = "serial",
    workers: int = 2,
) -> None:
    """Decode every fetched picture, leave copies out, clean captions, and draw splits.

    Writes OUT/pictures.parquet, which opens as a source (table:OUT/pictures.parquet, with
    --data.train_options.split train), and OUT/rejected.parquet with a reason a row. The same
    command again checks only what was fetched since.

    Args:
        pictures: folder of `vislang curate fetch`.
        out: folder to fill; move it together with PICTURES.
        min_side: pixels of the shorter side of what was fetched, before it was scaled.
        max_caption: characters of a caption; a longer one is cut before a word.
        captions: leave out pictures without one.
        hash_bits: pictures whose perceptual hashes differ in at most this many of 64 bits are
            copies of which the first stays; -1 does not look.
        shares: split -> share; by default {train: 0.98, valid: 0.01, test: 0.01}.
        split_by: whose hash decides the split, so that it never changes: sha256 (of what came)
            or id.
        engine: serial, processes or ray.
        workers: processes.
    """
    from vislang.curate.validate import Validation, validate_pictures

    how = Validation(min_side, max_caption, captions, hash_bits, split_by=split_by)
    if shares:
        how = Validation(min_side, max_caption, captions, hash_bits, shares, split_by)
    done = validate_pictures(
        pictures, out, how, engine=engine, workers=workers,
        on_done=lambda unit, note: print(f"{unit}: {note['rows']:,} pictures", flush=True),
    )  # fmt: skip
    print(f"Kept {done['kept']:,} of {done['fetched']:,} pictures: {out}/pictures.parquet")
    for what in ("rejected", "captions", "splits"):
        for name, count in sorted(done[what].items(), key=lambda item: -item[1]):
            print(f"  {what}, {name}: {count:,}")
    print(f"Next: vislang curate inspect {out} --out {out}/report.html, or train on")
    print(f"  table:{out}/pictures.parquet --data.train_options.split train")
