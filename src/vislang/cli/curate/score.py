"""vislang curate score: judge every image of a collection, keep the best of each domain."""

import sys
import time
from pathlib import Path


def score(
    collection: str,
    *,
    classifier: Path,
    out: Path,
    k: int = 140_000,
    array: str = "img_emb",
    full: str = "",
    nsfw: bool = False,
    min_similarity: float = 0.0,
    min_side: int = 0,
    languages: tuple[str, ...] = (),
    licences: tuple[str, ...] = (),
    blocked_urls: str = "",
    blocked_hashes: str = "",
    skip_bad: bool = False,
    engine: str = "serial",
    workers: int = 2,
    precision: str = "auto",
    block: int = 4096,
) -> None:
    """Stream a collection through a classifier of domains; writes OUT/top.parquet.

    The same command again goes on where it stopped. Filters concern parts whose metadata has the
    column; rows tagged unsafe, opted out or without a caption are left out unless asked for.

    Args:
        collection: folder with img_emb_*.npy and metadata_*.parquet.
        classifier: folder of `vislang curate classifier`.
        out: folder to fill.
        k: images to keep of each domain.
        array: img_emb, or text_emb to judge the captions.
        full: also write all log-probabilities, float32 or float16.
        nsfw: keep also what is tagged unsafe.
        min_similarity: least noted similarity of image and caption.
        min_side: least shorter side in pixels.
        languages: keep these alone.
        licences: keep these alone.
        blocked_urls: file with a URL or host a line.
        blocked_hashes: file with an image hash a line.
        skip_bad: go on without parts that are torn or of another width.
        engine: serial, processes or ray (RAY_ADDRESS names a cluster).
        workers: processes.
        precision: auto, fp32 or bf16.
        block: rows at a time.
    """
    from vislang.curate.classifier import load_classifier
    from vislang.curate.collections import open_collection
    from vislang.curate.filters import Filters
    from vislang.curate.score import Scoring, score_collection

    opened = open_collection(collection, array=array)
    filters = Filters(
        nsfw=not nsfw, min_similarity=min_similarity, min_side=min_side, languages=languages,
        licences=licences, blocked_urls=blocked_urls, blocked_hashes=blocked_hashes,
    )  # fmt: skip
    done = score_collection(
        opened, load_classifier(classifier), out, Scoring(k, filters, full, precision, block),
        engine=engine, workers=workers, skip_bad=skip_bad, on_rows=Pace(len(opened)),
    )  # fmt: skip
    print(f"\nScored {done['rows']:,} rows in {done['parts']} parts: {out}")
    print(f"  not finite: {done['refused']:,}")
    for name, count in done["filtered"].items():
        print(f"  filter {name}: {count:,}")
    for name, reason in done["left_out"].items():
        print(f"  left out: {name}: {reason}")
    print(f"Next: vislang curate sample {out} --out SAMPLE")


class Pace:
    """Rows and bytes a second and the time that is left, on one line of a terminal."""

    def __init__(self, total: int):
        self.total, self.rows, self.bytes, self.began, self.shown = (
            total,
            0,
            0,
            time.monotonic(),
            0.0,
        )

    def __call__(self, rows: int, size: int) -> None:
        self.rows, self.bytes = self.rows + rows, self.bytes + size
        now = time.monotonic()
        if now - self.shown > 1 or self.rows >= self.total:
            self.shown = now
            print(f"\r{self.line(now - self.began)}", end="", file=sys.stderr, flush=True)

    def line(self, seconds: float) -> str:
        """What is shown after so many seconds."""
        rate = self.rows / max(seconds, 1e-9)
        left = (self.total - self.rows) / max(rate, 1e-9)
        return (
            f"{self.rows:,} of {self.total:,} rows, {rate:,.0f} rows/s,"
            f" {self.bytes / max(seconds, 1e-9) / 1e9:.2f} GB/s, {left:,.0f} s left"
        )
