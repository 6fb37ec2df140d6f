"""InfoNCE and SigLIP without the B x B matrix: peak memory, time and gradient against plain ones.

B = 16,384 pairs, D = 512, fp32, forward and backward.  Each variant runs in child processes of its
own, in alternating order, so that peak memory is its own.  Plain is the same objective with a block
of B rows.  Gates: losses equal to 1e-6 and gradients to 1e-6 of their norm.  Then B = 65,536, where
the plain matrix alone would take 16 GiB.

    python benchmarks/blockwise.py [--pairs 16384] [--width 512] [--large 65536] [--repeats 3]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

THREADS = 2


def child(name: str, pairs: int, width: int, block: int, out: Path) -> None:
    """One forward and backward: prints seconds and peak memory, keeps loss and gradients."""
    import resource
    import time

    import torch
    from safetensors.torch import save_file

    from vislang.config import ObjectiveConfig
    from vislang.objectives.build import build_objective

    torch.set_num_threads(THREADS)
    objective = build_objective(ObjectiveConfig(name, {"block": block}), width)
    generator = torch.Generator().manual_seed(0)

    def batch(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = torch.randn(count, width, generator=generator)
        text = image + 4 * torch.randn(count, width, generator=generator)
        return image.requires_grad_(), text.requires_grad_()

    objective(*batch(64)).backward()  # threads, kernels
    objective.zero_grad(set_to_none=True)
    image, text = batch(pairs)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    loss = objective(image, text)
    loss.backward()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if str(out) != "-":
        gradients = {n: p.grad for n, p in objective.named_parameters()}
        save_file({"image": image.grad, "text": text.grad, "loss": loss.detach(), **gradients}, out)
    print(json.dumps({"seconds": seconds, "mb": (peak - before) / 1024}))


def run(name: str, pairs: int, width: int, block: int, out: Path | str = "-") -> dict[str, float]:
    """A variant in its own process."""
    command = [sys.executable, __file__, "--child", name, str(pairs), str(width), str(block)]
    done = subprocess.run([*command, str(out)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def apart(left: Path, right: Path) -> dict[str, float]:
    """||g - g'|| / ||g'|| of the loss and of every gradient."""
    from safetensors.torch import load_file

    a, b = load_file(left), load_file(right)
    return {
        key: float((a[key].double() - b[key].double()).norm() / b[key].double().norm()) for key in b
    }


def compare(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of the table for one objective."""
    found: dict[str, list[dict[str, float]]] = {"blocks": [], "plain": []}
    with tempfile.TemporaryDirectory() as folder:
        files = {variant: Path(folder) / f"{variant}.safetensors" for variant in found}
        for repeat in range(options.repeats):
            for variant, block in (("blocks", 256), ("plain", options.pairs)):
                out = files[variant] if repeat == 0 else "-"
                found[variant].append(run(name, options.pairs, options.width, block, out))
        difference = apart(files["blocks"], files["plain"])
    worst = max(difference.values())
    if worst > 1e-6:
        raise SystemExit(f"gate: {name} in blocks differs: {difference}")
    seconds = {k: statistics.median(r["seconds"] for r in v) for k, v in found.items()}
    memory = {k: statistics.median(r["mb"] for r in v) for k, v in found.items()}
    shared = {
        "gate": f"loss and gradients differ by {worst:.1e} of their norm (allowed 1e-6)",
        "reference_is": "the whole matrix",
    }
    where = f"{name}, B = {options.pairs:,}, D = {options.width}, fp32, {THREADS} threads"
    rows = []
    for what, unit, numbers, limit in (
        ("peak memory", "MB above its inputs", memory, 0.1),
        ("time", "s forward and backward", seconds, 1.5),
    ):
        ratio = numbers["blocks"] / numbers["plain"]
        rows.append(
            shared
            | {
                "case": f"{what} of {where}",
                "value": round(numbers["blocks"], 3),
                "unit": unit,
                "reference": round(numbers["plain"], 3),
                "ratio": round(ratio, 3),
                "target": f"<= {limit}",
                "met": ratio <= limit,
            }
        )
    return rows


def main() -> list[dict[str, Any]]:
    """Compare, then run the large batch; prints a JSON line for each row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=16384)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--large", type=int, default=65536)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    rows = [row for name in ("infonce", "siglip") for row in compare(name, options)]
    for name in ("infonce", "siglip"):
        large = run(name, options.large, options.width, 0)
        rows.append(
            {
                "case": f"{name} runs at B = {options.large:,}, D = {options.width}",
                "value": round(large["mb"]),
                "unit": "MB above its inputs",
                "reference": round(options.large**2 * 4 / 2**20),
                "reference_is": "MB of one B x B matrix",
                "ratio": round(large["mb"] / (options.large**2 * 4 / 2**20), 4),
                "seconds": round(large["seconds"], 1),
                "met": True,
            }
        )
    for row in rows:
        print(json.dumps(row))
    return rows


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        name, pairs, width, block, out = sys.argv[2:]
        child(name, int(pairs), int(width), int(block), Path(out))
    else:
        main()
