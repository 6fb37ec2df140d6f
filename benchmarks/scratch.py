"""Training from nothing: B/16@112 with text B here, against open_clip's model of the same size.

    VISLANG_TEST_DATA=... python benchmarks/scratch.py [--batch 16] [--steps 5] [--size B/16@112]

Both train the same weights on the same real pictures and captions of Flickr8k, in memory, one
thread, fp32: forward, the contrastive loss, backward, clipping, fused AdamW.  Steps alternate, the
first two of each only warm up, the rate is that of the median step.  Gate: with the same weights
both have the same first loss, and after their own first step again the same second one.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

WARM = 2


def make_batch(model: Any, size: int) -> tuple[Any, Any]:
    """(uint8 [B, 3, H, W], tokens [B, 32]) of Flickr8k's first pictures."""
    import torch

    from vislang.data.decode import decode_sample
    from vislang.data.sources import open_source

    root = os.environ.get("VISLANG_TEST_DATA")
    if not root:
        raise SystemExit("set VISLANG_TEST_DATA to the folder with flickr8k")
    folder = Path(root) / "flickr8k"
    source = open_source(
        f"flickr:{folder}/captions.csv", images=str(folder / "images_112.zip"), split="train"
    )
    samples = [source[index] for index in range(size)]
    tower = model.side("image").tower
    images = [tower.prepare(decode_sample(sample).pixels) for sample in samples]
    texts = model.side("text").tower.prepare([sample.texts[0] for sample in samples])
    return torch.stack(images), texts


class Ours:
    """One step as `vislang train` takes it."""

    def __init__(self, config: Any, batch: tuple[Any, Any]):
        import torch

        from vislang.models.build import build_model
        from vislang.objectives.build import build_objective
        from vislang.train.optim import make_optimizer

        torch.manual_seed(0)
        self.model = build_model(config.model).train()
        self.objective = build_objective(config.objective, config.model.width)
        modules = {"model": self.model, "objective": self.objective}
        self.optimizer = make_optimizer(modules, config.optim)
        self.batch = {"image": batch[0], "text": batch[1]} if batch else {}

    def step(self) -> float:
        import torch

        from vislang.train.step import backward

        self.optimizer.zero_grad(set_to_none=True)
        loss = backward(self.model, self.objective, self.batch)
        both = [*self.model.parameters(), *self.objective.parameters()]
        torch.nn.utils.clip_grad_norm_(both, 1.0)
        self.optimizer.step()
        self.objective.after_step()
        return loss.item()


class Theirs:
    """One step as open_clip_train takes it, with the same optimizer and groups."""

    def __init__(self, folder: Path, images: Any, texts: Any, config: Any, tower: Any):
        import open_clip
        import torch
        from open_clip.loss import ClipLoss

        self.model, *_ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        self.model.train()
        self.loss = ClipLoss()
        # Its loader hands over normalised floats; that is not part of the step.
        with torch.no_grad():
            self.images, self.texts = tower.pixels(images), texts
        still = [p for n, p in self.model.named_parameters() if p.ndim < 2 or "positional" in n]
        ids = {id(p) for p in still}
        rest = [p for p in self.model.parameters() if id(p) not in ids]
        groups = [{"params": still, "weight_decay": 0.0}, {"params": rest}]
        told = config.optim
        self.optimizer = torch.optim.AdamW(
            groups, told.lr, told.betas, told.eps, told.weight_decay, fused=True
        )

    def step(self) -> float:
        import torch

        self.optimizer.zero_grad(set_to_none=True)
        image, text, scale = self.model(self.images, self.texts)[:3]
        loss = self.loss(image, text, scale)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, 4.6052)
        return loss.item()


def main() -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--size", default="B/16@112")
    parser.add_argument("--text", default="B")
    given = parser.parse_known_args()[0]
    import torch

    from vislang.config import with_changes
    from vislang.models.export import export_open_clip
    from vislang.recipes import find_config

    torch.set_num_threads(1)
    changes = {"model.image.options.size": given.size, "model.text.options.size": given.text}
    config = with_changes(find_config("scratch"), changes)
    ours = Ours(config, ())  # type: ignore[arg-type]
    images, texts = make_batch(ours.model, given.batch)
    ours.batch = {"image": images, "text": texts}
    with tempfile.TemporaryDirectory() as folder:
        export_open_clip(ours.model, folder)
        theirs = Theirs(Path(folder), images, texts, config, ours.model.side("image").tower)
    losses: dict[str, list[float]] = {"ours": [], "theirs": []}
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(WARM + given.steps):
        for name, each in (("ours", ours), ("theirs", theirs)):
            began = time.perf_counter()
            losses[name].append(each.step())
            seconds[name].append(time.perf_counter() - began)
    for mine, other in zip(losses["ours"][:2], losses["theirs"][:2]):
        assert abs(mine - other) < 2e-3 * other, f"losses differ: {losses}"
    rate = {k: given.batch / statistics.median(taken[WARM:]) for k, taken in seconds.items()}
    ratio = rate["ours"] / rate["theirs"]
    return {
        "case": f"{given.size} + text {given.text}, batch {given.batch}, one thread",
        "value": rate["ours"], "unit": "samples/s", "reference": rate["theirs"],
        "reference_is": "open_clip's model of the same size", "ratio": ratio, "target": ">= 1.0",
        "met": ratio >= 1.0, "first_losses": {k: round(v[0], 4) for k, v in losses.items()},
    }  # fmt: skip


if __name__ == "__main__":
    print(main())
