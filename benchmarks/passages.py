"""Exact search of a collection of passages: 1,000,000 rows of width 384, 1,000 queries.

The rows lie in memory, as if read from the stores, and are handed over in blocks, with an id each;
so the time is that of `vislang.evaluate.passages.search`: products, the best 100, ids compared.
Beside it faiss's flat index, which holds the same rows once more. One thread each by default, in
child processes. Memory is the peak of the process with the array in it.

The gate: for 50 queries the 100 answers are those of a full sort in float64, up to scores that
float32 cannot tell apart.

    python benchmarks/passages.py [--rows 1000000] [--queries 1000] [--threads 1]
"""

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

ROWS, QUERIES, WIDTH, K = 1_000_000, 1_000, 384, 100
COLLECTION = 8_841_823  # passages of MS MARCO
POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def make_rows(n: int, seed: int):
    """Unit rows around a common centre, as those of sentence models are."""
    import numpy as np

    rng = np.random.default_rng(seed)
    centre = np.random.default_rng(99).standard_normal(WIDTH).astype(np.float32)
    rows = np.empty((n, WIDTH), np.float32)
    for first in range(0, n, 50_000):
        part = rows[first : first + 50_000]
        rng.standard_normal(out=part, dtype=np.float32)
        part += np.float32(0.5) * centre
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return rows


def search_ours(rows, asked):
    """vislang.evaluate.passages: blocks of 16,384 rows."""
    from vislang.evaluate.passages import search

    def block(texts):
        return rows[int(texts[0]) : int(texts[-1]) + 1]

    numbered = ((f"passage-{i}", str(i)) for i in range(len(rows)))
    return search(asked, numbered, block, k=K)[0]


def search_theirs(rows, asked):
    """faiss.IndexFlatIP, all queries at once."""
    import faiss

    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    return index.search(asked, K)[1]


def measure(side: str, n: int, queries: int, threads: int) -> dict[str, Any]:
    """One side in this process: seconds, peak memory, and the gate."""
    if side == "theirs":
        import faiss

        faiss.omp_set_num_threads(threads)
    rows, asked = make_rows(n, 0), make_rows(queries, 1)
    score = {"ours": search_ours, "theirs": search_theirs}[side]
    score(rows[:1000], asked[:10])  # imports and buffers of BLAS belong to nobody
    began = time.perf_counter()
    found = score(rows, asked)
    seconds = time.perf_counter() - began
    peak = _peak_bytes()  # before the gate, which takes memory of its own
    return {
        "seconds": seconds, "peak": peak, "array": rows.nbytes,
        "wrong": wrong_answers(rows, asked[:50], found[:50]),
    }  # fmt: skip


def wrong_answers(rows, asked, found) -> int:
    """Answers whose score is below the true 100th best by more than float32's rounding."""
    import numpy as np

    wrong = 0
    for query, places in zip(asked.astype(np.float64), found):
        score = np.concatenate([
            rows[first : first + 50_000].astype(np.float64) @ query
            for first in range(0, len(rows), 50_000)
        ])  # fmt: skip
        least = np.partition(score, len(score) - len(places))[-len(places)]
        wrong += int((score[places] < least - 1e-6).sum()) + len(places) - len(set(places.tolist()))
    return wrong


def _peak_bytes() -> int:
    import resource

    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib * (1 if sys.platform == "darwin" else 1024)


def run_child(side: str, n: int, queries: int, threads: int) -> dict[str, Any]:
    """The same in a child of its own."""
    command = [sys.executable, __file__, "--side", side, "--rows", str(n)]
    command += ["--queries", str(queries), "--threads", str(threads)]
    environment = os.environ | dict.fromkeys(POOLS, str(threads))
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(
    n: int = ROWS, queries: int = QUERIES, threads: int = 1, peer: bool = True
) -> list[dict[str, Any]]:
    """Rows for benchmarks/run.py: queries a second, and peak memory over the array."""
    ours = run_child("ours", n, queries, threads)
    theirs = run_child("theirs", n, queries, threads) if peer else None
    if ours["wrong"]:
        raise SystemExit(f"{ours['wrong']} answers are not among the best: no timing counts")
    case = f"{n:,} x {WIDTH} passages, {queries:,} queries, best {K}, {threads} thread(s)"
    rate, grown = queries / ours["seconds"], ours["peak"] / ours["array"]
    hours = ours["seconds"] * COLLECTION / n / 3600
    shared = {"gate": "50 queries against a full sort in float64: no wrong answer"}
    speed = {
        "case": f"{case}: speed", "value": round(rate, 1), "unit": "queries/s",
        "target": "", "met": None,
        "seconds": round(ours["seconds"], 1),
        "ms_marco": f"{COLLECTION:,} passages, as measured here: {rate * n / COLLECTION:.2f}"
        f" queries/s, {hours:.2f} h for {queries:,}", **shared,
    }  # fmt: skip
    if theirs:
        ratio = theirs["seconds"] / ours["seconds"]
        speed |= {
            "reference": round(queries / theirs["seconds"], 1), "reference_is": "faiss flat index",
            "ratio": round(ratio, 3),
        }  # fmt: skip
    memory = {
        "case": f"{case}: peak memory of the process", "value": round(ours["peak"] / 1e6),
        "unit": "MB", "reference": round(ours["array"] / 1e6), "reference_is": "the array itself",
        "ratio": round(grown, 3), "target": "<= 2", "met": grown <= 2,
    }  # fmt: skip
    if theirs:
        memory["faiss_mb"] = round(theirs["peak"] / 1e6)
    return [speed, memory]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", default="")
    parser.add_argument("--alone", action="store_true", help="without faiss")
    given = parser.parse_args()
    if given.side:
        print(json.dumps(measure(given.side, given.rows, given.queries, given.threads)))
    else:
        for line in main(given.rows, given.queries, given.threads, not given.alone):
            print(json.dumps(line))
