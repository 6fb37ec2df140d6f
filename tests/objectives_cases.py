"""Small cases of every objective, for the contract tests.

B: rows of the global batch, WIDTH: embedding width. An objective that is listed but has no
entry here is tested with its default options.
"""

import torch
import torch.nn.functional as F

from vislang.config import ObjectiveConfig
from vislang.lookup import lookup
from vislang.objectives import OBJECTIVES
from vislang.objectives.build import _schema, build_objective
from vislang.objectives.protoclip import ProtoCLIP

WIDTH = 6
CLASSES = 3

# Options that shrink an objective to test size; nothing that changes its mathematics.
_HEAD = {"layers": 2, "hidden": 7, "bottleneck": 5, "prototypes": 11}
OPTIONS: dict[str, dict] = {
    "cross_entropy": {"classes": CLASSES, "sides": ["image", "text"]},
    "declip": {"queue": 10},
    "slip": {"projector": [9, 5]},
    "protoclip": {"clusters": 4, "projector": [9], "projection": 5, "warmup": 0},
    "simreg": {"predictor": [8]},
    "seed": {"queue": 10},
    "compress_1q": {"queue": 10},
    "compress_2q": {"queue": 10},
    "protocpc": _HEAD,
    "dino": {**_HEAD, "crops": 2},
    "vicreg": {"projector": [9, 8]},
    "barlow_twins": {"projector": [9, 8]},
    "ntxent": {"projector": [9, 5]},
    "simsiam": {"projector": [9, 7], "predictor": 5},
    "byol": {"projector": [9, 5], "predictor": 8, "steps": 10},
    "nnclr": {"projector": [9, 5], "predictor": 8, "queue": 10},
    "disentangle": {"classes": 2, "domains": 2, "orthogonal": True},
    "swav": {"projector": [9, 5], "prototypes": 7, "queue": 10, "crops": 1},
}

NAMES = sorted(OBJECTIVES)


def make(name, width=WIDTH, seed=0, dtype=torch.float64, **options):
    """An objective of test size under its own seed."""
    torch.manual_seed(seed)
    config = ObjectiveConfig(name, {**OPTIONS.get(name, {}), **options})
    objective = build_objective(config, width, image_width=width).to(dtype)
    if isinstance(objective, ProtoCLIP):
        generator = torch.Generator().manual_seed(seed)
        image, text = torch.randn(2, 30, 5, generator=generator, dtype=dtype)
        objective.cluster(torch.arange(30), F.normalize(image), F.normalize(text))
    return objective


def option_names(name):
    """The options that an objective has."""
    return set(_schema(lookup("objective", OBJECTIVES, name))[0])


def rows(objective, count, width=WIDTH, seed=0, dtype=torch.float64):
    """A batch of `count` rows with all keys that the objective needs; embeddings are leaves."""
    generator = torch.Generator().manual_seed(seed + 1000)  # not the numbers of a queue
    batch = {}
    for key in objective.needs:
        if key == "label":
            batch[key] = torch.randint(-1, CLASSES, (count,), generator=generator)
        elif key == "index":
            batch[key] = torch.arange(count) * 5 + seed
        elif key == "caption_ids":
            batch[key] = torch.randint(-1, 5, (count, 4), generator=generator)
        elif key == "caption_logits":
            batch[key] = torch.randn(count, 4, 5, generator=generator, dtype=dtype)
        else:
            batch[key] = torch.randn(count, width, generator=generator, dtype=dtype)
    return leaves(batch)


def leaves(batch):
    """Embeddings as leaves that ask for gradient; teachers' and integers as they are."""
    return {
        key: value.detach()
        .clone()
        .requires_grad_(value.is_floating_point() and not key.endswith("_teacher"))
        for key, value in batch.items()
    }


def gradients(objective, batch):
    """Loss, gradient by batch key, gradient by parameter name; None where there is none."""
    objective.zero_grad(set_to_none=True)
    wanted = {key: value for key, value in batch.items() if value.requires_grad}
    trained = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    loss = objective(**batch)
    found = torch.autograd.grad(loss, [*wanted.values(), *trained.values()], allow_unused=True)
    by_key = dict(zip(wanted, found))
    by_name = dict(zip(trained, found[len(wanted) :]))
    return loss.detach(), by_key, by_name


def descend(objective, by_name, rate=0.01):
    """One plain gradient step on the objective's own parameters, then its after_step."""
    with torch.no_grad():
        for name, parameter in objective.named_parameters():
            if by_name.get(name) is not None:
                parameter -= rate * by_name[name]
    objective.after_step()
