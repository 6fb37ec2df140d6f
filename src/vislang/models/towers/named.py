"""Sizes of the towers from scratch by name, as in `--model.image.options.size S/8@112`.

The tables are those of the low-resource CLIP, whose names say size, patch and pixels. Its
S/8@112 was named and did not exist, and its L of the text side divided 512 features among
12 heads; both are real here. Heads onto the joint space are no part of a tower.
"""

from collections.abc import Mapping
from typing import Any

from vislang.errors import UserError
from vislang.lookup import nearest


def _vit(pixels: int, patch: int, width: int, depth: int, heads: int, hidden: int) -> dict:
    return {
        "image_size": pixels, "patch": patch, "width": width, "depth": depth, "heads": heads,
        "mlp_ratio": hidden / width,
    }  # fmt: skip


def _text(width: int, depth: int, heads: int, hidden: int) -> dict:
    return {"width": width, "depth": depth, "heads": heads, "mlp_ratio": hidden / width}


IMAGE_SIZES: dict[str, dict[str, Any]] = {
    "M/14@112": _vit(112, 14, 256, 6, 8, 512),
    "S/16@112": _vit(112, 16, 512, 8, 8, 2048),
    "S/8@112": _vit(112, 8, 512, 8, 8, 2048),
    "B/16@112": _vit(112, 16, 768, 12, 12, 3072),
    "B/32@224": _vit(224, 32, 768, 12, 12, 4096),  # CLIP's own has 3072 hidden features
    "L/14@224": _vit(224, 14, 1024, 24, 16, 4096),
}
TEXT_SIZES: dict[str, dict[str, Any]] = {
    "S": _text(512, 8, 8, 1024),
    "B": _text(512, 12, 8, 2048),
    "L": _text(768, 12, 12, 2048),
}


def of_size(options: Mapping[str, Any], sizes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Options with those that `size` stands for filled in; what is given beside it wins.

    >>> of_size({"size": "L", "width": 384}, TEXT_SIZES)
    {'width': 384, 'depth': 12, 'heads': 12, 'mlp_ratio': 2.6666666666666665}
    """
    rest = {key: value for key, value in options.items() if key != "size"}
    name = options.get("size") or ""
    if not name:
        return rest
    if name not in sizes:
        raise UserError(
            f"No size is called {name!r}.{nearest(str(name), sizes)} Known: {', '.join(sizes)}."
            " Or give width, depth and heads."
        )
    return {**sizes[name], **rest}
