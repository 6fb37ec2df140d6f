"""Run folders as `train` and `evaluate` write them, made from a seed instead of from training."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vislang.config import (
    DataConfig,
    ObjectiveConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
    write_config,
)
from vislang.data.sample import BadSample, Sample
from vislang.files import write_json
from vislang.metrics.intervals import wilson

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
START = 1_790_000_000.0


@dataclass
class Drawn:
    """A source of pictures: one coloured square for each sample, in a colour of its class."""

    n: int = 60
    classes: tuple[str, ...] = CLASSES
    side: int = 64
    fingerprint: str = "f00dfacef00dface"
    name: str = "drawn"
    gives = frozenset({"image", "text", "label"})

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Sample:
        from PIL import Image

        if index == 3:
            raise BadSample(sample_id(index), "truncated image", "drawn")
        kind = index % len(self.classes)
        pixels = np.full((self.side, self.side, 3), 235, np.uint8)
        cut = self.side // 4
        pixels[cut:-cut, cut:-cut] = (25 * kind, 200 - 15 * kind, (70 * kind) % 256)
        image = Image.fromarray(pixels)
        return Sample(sample_id(index), image, (caption(index),), (kind,))

    def shards(self) -> list[range]:
        return [range(self.n)]


def sample_id(index: int) -> str:
    return f"digit-{index:04d}"


def caption(index: int) -> str:
    return f"a handwritten {CLASSES[index % 10]}, number {index}"


def make_run(
    folder: Path,
    *,
    seed: int = 0,
    skill: float = 0.95,
    steps: int = 400,
    n: int = 60,
    config: TrainConfig | None = None,
    source: str = "drawn:a",
    fingerprint: str = "f00dfacef00dface",
    prompts: str = "c0ffee00c0ffee00",
    end: bool = True,
) -> Path:
    """A whole run folder: config, environment, log with rejections, scores at two steps."""
    rng = np.random.default_rng(seed)
    config = config or make_config(source)
    write_config(folder / "config.yaml", config)
    write_json(folder / "environment.json", ENVIRONMENT)
    (folder / "log.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in log_lines(rng, steps, skill, end))
    )
    for step, share in ((steps // 2, 0.9), (steps, 1.0)):
        at = folder / "scores" / f"{step:09d}"
        made = {"source": source, "source_fingerprint": fingerprint, "step": step}
        for name, score in make_scores(rng, n, skill * share, prompts).items():
            score["provenance"] |= made
            write_json(at / f"{name}.json", score)
    return folder


ENVIRONMENT = {
    "versions": {"python": "3.11.9", "vislang": "0.1.0", "torch": "2.10.0"},
    "machine": {"system": "Linux", "processor": "x86_64", "cpus": 2, "threads": 2},
}


def make_config(source: str = "drawn:a", objective: str = "infonce") -> TrainConfig:
    return TrainConfig(
        data=DataConfig(train="drawn:train", valid=source, batch_size=128),
        objective=ObjectiveConfig(objective),
        optim=OptimConfig(steps=400, lr=2e-3),
        run=RunConfig(evaluations=("zeroshot", "retrieval")),
    )


def log_lines(
    rng: np.random.Generator, steps: int, skill: float, end: bool
) -> list[dict[str, Any]]:
    time = START
    lines: list[dict[str, Any]] = [
        {"kind": "start", "step": 0, "steps": steps, "samples": 1297, "parameters": 812_345,
         "trainable": 812_345, "device": "cpu", "precision": "fp32", "processes": 1},
        {"kind": "rejected", "step": 1, "id": "digit-0003", "reason": "truncated image",
         "origin": "train.zip:digit-0003.png"},
        {"kind": "rejected", "step": 9, "id": "digit-0003", "reason": "truncated image",
         "origin": "train.zip:digit-0003.png"},
        {"kind": "rejected", "step": 12, "id": "digit-0777", "reason": "no caption", "origin": ""},
    ]  # fmt: skip
    for step in range(10, steps + 1, 10):
        share = step / steps
        loss = 4.85 * np.exp(-3.2 * share * skill) + 0.25 + 0.08 * rng.normal()
        rate = 2e-3 * min(1.0, share / 0.1) * (0.5 + 0.5 * np.cos(np.pi * max(0, share - 0.1)))
        lines.append(
            {"kind": "train", "step": step, "epoch": round(step / 11, 3), "loss": loss,
             "parts": {"image_to_text": loss * 0.96, "text_to_image": loss * 1.04}, "lr": rate,
             "grad_norm": float(np.exp(rng.normal(0.6 - 1.5 * share, 0.25))),
             "scale": 14.3 + 11 * share, "samples_per_s": 1500 + 60 * rng.normal(),
             "data_wait": abs(0.02 + 0.01 * rng.normal())}
        )  # fmt: skip
        if step % 80 == 0:
            right = int(500 * skill * (1 - np.exp(-4 * share)))
            values = {"accuracy": wilson(right, 500).as_row(),
                      "mean_recall": wilson(max(0, right - 7), 500).as_row()}  # fmt: skip
            lines.append({"kind": "eval", "step": step, "evaluation": "zeroshot", "values": values})
            lines.append({"kind": "checkpoint", "step": step, "path": f"checkpoints/{step:09d}"})
    if end:
        lines.append({"kind": "end", "step": steps, "seconds": 92.5})
    for line in lines:
        line["time"] = time
        time += 1.7
    return lines


def make_scores(
    rng: np.random.Generator, n: int, skill: float, prompts: str
) -> dict[str, dict[str, Any]]:
    ids = [sample_id(i) for i in range(n)]
    truth = np.arange(n) % 10
    answer = np.where(rng.random(n) < skill, truth, (truth + rng.integers(1, 4, n)) % 10)
    return {
        "zeroshot": _zeroshot(rng, ids, truth, answer, prompts),
        "retrieval": _retrieval(rng, ids, skill),
        "cluster": _cluster(rng, ids, truth, skill),
    }


def _provenance(**settings: Any) -> dict[str, Any]:
    return {
        "model": "runs/made-up",
        "model_fingerprint": "0123456789abcdef",
        "settings": {"batch_size": 256, **settings},
        "versions": ENVIRONMENT["versions"],
    }


def _zeroshot(
    rng: np.random.Generator, ids: list[str], truth: np.ndarray, answer: np.ndarray, prompts: str
) -> dict[str, Any]:
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (truth, answer), 1)
    right = truth == answer
    rows = [
        [name, int(counts[i].sum()), round(counts[i, i] / max(1, counts[i].sum()), 4)]
        for i, name in enumerate(CLASSES)
    ]
    return {
        "evaluation": "zeroshot",
        "n": len(ids),
        "values": {
            "accuracy": wilson(int(right.sum()), len(ids)).as_row(),
            "accuracy@5": wilson(len(ids) - 1, len(ids)).as_row(),
            "mean_true_rank": {"value": 1.31, "low": 1.2, "high": 1.5, "n": len(ids),
                               "interval": "bootstrap 95%"},
        },
        "tables": {"per_class": {"columns": ["class", "n", "recall"], "rows": rows}},
        "confusion": {"classes": list(CLASSES), "counts": counts.tolist()},
        "examples": [
            {"kind": "image_to_class", "query": {"id": id_, "label": CLASSES[truth[i]]},
             "right": bool(right[i]),
             "answers": [{"text": CLASSES[answer[i]], "score": 0.31, "right": bool(right[i])},
                         {"text": CLASSES[(answer[i] + 1) % 10], "score": 0.22, "right": False}]}
            for i, id_ in enumerate(ids)
        ],
        "per_sample": {"accuracy": {"ids": ids, "values": right.astype(int).tolist()}},
        "notes": ["1 class has no sample."],
        "provenance": _provenance(prompts=prompts, templates=3),
    }  # fmt: skip


def _retrieval(rng: np.random.Generator, ids: list[str], skill: float) -> dict[str, Any]:
    n = len(ids)
    values = {}
    for way in ("image_to_text", "text_to_image"):
        for k, gain in ((1, 0.0), (5, 0.5), (10, 0.8)):
            share = min(1.0, skill * 0.7 + gain * (1 - skill * 0.7))
            values[f"{way}@{k}"] = wilson(round(n * share), n).as_row()
    examples = []
    for i in range(min(n, 16)):
        hit = bool(rng.random() < skill * 0.7)
        others = [int(j) for j in rng.choice(n, 4, replace=False)]
        order = [i, *others] if hit else [*others[:2], i, *others[2:]]
        scores = sorted(rng.uniform(0.1, 0.4, 5).round(3).tolist(), reverse=True)
        texts = [{"text": caption(j), "score": s, "right": j == i} for j, s in zip(order, scores)]
        found = [{"id": ids[j], "score": s, "right": j == i} for j, s in zip(order, scores)]
        examples += [
            {"kind": "image_to_text", "query": {"id": ids[i]}, "right": hit,
             "rank": 1 if hit else 3, "answers": texts},
            {"kind": "text_to_image", "query": {"text": caption(i)}, "right": hit,
             "answers": found},
        ]  # fmt: skip
    cosine = rng.uniform(-0.05, 0.18, (12, 12)) + 0.25 * skill * np.eye(12)
    return {
        "evaluation": "retrieval", "n": n, "values": values, "examples": examples,
        "cosine": {"ids": ids[:12], "texts": [caption(i) for i in range(12)],
                   "matrix": cosine.round(4).tolist()},
        "provenance": _provenance(ks=[1, 5, 10]),
    }  # fmt: skip


def _cluster(
    rng: np.random.Generator, ids: list[str], truth: np.ndarray, skill: float
) -> dict[str, Any]:
    angle = truth * 0.628
    spread = 0.25 + 1.2 * (1 - skill)
    x = 3 * np.cos(angle) + rng.normal(0, spread, len(ids))
    y = 3 * np.sin(angle) + rng.normal(0, spread, len(ids))
    values = {
        name: {"value": v * skill, "low": v * skill - 0.03, "high": v * skill + 0.03,
               "n": len(ids), "interval": "jackknife 95%"}
        for name, v in (("ami", 0.93), ("nmi", 0.94), ("ari", 0.91))
    }  # fmt: skip
    return {
        "evaluation": "cluster", "n": len(ids), "values": values,
        "map": {"ids": ids, "x": x.round(3).tolist(), "y": y.round(3).tolist(),
                "label": [CLASSES[i] for i in truth], "method": "t-SNE, perplexity 30"},
        "provenance": _provenance(k=10, seed=0),
    }  # fmt: skip


def with_objective(config: TrainConfig, name: str) -> TrainConfig:
    return replace(config, objective=ObjectiveConfig(name))


def open_drawn(spec: str, **options: Any) -> Drawn:
    """Stands in for vislang.data's open_source, for the specs that `make_run` writes."""
    if not spec.startswith("drawn:"):
        raise FileNotFoundError(f"no source {spec}")
    return Drawn(**options)
