"""Chunked step against the whole-batch step: same gradient, memory of one chunk, how much time.

Batch 2,048 in chunks of 64, two transformer towers, fp32.  Each variant runs in a child process of
its own, so that its peak memory is its own.  Gate: ||g - g'|| <= 1e-6 ||g||.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCH, CHUNK, REPEATS, THREADS = 2048, 64, 5, 2
VARIANTS = {"one chunk alone": (CHUNK, 0), "chunked": (BATCH, CHUNK), "whole": (BATCH, 0)}


def child(variant: str, out: Path) -> None:
    """One variant: prints seconds a step and peak memory; keeps the gradient of the batch."""
    import torch

    torch.set_num_threads(THREADS)
    from safetensors.torch import save_file

    from vislang.config import ModelConfig, TowerConfig
    from vislang.models.build import build_model
    from vislang.objectives.infonce import InfoNCE
    from vislang.train.step import backward

    image = {"image_size": 32, "patch": 8, "width": 192, "depth": 6, "heads": 3}
    text = {"tokenizer": "bytes", "context": 16, "width": 192, "depth": 3, "heads": 3}
    rows, chunk = VARIANTS[variant]
    torch.manual_seed(0)
    towers = TowerConfig("scratch_vit", image), TowerConfig("scratch_text", text)
    model, objective = build_model(ModelConfig(*towers, width=128)), InfoNCE()
    batch = {
        "image": torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8)[:rows],
        "text": torch.randint(1, 255, (BATCH, 16))[:rows],
    }
    model.train()
    backward(model, objective, {k: v[:2] for k, v in batch.items()})  # kernels, gradient memory
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for repeat in range(REPEATS):
        for parameter in model.parameters():
            parameter.grad = None
        start = time.perf_counter()
        backward(model, objective, batch, chunk)
        seconds.append(time.perf_counter() - start)
        if repeat == 0:
            save_file({n: p.grad for n, p in model.named_parameters()}, out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps({"seconds": seconds, "peak_mb": peak / 1024, "step_mb": (peak - before) / 1024})
    )


def run(variant: str, out: Path) -> dict:
    """A variant in its own process."""
    command = [sys.executable, __file__, variant, str(out)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def difference(left: Path, right: Path) -> float:
    """||g - g'|| / ||g|| over all parameters."""
    from safetensors.torch import load_file

    a, b = load_file(left), load_file(right)
    apart = sum(((a[k].double() - b[k].double()) ** 2).sum() for k in a)
    return float((apart / sum((v.double() ** 2).sum() for v in b.values())).sqrt())


def main() -> list[dict]:
    """Run all variants, check the gradients, print one JSON line."""
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{i}.safetensors" for i, name in enumerate(VARIANTS)}
        found = {name: run(name, files[name]) for name in VARIANTS}
        apart = difference(files["chunked"], files["whole"])
    if apart > 1e-6:
        raise SystemExit(f"gate: the chunked gradient is off by {apart:.2e} of its norm")
    middle = {name: sorted(r["seconds"])[len(r["seconds"]) // 2] for name, r in found.items()}
    seconds = {name: round(s, 3) for name, s in middle.items()}
    peaks = {name: round(r["peak_mb"]) for name, r in found.items()}
    gate = f"gradient differs by {apart:.1e} of its norm (allowed 1e-6)"
    shared = {"case": "batch 2,048 in chunks of 64, fp32, 2 threads", "gate": gate}
    time_ratio = seconds["chunked"] / seconds["whole"]
    memory_ratio = peaks["chunked"] / peaks["one chunk alone"]
    results = [
        shared
        | {
            "value": seconds["chunked"],
            "unit": "s a step",
            "reference": seconds["whole"],
            "reference_is": "whole batch with its graph",
            "ratio": round(time_ratio, 3),
            "target": "<= 1.4",
            "met": time_ratio <= 1.4,
        },
        shared
        | {
            "value": peaks["chunked"],
            "unit": "MB peak of the process",
            "reference": peaks["one chunk alone"],
            "reference_is": f"a step of 64 alone (whole batch: {peaks['whole']:,} MB)",
            "ratio": round(memory_ratio, 3),
            "target": "<= 1.3",
            "met": memory_ratio <= 1.3,
            "above_start_mb": {name: round(r["step_mb"]) for name, r in found.items()},
        },
    ]
    for result in results:
        print(json.dumps(result))
    return results


if __name__ == "__main__":
    if len(sys.argv) == 3:
        child(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
