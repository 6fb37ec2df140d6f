"""`vislang train` against a bare PyTorch loop, and against open_clip's own training command.

All three train the same towers (ViT and text transformer, fp32) with AdamW and InfoNCE on the same
JPEG files and captions, batch, threads and loader processes.  The bare loop is what one would
write by hand: it takes batches from the same loader, so the ratio is what the trainer itself costs.
open_clip reads the same files through its own csv pipeline.  Each runs in a child process; the
first epoch warms up, the samples/s are those of the second.

Gate: with the same weights and batches, the first loss of ours and of the bare loop are equal.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SAMPLES, BATCH, WORKERS, THREADS, REPEATS = 1536, 128, 1, 2, 3
IMAGE = {"image_size": 112, "patch": 16, "width": 256, "depth": 6, "heads": 4}
TEXT = {"tokenizer": "clip", "context": 32, "width": 256, "depth": 4, "heads": 4}
WIDTH = 256


def make_files(folder: Path) -> None:
    """JPEG files and a table; real pictures are not needed to time a step."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    words = [
        "a",
        "dog",
        "runs",
        "over",
        "the",
        "green",
        "grass",
        "near",
        "two",
        "red",
        "boats",
        "in",
        "bright",
        "sun",
    ]
    rows = ["filepath\ttitle"]
    for i in range(SAMPLES):
        small = Image.fromarray(rng.integers(0, 255, (14, 14, 3), dtype=np.uint8))
        path = folder / f"{i:05d}.jpg"
        small.resize((160, 120), Image.Resampling.BICUBIC).save(path, quality=90)
        rows.append(f"{path}\t{' '.join(rng.choice(words, 9))}")
    (folder / "table.tsv").write_text("\n".join(rows) + "\n")


def settings(folder: Path):
    """The run that all three do."""
    from vislang.config import (
        DataConfig,
        ModelConfig,
        ObjectiveConfig,
        OptimConfig,
        RunConfig,
        TowerConfig,
        TrainConfig,
    )

    return TrainConfig(
        model=ModelConfig(
            TowerConfig("scratch_vit", IMAGE), TowerConfig("scratch_text", TEXT), WIDTH
        ),
        objective=ObjectiveConfig("infonce"),
        data=DataConfig(
            train=f"table:{folder / 'table.tsv'}",
            train_options={"image": "filepath", "caption": "title"},
            batch_size=BATCH,
            workers=WORKERS,
        ),
        optim=OptimConfig(epochs=2.0, lr=1e-4, clip_grad=1.0),
        run=RunConfig(
            device="cpu",
            precision="fp32",
            threads=THREADS,
            log_every=1,
            checkpoint_every="2 epochs",
            tensorboard=False,
        ),
    )


def child_ours(folder: Path, out: Path) -> dict:
    """The second epoch of `vislang train`, from the times in its log."""
    from vislang.train import train
    from vislang.train.log import read_log

    train(settings(folder), out / "run")
    lines = [line for line in read_log(out / "run") if line["kind"] == "train"]
    per_epoch = SAMPLES // BATCH
    seconds = lines[-2]["time"] - lines[per_epoch - 1]["time"]  # the last one waits for a save
    return {"samples_per_s": (per_epoch - 1) * BATCH / seconds, "first_loss": lines[0]["loss"]}


def child_bare(folder: Path, out: Path) -> dict:
    """The same two epochs in a loop written by hand."""
    import torch
    import torch.nn.functional as F

    from vislang.data.batches import Batches
    from vislang.data.sources import open_source
    from vislang.devices import seed_everything
    from vislang.models.build import build_model
    from vislang.train.optim import parameter_groups

    torch.set_num_threads(THREADS)
    config = settings(folder)
    seed_everything(config.run.seed)
    model = build_model(config.model)
    source = open_source(config.data.train, **config.data.train_options)
    batches = Batches(
        source,
        BATCH,
        image=model.image.tower.preprocess,
        tokenizer=model.text.tower.tokenizer,
        augment="clip",
        workers=WORKERS,
    )
    scale = torch.nn.Parameter(torch.tensor(1 / 0.07).log())
    optimizer = torch.optim.AdamW(
        [*parameter_groups({"model": model}, 0.2), {"params": [scale], "weight_decay": 0.0}],
        lr=1e-4,
        betas=(0.9, 0.98),
        eps=1e-6,
        fused=True,
    )
    model.train()
    times, losses = [], []
    per_epoch = SAMPLES // BATCH
    for batch in batches.start(0, 0, epochs=2):
        optimizer.zero_grad(set_to_none=True)
        image = F.normalize(model.image(batch["image"]), dim=-1)
        text = F.normalize(model.text(batch["text"]), dim=-1)
        logits = scale.exp() * image @ text.T
        own = torch.arange(len(logits))
        loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*model.parameters(), scale], 1.0)
        optimizer.step()
        losses.append(loss.item())
        times.append(time.time())
    seconds = times[-2] - times[per_epoch - 1]
    return {"samples_per_s": (per_epoch - 1) * BATCH / seconds, "first_loss": losses[0]}


