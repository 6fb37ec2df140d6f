"""Memory and start of a table of 12 million pairs as a source.

The reference is the released language-guided code's: JSON lists of names, 1.3 kB resident a pair
after loading and 9.8 s of processor time for each million (measured on 9-word captions; its own
record, not repeated here). The table has one neighbour for each sample, which is the dearest case.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from memory import held

PAIRS = 12_000_000
THEIRS_BYTES, THEIRS_S = 1300, 9.8  # a pair; a million pairs


class Numbers:
    """A source that is nothing but its length."""

    name, fingerprint = "numbers", "numbers"
    gives, classes = frozenset({"image", "text"}), ()

    def __init__(self, path: str = ""):
        self.n = int(path or 0)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Any:
        from vislang.data.sample import Sample

        return Sample(str(index), None)

    def shards(self) -> list[range]:
        return [range(self.n)]


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Rows for benchmarks/run.py."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=PAIRS)
    options = parser.parse_args(arguments)
    import gc

    import numpy as np
    import pyarrow as pa

    from vislang.data.pairs import PairTable
    from vislang.data.sources import pairs

    n = options.pairs
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "nn.parquet"
        rng = np.random.default_rng(0)
        rows = np.arange(n, dtype=np.int32)
        about = {"source": {"fingerprint": "numbers", "spec": "numbers"}}
        target, value = rng.permutation(rows), rng.random(n, dtype=np.float32)
        PairTable(rows, target, value, np.zeros(n, np.int16), about).write(path)
        size = path.stat().st_size
        del rows, target, value
        pairs._open = lambda *_: Numbers(str(n))  # type: ignore[assignment]
        gc.collect()
        pa.default_memory_pool().release_unused()
        before, start = held(), time.process_time()
        source = pairs.Pairs(str(path))
        took = time.process_time() - start
        gc.collect()
        pa.default_memory_pool().release_unused()
        each = (held() - before) / n
        draw = np.random.default_rng(1)
        start = time.perf_counter()
        for index in range(0, n, max(1, n // 10_000)):
            source.partner(index, draw)
        drawn = (time.perf_counter() - start) / min(n, 10_000)
    found = [{
        "case": f"{n:,} pairs in memory",
        "value": round(source.bytes_per_pair, 1),
        "unit": "bytes/pair",
        "reference": THEIRS_BYTES,
        "reference_is": "the original's JSON (its record)",
        "ratio": round(THEIRS_BYTES / source.bytes_per_pair),
        "target": "<= 32 bytes",
        "met": max(source.bytes_per_pair, each) <= 32,
        "resident_bytes_a_pair": round(each, 1),
        "file_bytes_a_pair": round(size / n, 1),
        "start_cpu_s": round(took, 2),
        "their_start_cpu_s": round(THEIRS_S * n / 1e6, 1),
        "draw_us": round(drawn * 1e6, 1),
    }]  # fmt: skip
    print(json.dumps(found))
    return found


if __name__ == "__main__":
    main()
