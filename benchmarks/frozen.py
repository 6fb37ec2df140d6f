"""LiT with a frozen image tower: time of a step with its features computed once.

Against two others, all in child processes in alternating order: the tower run again at every step
(locked but for its last norm, whose rate is 0), and the trained text side alone (the same batches
of tokens, random image features, same objective and optimizer in a bare loop), which is the limit.
Gate: the losses with and without stored features agree to 1e-5.

    python benchmarks/frozen.py [--steps 60] [--batch 64] [--repeats 3]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

THREADS, WARM = 2, 10  # the first steps, of which the times are not taken
IMAGE = {"image_size": 64, "patch": 8, "width": 192, "depth": 6, "heads": 3}
TEXT = {"tokenizer": "bytes", "context": 64, "width": 192, "depth": 4, "heads": 3}


def config(stored: bool, steps: int, batch: int):
    """The run: an image tower that is not trained, a text tower that is."""
    from vislang.config import (
        DataConfig,
        ModelConfig,
        ObjectiveConfig,
        OptimConfig,
        RunConfig,
        TowerConfig,
        TrainConfig,
    )

    # A tower with one weight that is not locked is no frozen one, so it runs at every step; at the
    # rate 0 its weight stays what it was.
    kept = {"frozen": True} if stored else {"lock": ("*",), "unlock": ("final",)}
    return TrainConfig(
        model=ModelConfig(
            TowerConfig("scratch_vit", IMAGE, **kept), TowerConfig("scratch_text", TEXT), width=192
        ),
        objective=ObjectiveConfig("infonce"),
        data=DataConfig(train="digits:train", batch_size=batch, workers=0, augment="none"),
        optim=OptimConfig(steps=steps, warmup=1, lr_image=-1.0 if stored else 0.0),
        run=RunConfig(
            device="cpu", precision="fp32", threads=THREADS, log_every=1, tensorboard=False,
            checkpoint_every="", diagnostics_every="",
        ),
    )  # fmt: skip


def child(kind: str, steps: int, batch: int) -> dict[str, Any]:
    """Seconds a step, and the losses."""
    if kind == "text alone":
        return bare(steps, batch)
    from vislang.train import train
    from vislang.train.log import read_log

    with tempfile.TemporaryDirectory() as folder:
        train(config(kind == "stored", steps, batch), Path(folder) / "run")
        lines = [line for line in read_log(Path(folder) / "run") if line["kind"] == "train"]
    times = [line["time"] for line in lines]
    seconds = (times[-1] - times[WARM - 1]) / (len(times) - WARM)
    return {"seconds": seconds, "losses": [line["loss"] for line in lines]}


def bare(steps: int, batch: int) -> dict[str, Any]:
    """Text side, objective and optimizer by hand."""
    import torch

    from vislang.data.batches import Batches
    from vislang.data.sources import open_source
    from vislang.train.optim import make_optimizer
    from vislang.train.setup import make_model, settle

    given = config(True, steps, batch)
    model, objective = make_model(given, settle(given), steps)
    optimizer = make_optimizer({"model": model, "objective": objective}, given.optim)
    tokenizer = model.text.tower.tokenizer
    batches = Batches(
        open_source("digits:train"), batch, needs=("text",), tokenizer=tokenizer, workers=0
    )
    model.train()
    image = torch.randn(batch, model.image.tower.width)
    endless, began = batches.start(epochs=None), 0.0
    for step in range(steps):
        if step == WARM:
            began = time.perf_counter()
        rows = model(image_features=image, text=next(endless)["text"])
        optimizer.zero_grad()
        objective(**rows).backward()
        torch.nn.utils.clip_grad_norm_(
            [p for p in model.parameters() if p.requires_grad], 1.0, foreach=True
        )
        optimizer.step()
        objective.after_step()
    return {"seconds": (time.perf_counter() - began) / (steps - WARM), "losses": []}


def run(kind: str, steps: int, batch: int) -> dict[str, Any]:
    """One child process."""
    command = [sys.executable, __file__, "--child", kind]
    command += ["--steps", str(steps), "--batch", str(batch)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(told.splitlines()[-1])


def main(steps: int = 60, batch: int = 64, repeats: int = 3) -> list[dict[str, Any]]:
    """Ratios of the time of a step."""
    kinds = ("stored", "again", "text alone")
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    for _ in range(repeats):
        for kind in kinds:
            found[kind].append(run(kind, steps, batch))
    for a, b in zip(found["stored"][0]["losses"], found["again"][0]["losses"], strict=True):
        if abs(a - b) > 1e-5 * abs(b) + 1e-5:
            raise AssertionError(f"stored and computed features give other losses: {a} and {b}")
    seconds = {kind: statistics.median(r["seconds"] for r in runs) for kind, runs in found.items()}
    value = round(1e3 * seconds["stored"], 2)
    limit = seconds["stored"] / seconds["text alone"]
    again = seconds["stored"] / seconds["again"]
    common = {"value": value, "unit": "ms a step"}
    return [
        {
            "case": f"LiT step, batch {batch}, and the trained side alone", **common,
            "reference": round(1e3 * seconds["text alone"], 2), "reference_is": "text side alone",
            "ratio": round(limit, 3), "target": "<= 1.05", "met": limit <= 1.05,
        },
        {
            "case": f"LiT step, batch {batch}, and the tower at each step", **common,
            "reference": round(1e3 * seconds["again"], 2), "reference_is": "tower run each step",
            "ratio": round(again, 3), "target": "", "met": None,
        },
    ]  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", default="")
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(given.child, given.steps, given.batch)))
    else:
        for line in main(given.steps, given.batch, given.repeats):
            print(json.dumps(line))
