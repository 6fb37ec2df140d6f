"""ELEVATER from end to end on the original's toy tree: its predictions and what it submitted."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vislang.evaluate.elevater.predictions import read_predictions
from vislang.evaluate.elevater.suite import evaluate_elevater

HOW: dict[str, Any] = {"device": "cpu", "precision": "fp32"}


def test_the_original_toy_tree_gives_the_originals_numbers(tmp_path):
    """Zero-shot and 5-shot probes from its pictures; ours are resized within a grey level."""
    data = os.environ.get("VISLANG_TEST_DATA")
    home = Path(data or "/none").parent / "golden/composition_and_evaluation/elevater_toy"
    if not home.is_dir():
        pytest.skip("the original's toy tree is not here (VISLANG_TEST_DATA)")
    records = json.loads((home / "registry.json").read_text())
    for record in records:
        record |= {"metric": "mean-per-class"} if record["name"] == "toy-mc" else {}
    words = {r["name"]: {"templates": ["a photo of a {}.", "a {} thing"]} for r in records}
    for name, content in (("registry", records), ("words", words)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    asked = {
        "tasks": ["zeroshot", "probe:5"], "registry": str(tmp_path / "registry.json"),
        "words": str(tmp_path / "words.json"), "search": False, "rate": 0.01,
        "epoch": "best_on_test", "model_name": "clip_toy",
    }  # fmt: skip
    model = toy_model(home / "toy_model.npz")
    evaluate_elevater(model, ["all"], home / "datasets", tmp_path, options=asked, **HOW)
    zero = next(f for f in (home / "predictions").iterdir() if f.name.startswith("zeroshot"))
    for record in records:
        ours = tmp_path / "elevater" / "predictions"
        pairs = [(f"zeroshot/{record['name']}", zero / f"{record['name']}.json", 1e-3)]
        pairs += [(f"probe-5/seed{s}_{record['name']}",
                   home / f"predictions/linear_probe_5/seed{s}_{record['name']}.json", 1e-4)
                  for s in range(3)]  # fmt: skip
        for name, theirs, tolerance in pairs:
            found, golden = read_predictions(ours / f"{name}.safetensors"), read_predictions(theirs)
            assert np.abs(found.predictions - golden.predictions).max() < tolerance, name
            # CLIP counts its logit scale among the model's numbers; ours is the objective's
            one = {k: v + 1 for k, v in found.facts().items() if k.endswith(("num_params",
                   "backbone_params"))}  # fmt: skip
            assert found.facts() | one == golden.facts()


def toy_model(path: Path):
    """The tower behind the original's numbers, with CLIP's tokenizer of 77 tokens."""
    import open_clip
    import torch.nn.functional as F
    from torch import nn

    from vislang.models.dual import DualEncoder, Side
    from vislang.models.heads import Head
    from vislang.preprocess import CLIP_MEAN, CLIP_STD, Preprocess

    with np.load(path) as file:
        visual, table = (torch.tensor(file[k]) for k in ("visual.weight", "token_embedding.weight"))

    class Image(nn.Module):
        width, preprocess = 16, Preprocess()

        def __init__(self):
            super().__init__()
            self.proj = nn.Parameter(visual)

        def forward(self, x):
            mean, std = (torch.tensor(v)[:, None, None] for v in (CLIP_MEAN, CLIP_STD))
            return F.adaptive_avg_pool2d((x / 255 - mean) / std, 4).flatten(1) @ self.proj.T

    class Text(nn.Module):
        width, pad = 16, 0

        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(table)
            self.tokenizer = open_clip.tokenizer.SimpleTokenizer()

        def forward(self, tokens):
            seen = (tokens != 0).float()
            rows = self.table[tokens % 97] * seen[..., None]
            return rows.sum(1) / seen.sum(1, keepdim=True)

    return DualEncoder(Side(Image(), Head(), 16), Side(Text(), Head(), 16))
