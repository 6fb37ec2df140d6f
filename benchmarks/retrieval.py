"""Retrieval metrics on 5,000 images x 25,000 captions: ours beside clip-benchmark's function.

Both score the same unit vectors in child processes with one thread, in alternating order; each
child reports its CPU seconds and its peak memory above what it held before scoring. Both get
float32 embeddings that are already normalised, and both start from them: clip-benchmark's
`evaluate` is given a "model" that returns them and batches of one image with five captions
each, of 64 images, so that its own batching is used.

The gate comes first: all recalls must be identical.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

IMAGES, CAPTIONS, WIDTH, KS = 5_000, 5, 512, (1, 5, 10)
NOISE = 6.5  # makes image-to-text recall at 1 neither 0 nor 1
POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
THREADS = dict.fromkeys(POOLS, "1")


def make_embeddings(images: int = IMAGES, captions: int = CAPTIONS):
    """Unit vectors; each caption is its image plus noise."""
    import numpy as np

    rng = np.random.default_rng(0)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    image = unit(rng.standard_normal((images, WIDTH), dtype=np.float32))
    owner = np.repeat(np.arange(images), captions)
    noise = rng.standard_normal((len(owner), WIDTH), dtype=np.float32) / WIDTH**0.5
    return image, unit(image[owner] + np.float32(NOISE) * noise), owner


def score_ours(image, text, owner) -> dict[str, float]:
    """vislang.metrics.rank."""
    from vislang.metrics.rank import retrieval

    found = retrieval(image, text, owner, KS)
    return {name: value for name, value in found.items() if "@" in name}


def score_theirs(image, text, owner) -> dict[str, float]:
    """clip_benchmark.metrics.zeroshot_retrieval.evaluate."""
    import torch
    from clip_benchmark.metrics import zeroshot_retrieval

    class Given:
        """Stands for a model whose embeddings are known: the inputs are row numbers."""

        def encode_image(self, rows):
            return torch.from_numpy(image)[rows]

        def encode_text(self, rows):
            return torch.from_numpy(text)[rows]

    first = list(range(0, len(text), CAPTIONS))
    batches = [
        (torch.arange(at, min(at + 64, len(image))), [
            list(range(first[i], first[i] + CAPTIONS)) for i in range(at, min(at + 64, len(image)))
        ])
        for at in range(0, len(image), 64)
    ]  # fmt: skip
    found = zeroshot_retrieval.evaluate(
        Given(), batches, torch.tensor, "cpu", amp=False, recall_k_list=list(KS)
    )
    ways = {"image_to_text": "text_retrieval", "text_to_image": "image_retrieval"}
    return {f"{ours}@{k}": found[f"{way}_recall@{k}"] for ours, way in ways.items() for k in KS}


def measure(side: str) -> dict[str, Any]:
    """Run one side in this process: its recalls, CPU seconds and peak memory above the start."""
    given = make_embeddings()
    tiny = make_embeddings(64)
    score = {"ours": score_ours, "theirs": score_theirs}[side]
    score(*tiny)  # imports and BLAS buffers belong to nobody
    if os.path.exists("/proc/self/clear_refs"):
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak so far (making the data) does not count
    before = _memory("VmRSS")
    start, wall = time.process_time(), time.perf_counter()
    recalls = score(*given)
    return {
        "recalls": recalls,
        "cpu_s": time.process_time() - start,
        "wall_s": time.perf_counter() - wall,
        "peak_mb": (_memory("VmHWM") - before) / 1024,
    }


def _memory(field: str) -> float:
    """KiB from the kernel's account of this process."""
    try:
        with open("/proc/self/status") as file:
            return next(float(line.split()[1]) for line in file if line.startswith(field))
    except OSError:
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def run_child(side: str) -> dict[str, Any]:
    """The same in a child of its own, one thread."""
    done = subprocess.run(
        [sys.executable, __file__, "--side", side],
        env=os.environ | THREADS,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def check(ours: dict[str, float], theirs: dict[str, float]) -> None:
    """The gate: the same number of hits. (clip-benchmark takes its means in float32.)"""
    half_a_hit = 0.5 / (IMAGES * CAPTIONS)
    wrong = {k: (ours[k], theirs[k]) for k in ours if abs(ours[k] - theirs[k]) > half_a_hit}
    if wrong:
        raise SystemExit(f"the recalls differ, so no timing counts: {wrong}")


def main(arguments: list[str] | None = None) -> list[dict[str, Any]] | dict[str, Any]:
    """Rows for benchmarks/run.py: processor time and peak memory, ours beside clip-benchmark's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--side", choices=("ours", "theirs"), help="one side, in this process")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    if options.side:
        result = measure(options.side)
        print(json.dumps(result))
        return result
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
    for repeat in range(options.repeats):
        for side in ("ours", "theirs") if repeat % 2 == 0 else ("theirs", "ours"):
            runs[side].append(run_child(side))
        check(runs["ours"][-1]["recalls"], runs["theirs"][-1]["recalls"])
    middle = {
        side: {key: statistics.median(run[key] for run in each) for key in ("cpu_s", "peak_mb")}
        for side, each in runs.items()
    }
    rows = []
    for key, case, unit, target in (
        ("cpu_s", "processor time", "CPU-s", 4.0),
        ("peak_mb", "peak memory above the start", "MB", 20.0),
    ):
        ours, theirs = middle["ours"][key], middle["theirs"][key]
        rows.append({
            "case": f"{IMAGES:,} images x {IMAGES * CAPTIONS:,} captions: {case}",
            "value": round(ours, 2),
            "unit": unit,
            "reference": round(theirs, 2),
            "reference_is": "clip-benchmark",
            "ratio": round(theirs / ours, 1),
            "target": f">= {target:g}x less",
            "met": theirs / ours >= target,
            "repeats": options.repeats,
        })  # fmt: skip
    rows[0]["image_to_text@1"] = runs["ours"][0]["recalls"]["image_to_text@1"]
    print(json.dumps(rows))
    return rows


if __name__ == "__main__":
    main()
