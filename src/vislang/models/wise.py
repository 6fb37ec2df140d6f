"""WiSE-FT: the straight line between the weights of two models.

Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", arXiv:2109.01903, eq. 1.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vislang.errors import UserError
from vislang.files import differences, plain
from vislang.models.dual import DualEncoder

# What a tower is called, and what acts only in training, may differ.
FREE = ("name", "dropout", "model_options")


def interpolate_states(
    start: Mapping[str, Tensor], end: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """(1 - alpha) · start + alpha · end for every floating tensor; exact at both ends.

    Whole numbers (counters of batch norms, indices) are those of `end`: a share of them means
    nothing.

    >>> start, end = {"w": torch.zeros(2), "n": torch.tensor(3)}, {"w": torch.ones(2), "n": 7}
    >>> interpolate_states(start, end | {"n": torch.tensor(7)}, 0.25)
    {'w': tensor([0.2500, 0.2500]), 'n': tensor(7)}
    """
    check_alpha(alpha)
    if set(start) != set(end):
        missing, extra = sorted(set(end) - set(start)), sorted(set(start) - set(end))
        raise UserError(
            f"The two models have different weights: the first lacks {missing[:3]} ({len(missing)}"
            f" in all) and has {extra[:3]} besides ({len(extra)}). Both must be of one"
            " architecture; adapters are merged first (`vislang export --merge`)."
        )
    made = {}
    for name, last in end.items():
        first = start[name]
        if first.shape != last.shape:
            raise UserError(
                f"The two models differ in the shape of {name}: {list(first.shape)} and"
                f" {list(last.shape)}. Both must be of one architecture."
            )
        # torch.lerp returns its ends bit for bit; half precision would round on the way.
        wide = torch.promote_types(last.dtype, torch.float32)
        made[name] = (
            torch.lerp(first.to(wide), last.to(wide), alpha).to(last.dtype)
            if last.is_floating_point()
            else last.clone()
        )
    return made


def check_alpha(alpha: float) -> None:
    """Refuse a share outside of [0, 1]."""
    if not 0 <= alpha <= 1:
        raise UserError(
            f"alpha must lie between 0 (the first model) and 1 (the second), got {alpha}."
        )


def interpolate_models(start: DualEncoder, end: DualEncoder, alpha: float) -> DualEncoder:
    """A third model on the straight line from `start` (zero-shot) to `end` (fine-tuned).

    Args:
        start: alpha 0.
        end: alpha 1; architecture and config of the result are its.
        alpha: where on the line, in [0, 1].

    Raises:
        UserError: the models are not of one architecture.
    """
    check_alpha(alpha)
    check_alike(start, end)
    made = copy.deepcopy(end)
    made.load_state_dict(interpolate_states(start.state_dict(), end.state_dict(), alpha))
    return made


def check_alike(start: DualEncoder, end: DualEncoder) -> None:
    """Refuse two models that are not of one architecture."""
    for name in ("image", "text"):
        one, other = getattr(start, name), getattr(end, name)
        if (one is None) != (other is None):
            raise UserError(f"Only one of the two models has a {name} side. Both need the same.")
        if one is None:
            continue
        changed = differences(_about(one), _about(other))
        if changed:
            raise UserError(
                f"The {name} sides of the two models differ in {', '.join(changed[:3])}"
                f"{f' and {len(changed) - 3} more' if len(changed) > 3 else ''}."
                " Both must be of one architecture."
            )
    decoders = [model.decoder and plain(model.decoder.options) for model in (start, end)]
    if decoders[0] != decoders[1]:
        raise UserError(
            f"The text decoders of the two models differ: {decoders[0]} and {decoders[1]}."
            " Both must be of one architecture."
        )


def _about(side: Any) -> dict[str, Any]:
    """What decides how the weights of a side are used."""
    settings = plain(getattr(side.tower, "settings", {}))
    return {
        "tower": type(side.tower).__name__,
        "settings": {k: v for k, v in settings.items() if k not in FREE},
        "preprocess": plain(getattr(side.tower, "preprocess", None)),
        "head": repr(side.head),
    }
