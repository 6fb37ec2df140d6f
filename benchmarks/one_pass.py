"""Five evaluations of a frozen model from one pass over the images, and from a pass each.

Zero-shot, retrieval, probe, k-NN and clustering of drawn pictures with labels and captions, by the
one runner of `vislang evaluate`: once with all five names, and five times with one name. Nothing
is kept on disk, so that the five runs embed again what they need, as five programs would. Both in
child processes. Gate: every value of the five evaluations is the same.

    python benchmarks/one_pass.py [--images 600] [--size 224] [--threads 2]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

FIVE = ("zeroshot", "retrieval", "probe", "knn", "cluster")
CLASSES = ("circle", "square", "cross", "bar", "ring", "dots")
POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Drawn:
    """Pictures of six shapes in random colours and places, each with its class and a caption."""

    name, classes, gives = "drawn", CLASSES, frozenset({"image", "text", "label"})

    def __init__(self, images: int, size: int):
        self.images, self.size, self.fingerprint = images, size, f"drawn-{images}-{size}"

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int):
        import numpy as np
        from PIL import Image, ImageDraw

        from vislang.data.sample import Sample

        rng, label = np.random.default_rng(index), index % len(CLASSES)
        colour = tuple(int(c) for c in rng.integers(60, 256, 3))
        image = Image.new(
            "RGB", (self.size, self.size), tuple(int(c) for c in rng.integers(0, 60, 3))
        )
        r = int(self.size * rng.uniform(0.15, 0.3))
        x, y = (int(v) for v in rng.integers(r, self.size - r, 2))
        pen, box, wide = ImageDraw.Draw(image), (x - r, y - r, x + r, y + r), max(2, r // 4)
        shape = CLASSES[label]
        if shape in ("circle", "ring"):
            pen.ellipse(box, fill=colour if shape == "circle" else None, outline=colour, width=wide)
        elif shape == "dots":
            for dx, dy in ((-r, -r), (r, r), (-r, r), (r, -r)):
                pen.ellipse((x + dx - wide, y + dy - wide, x + dx + wide, y + dy + wide), colour)
        elif shape == "square":
            pen.rectangle(box, fill=colour)
        else:
            pen.line((x - r, y, x + r, y), fill=colour, width=wide)
            if shape == "cross":
                pen.line((x, y - r, x, y + r), fill=colour, width=wide)
        caption = f"picture {index} shows a {shape} of radius {r} at {x}, {y}"
        return Sample(str(index), image, (caption,), (label,), f"drawn:{index}")

    def shards(self):
        return [range(self.images)]


def make_model(size: int):
    """A ViT of ViT-B/32's shape and a small text tower, random weights: time is all that counts."""
    import torch

    from vislang.config import ModelConfig, TowerConfig
    from vislang.models.build import build_model

    torch.manual_seed(0)
    image = {"image_size": size, "patch": 32, "width": 768, "depth": 12, "heads": 12}
    text = {"tokenizer": "bytes", "context": 64, "width": 128, "depth": 2, "heads": 2}
    config = ModelConfig(
        TowerConfig("scratch_vit", image), TowerConfig("scratch_text", text), width=256
    )
    return build_model(config)


def child(together: bool, images: int, size: int, threads: int) -> dict[str, Any]:
    """Seconds, and every value."""
    import torch

    from vislang.evaluate import evaluate

    torch.set_num_threads(threads)
    model, source = make_model(size), Drawn(images, size)
    options = {"probe": {"tolerance": 1e-4}, "retrieval": {"ks": [1, 5, 10]}}
    groups = [FIVE] if together else [(name,) for name in FIVE]
    values: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        evaluate(model, Drawn(24, size), ["zeroshot", "retrieval"], folder, keep_store=False,
                 device="cpu", precision="fp32", options={"retrieval": {"ks": [1]}})  # fmt: skip
        began = time.perf_counter()
        for names in groups:
            given = {name: options[name] for name in names if name in options}
            found = evaluate(
                model, source, names, folder, options=given, keep_store=False, device="cpu",
                precision="fp32", batch_size=32,
            )  # fmt: skip
            for scores in found:
                values |= {f"{scores.evaluation} {k}": v.value for k, v in scores.values.items()}
        return {"seconds": time.perf_counter() - began, "values": values}


def run_child(together: bool, *given: int) -> dict[str, Any]:
    """One child process."""
    images, size, threads = given
    command = [sys.executable, __file__, "--child", "one" if together else "five"]
    command += ["--images", str(images), "--size", str(size), "--threads", str(threads)]
    environment = os.environ | dict.fromkeys(POOLS, str(threads))
    told = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(told.stdout.splitlines()[-1])


def main(images: int = 600, size: int = 224, threads: int = 2) -> list[dict[str, Any]]:
    """One row for benchmarks/run.py."""
    one, five = (run_child(together, images, size, threads) for together in (True, False))
    wrong = {k: (v, five["values"][k]) for k, v in one["values"].items() if v != five["values"][k]}
    if wrong:
        raise SystemExit(f"the values differ, so no timing counts: {wrong}")
    ratio = five["seconds"] / one["seconds"]
    return [{
        "case": f"five evaluations of {images} images of {size} px, ViT-B/32, {threads} threads",
        "value": round(one["seconds"], 2), "unit": "s, one pass",
        "reference": round(five["seconds"], 2), "reference_is": "five passes",
        "ratio": round(ratio, 2), "target": ">= 4", "met": ratio >= 4,
        "gate": f"{len(one['values'])} values are the same",
    }]  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", default="")
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(given.child == "one", given.images, given.size, given.threads)))
    else:
        for line in main(given.images, given.size, given.threads):
            print(json.dumps(line))