def child_open_clip(folder: Path, out: Path) -> dict:
    """The second epoch of open_clip's own command, timed around its function for an epoch."""
    import open_clip
    import open_clip_train.main as program

    (out / "bench-vit.json").write_text(
        json.dumps(
            {
                "embed_dim": WIDTH,
                "vision_cfg": {
                    "image_size": IMAGE["image_size"],
                    "layers": IMAGE["depth"],
                    "width": IMAGE["width"],
                    "head_width": IMAGE["width"] // IMAGE["heads"],
                    "patch_size": IMAGE["patch"],
                },
                "text_cfg": {
                    "context_length": TEXT["context"],
                    "vocab_size": 49408,
                    "width": TEXT["width"],
                    "heads": TEXT["heads"],
                    "layers": TEXT["depth"],
                },
            }
        )
    )
    open_clip.add_model_config(out / "bench-vit.json")
    import torch

    torch.set_num_threads(THREADS)
    times, inner = [], program.train_one_epoch

    def timed(*arguments, **options):
        start = time.time()
        inner(*arguments, **options)
        times.append(time.time() - start)

    program.train_one_epoch = timed
    logging.disable(logging.CRITICAL)
    program.main(
        [
            "--train-data", str(folder / "table.tsv"), "--dataset-type", "csv",
            "--csv-img-key", "filepath", "--csv-caption-key", "title", "--csv-separator", "\t",
            "--model", "bench-vit", "--batch-size", str(BATCH), "--epochs", "2",
            "--workers", str(WORKERS), "--precision", "fp32", "--lr", "1e-4", "--warmup", "2",
            "--grad-clip-norm", "1.0", "--logs", str(out / "logs"), "--name", "bench",
            "--save-frequency", "0", "--log-every-n-steps", "100",
        ]
    )  # fmt: skip
    return {"samples_per_s": SAMPLES // BATCH * BATCH / times[1]}


CHILDREN = {"ours": child_ours, "bare": child_bare, "open_clip": child_open_clip}


def run(name: str, folder: Path) -> dict:
    """One variant in a process of its own."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, __file__, name, str(folder), out]
        environment = os.environ | {"OMP_NUM_THREADS": str(THREADS)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
        return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> list[dict]:
    """All variants in turn, several times; the median ratio of each round."""
    rates: dict[str, list[float]] = {name: [] for name in CHILDREN}
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder))
        for turn in range(REPEATS):
            order = list(CHILDREN) if turn % 2 == 0 else list(CHILDREN)[::-1]
            found = {name: run(name, Path(folder)) for name in order}
            apart = abs(found["ours"]["first_loss"] - found["bare"]["first_loss"])
            if apart > 1e-5:
                raise SystemExit(f"gate: the first losses differ by {apart}")
            for name in CHILDREN:
                rates[name].append(found[name]["samples_per_s"])
    middle = {name: sorted(values)[len(values) // 2] for name, values in rates.items()}
    results = []
    for peer, what, target in (
        ("bare", "bare PyTorch loop, same loader", 0.97),
        ("open_clip", "open_clip_train.main, csv", 1.0),
    ):
        ratios = sorted(a / b for a, b in zip(rates["ours"], rates[peer]))
        ratio = ratios[len(ratios) // 2]
        results.append(
            {
                "case": "training step, ViT 112 px, batch 128, fp32",
                "value": round(middle["ours"], 1),
                "unit": "samples/s",
                "reference": round(middle[peer], 1),
                "reference_is": what,
                "ratio": round(ratio, 3),
                "target": f">= {target}",
                "met": ratio >= target,
                "ratios": [round(r, 3) for r in ratios],
            }
        )
    for result in results:
        print(json.dumps(result))
    return results


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(json.dumps(CHILDREN[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))))
    else:
        main()
