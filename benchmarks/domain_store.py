"""A store of 1,000,008 pairs (55,556 images x 18 domains) of width 512: random keys, streaming.

Random keys: 10,000 pairs (image, domain), warm. Streaming: the whole store through
`DomainStore.stream`, with the kernel's cache dropped for its files, against plain
reads of the same files in blocks of 8 MiB, in turn. Gate: what was written is what is read.
It needs 2 GB of disk, in the folder TMPDIR.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

IMAGES, DOMAINS, WIDTH, PART, KEYS = 55_556, 18, 512, 4096, 10_000
BLOCK = 8 << 20


def rows_of(part: int, count: int) -> np.ndarray:
    """What part `part` holds, made anew whenever it is asked for."""
    rng = np.random.default_rng(part)
    return rng.standard_normal((DOMAINS, count, WIDTH), dtype=np.float32)


def write(folder: Path, images: int) -> None:
    """The store, through the library's writer."""
    from vislang.store import DomainWriter

    domains = [{"name": f"d{k}", "templates": ["a {}"]} for k in range(DOMAINS)]
    writer, notes = DomainWriter(folder, domains), []
    for part, at in enumerate(range(0, images, PART)):
        here = range(at, min(at + PART, images))
        ids = [f"image-{k:08d}" for k in here]
        notes.append(writer.write_images(f"{part:04d}", rows_of(part, len(here)), ids,
                                         np.zeros(len(here)), here))  # fmt: skip
    writer.finish(notes)


def check(store, images: int) -> None:
    """The gate: keys of three parts, and one domain of one part, hold what was written."""
    last = (images - 1) // PART
    for part in sorted({0, last // 2, last}):
        count = min(PART, images - part * PART)
        there = rows_of(part, count)
        pick = np.random.default_rng(1).integers(0, (DOMAINS, count), (200, 2))
        got = store.take(part * PART + pick[:, 1], pick[:, 0])
        if not (got == there[pick[:, 0], pick[:, 1]]).all():
            raise SystemExit(f"keys of part {part} read other rows than were written")
        begin = part * PART
        if not (store.rows("d3")[begin : begin + count] == there[3]).all():
            raise SystemExit(f"domain d3 of part {part} reads other rows than were written")


def random_keys(store, images: int, repeats: int) -> list[float]:
    """Seconds for 10,000 keys; the first round warms up."""
    rng, took = np.random.default_rng(0), []
    image, domain = rng.integers(0, images, KEYS), rng.integers(0, DOMAINS, KEYS)
    for _ in range(repeats + 1):
        start = time.perf_counter()
        store.take(image, domain)
        took.append(time.perf_counter() - start)
    return took[1:]


def drop(files: list[Path]) -> None:
    """Leave these files out of the kernel's cache."""
    os.sync()
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def plain_read(files: list[Path]) -> int:
    """Bytes of all files, through one buffer."""
    buffer, total = bytearray(BLOCK), 0
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while count := file.readinto(buffer):
                total += count
    return total


def streamed(folder: Path) -> int:
    """Bytes of all rows, block by block, each copied once as a consumer would."""
    from vislang.store import DomainStore

    store, total = DomainStore(folder), 0
    into = np.empty((BLOCK // (4 * WIDTH), WIDTH), np.float32)
    for block in store.stream(len(into)):
        into[: len(block.rows)] = block.rows
        total += block.rows.nbytes
    return total


def main(arguments: list[str] | None = None) -> list[dict]:
    """Rows for benchmarks/run.py."""
    from vislang.store import DomainStore

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    images = options.images
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "store"
        write(folder, images)
        files = sorted(folder.glob("img_emb/*.npy"))
        size = sum(path.stat().st_size for path in files)
        opened = time.perf_counter()
        store = DomainStore(folder)
        opened = time.perf_counter() - opened
        check(store, images)
        keys = statistics.median(random_keys(store, images, options.repeats))
        del store
        rates: dict[str, list[float]] = {"plain": [], "store": []}
        for _ in range(options.repeats):
            for name, read in (("plain", lambda: plain_read(files)),
                               ("store", lambda: streamed(folder))):  # fmt: skip
                drop(files)
                start = time.perf_counter()
                if read() < size * 0.999:
                    raise SystemExit(f"{name}: not all bytes were read")
                rates[name].append(size / 1e6 / (time.perf_counter() - start))
    plain, ours = (statistics.median(rates[name]) for name in ("plain", "store"))
    rows = [
        {
            "case": f"{KEYS:,} random (image, domain) of {images * DOMAINS:,}, warm",
            "value": round(keys, 4), "unit": "s", "target": "< 1 s", "met": keys < 1,
            "open_s": round(opened, 3),
        },
        {
            "case": f"streaming {size / 1e9:.2g} GB, cold",
            "value": round(ours), "unit": "MB/s", "reference": round(plain),
            "reference_is": "plain reads", "ratio": round(ours / plain, 3),
            "target": ">= 0.8", "met": ours / plain >= 0.8, "repeats": options.repeats,
        },
    ]  # fmt: skip
    print(json.dumps(rows))
    return rows


if __name__ == "__main__":
    main()
