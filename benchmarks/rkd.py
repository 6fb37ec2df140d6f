"""Angles of RKD at B = 256 and 1,024: peak memory without the tensor of all B³ angles.

The reference writes the formula down as it stands (differences of all pairs, [B, B, D], and their
products, [B, B, B]). Each runs in a child process of its own; memory is what its peak lies above
the start. Gate: losses and gradients agree to 1e-5.

    python benchmarks/rkd.py [--width 512]
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

THREADS = 2


def rows(pairs: int, width: int) -> Any:
    """Related rows of both sides."""
    import torch

    generator = torch.Generator().manual_seed(0)
    text = torch.randn(pairs, width, generator=generator)
    image = text + torch.randn(pairs, width, generator=generator)
    return image.requires_grad_(), text


def written_down(student: Any, teacher: Any) -> Any:
    """50 times the mean Huber difference of all B³ angles."""
    import torch.nn.functional as F

    def angles(x: Any) -> Any:
        e = F.normalize(x[None] - x[:, None], dim=2, eps=1e-12)
        return e @ e.transpose(1, 2)

    return 50 * F.smooth_l1_loss(angles(student), angles(teacher))


def child(kind: str, pairs: int, width: int) -> dict[str, Any]:
    """Loss, length of the gradient, seconds, and memory above the start."""
    import torch

    from vislang.config import ObjectiveConfig
    from vislang.objectives.build import build_objective

    torch.set_num_threads(THREADS)
    objective = build_objective(ObjectiveConfig("rkd", {"distance": 0.0, "angle": 50.0}), width)
    small = rows(8, width)
    objective(image=small[0], text=small[1]).backward()  # loads the kernels
    image, text = rows(pairs, width)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    loss = objective(image=image, text=text) if kind == "ours" else written_down(image, text)
    loss.backward()
    return {
        "loss": float(loss.detach()),
        "gradient": float(image.grad.norm()),
        "seconds": time.perf_counter() - began,
        "mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }


def main(width: int = 512) -> list[dict[str, Any]]:
    """Memory of both at two sizes of the batch."""
    found = []
    for pairs in (256, 1024):
        told: dict[str, dict[str, Any]] = {}
        for kind in ("ours", "written down"):
            command = [sys.executable, __file__, "--child", kind, "--pairs", str(pairs)]
            done = subprocess.run(
                [*command, "--width", str(width)], check=True, capture_output=True, text=True
            )
            told[kind] = json.loads(done.stdout.splitlines()[-1])
        ours, other = told["ours"], told["written down"]
        for key in ("loss", "gradient"):
            if abs(ours[key] - other[key]) > 1e-5 * abs(other[key]):
                raise AssertionError(f"the {key} differs: {ours[key]} and {other[key]}")
        found.append(
            {
                "case": f"RKD angles, B = {pairs:,}, D = {width}",
                "value": round(max(ours["mib"], 0.1), 1), "unit": "MiB above the start",
                "reference": round(other["mib"], 1), "reference_is": "all B³ angles at once",
                "ratio": round(ours["mib"] / other["mib"], 4),
                "target": "O(B² D) or better", "met": ours["mib"] < 4 * pairs**2 * width / 2**20,
                "seconds": [round(ours["seconds"], 2), round(other["seconds"], 2)],
            }
        )  # fmt: skip
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--pairs", type=int, default=256)
    parser.add_argument("--child", default="")
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(given.child, given.pairs, given.width)))
    else:
        for line in main(given.width):
            print(json.dumps(line))
