"""What a model is, in sixteen hex digits: weights, preprocessing, tokenizer, architecture."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vislang.files import fingerprint
from vislang.models.dual import DualEncoder, Side


def fingerprint_side(side: Side, head: bool = False) -> str:
    """Changes whenever the features that this side's tower gives may change.

    It does not depend on the device, on paths, or on whether the tower is frozen. What a store
    or a cache of features was made by is told by it.

    Args:
        side: one side of a model.
        head: include the head, for embeddings in the joint space instead of features.
    """
    tower = side.tower
    about: dict[str, Any] = {
        "weights": _weights(tower),
        # A tower of the user's own may lack settings; its structure then speaks for it.
        "settings": getattr(tower, "settings", None) or repr(tower),
    }
    if hasattr(tower, "preprocess"):
        about["preprocess"] = tower.preprocess
    if hasattr(tower, "adapters"):
        about["adapter"] = [tower.adapters.name, tower.adapters.options]  # type: ignore[union-attr]
    tokenizer = getattr(tower, "tokenizer", None)
    if tokenizer is not None and hasattr(tokenizer, "files"):
        files = tokenizer.files()
        about["tokenizer"] = {k: hashlib.sha256(v).hexdigest() for k, v in files.items()}
    if head:
        about["head"] = {"weights": _weights(side.head), "layers": repr(side.head)}
    return fingerprint(about)


def fingerprint_model(model: DualEncoder) -> str:
    """Changes whenever an embedding or a caption that the model gives may change."""
    sides = {"image": model.image, "text": model.text}
    about = {k: s and fingerprint_side(s, head=True) for k, s in sides.items()}
    if model.decoder is not None:
        about["decoder"] = fingerprint([_weights(model.decoder), model.decoder.options])
    return fingerprint(about)


def _weights(module: nn.Module) -> str:
    return fingerprint_tensors(module.state_dict())


def fingerprint_tensors(state: Mapping[str, Tensor]) -> str:
    """Checksum over every tensor of a state dict, in the order of names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {list(values.shape)}\n".encode())
        # As bytes, because numpy does not know every type (bfloat16).
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
