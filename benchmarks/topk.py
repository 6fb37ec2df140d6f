"""The running top-K against a full sort of all scores: the same rows, time, and memory.

    python benchmarks/topk.py [--rows 10000000] [-k 150000]

One domain, scores as a stream of blocks of 16,384 with many exact ties.  The gate: the same set in
the same order as numpy's lexsort by (score, key).
"""

import argparse
import time
from typing import Any

import numpy as np

BLOCK = 16_384


def main() -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("-k", type=int, default=150_000)
    given = parser.parse_args()
    from vislang.curate.topk import TopK

    rng = np.random.default_rng(0)
    scores = np.round(rng.standard_normal((given.rows, 1), dtype=np.float32), 4)
    keys = np.arange(given.rows)
    began = time.perf_counter()
    top = TopK(1, given.k)
    for first in range(0, given.rows, BLOCK):
        top.add(scores[first : first + BLOCK], keys[first : first + BLOCK])
    best = top.best(0)[1]
    ours = time.perf_counter() - began
    began = time.perf_counter()
    order = np.lexsort((keys, scores[:, 0]))[::-1][: given.k]
    full = time.perf_counter() - began
    assert (best == order).all(), "the top K differ from those of a full sort"
    return [
        {"case": f"{given.rows:,} rows, top {given.k:,}", "value": ours, "unit": "s",
         "reference": full, "reference_is": "numpy.lexsort of everything", "ratio": full / ours},
        {"case": "memory of the buffers", "value": top.nbytes / 2**20, "unit": "MiB",
         "reference": given.rows * 12 / 2**20, "reference_is": "all scores and keys",
         "target": "<= 32 bytes x k", "met": top.nbytes <= 32 * given.k},
    ]  # fmt: skip


if __name__ == "__main__":
    for row in main():
        print(row)
