"""Short names for a model's numbers, for caches and for the provenance of scores."""

import hashlib

import torch
from torch import nn

from vislang.files import fingerprint
from vislang.models.dual import DualEncoder, Side


def fingerprint_weights(module: nn.Module) -> str:
    """Sixteen hex digits of a module's parameters and buffers, names and shapes included."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        tensor = value.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def fingerprint_side(side: Side, head: bool = False) -> str:
    """Sixteen hex digits of a tower (with its head, if asked): weights and what it does to input.

    Args:
        side: the side.
        head: whether to take in the head, whose output are the embeddings.
    """
    tower = side.tower
    return fingerprint(
        {
            "weights": fingerprint_weights(side if head else tower),
            "preprocess": getattr(tower, "preprocess", None),
            "settings": getattr(tower, "settings", None),
        }
    )


def fingerprint_model(model: DualEncoder) -> str:
    """Sixteen hex digits of both sides, heads included."""
    sides = {"image": model.image, "text": model.text}
    return fingerprint({k: fingerprint_side(s, head=True) for k, s in sides.items() if s})
