"""Which captions name a domain: its words, or words in a row; whole columns at a time.

n: captions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool

Target = str  # one word, or several in a row, with single spaces

_PHOTO = ("photo", "photograph")
TARGETS: dict[str, tuple[Target, ...]] = {
    "blur": ("blur", "blurr", "blurred", "blured", "blury", "blurry", "blurryest", "blurriest",
             "bluryest", "bluriest", "blurier", "blurrier", "blurryer", "bluryer"),
    "brighten": ("bright", "overexposed", "over exposed", "brightly lit"),
    "closeup": ("closeup", "close up"),
    "dim": ("dim", "underexposed", "under exposed", "dimly lit"),
    "fisheye": ("fisheye",),
    "foggy": ("foggy", "fogy", "foggier", "foggyer", "fogyer", "fogier", "foggiest", "fogiest",
              "fogyest", "foggyest"),
    "grayscale": tuple(f"{kind} {noun}" for kind in
                       ("black and white", "vintage", "grayscale", "gray scale")
                       for noun in _PHOTO),
    "low_res": ("lores", "lowres", "lorez", "lowrez", "lo res", "lo rez", "low res", "low rez",
                "low resolution"),
    "make_background_black": ("black background",),
    "make_background_blue": ("blue background",),
    "make_background_white": ("clipart", "clip art", "white background"),
    "noop": _PHOTO,
    "posterize": ("poster", "cartoon"),
    "sepia": ("sepia",),
    "sideways": ("sideways", "side ways"),
    "sketchify": ("drawing", "sketch"),
    "tilt": ("tilt", "tilted"),
    "upside_down": ("upsidedown", "upside down"),
}  # fmt: skip
_MARKS = r"[!-/:-@\[-`{-~0-9]"  # ASCII punctuation and digits
_SPACE = r"[\x09-\x0d\x1c-\x20\x{85}\p{Z}]+"


def spaced_words(captions: Any) -> Any:
    """Captions as ' word word ': lower case, ASCII punctuation and digits as spaces; null is ' '.

    >>> import pyarrow as pa
    >>> spaced_words(pa.array(["A Low-Res photo!", None])).to_pylist()
    [' a low res photo ', ' ']
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pc.fill_null(captions.cast(pa.string()), "")
    # Python's lower() keeps the dot of this letter as a mark of its own; Arrow drops it.
    text = pc.replace_substring(text, "\u0130", "i\u0307")  # type: ignore[attr-defined]
    text = pc.replace_substring_regex(pc.utf8_lower(text), _MARKS, " ")  # type: ignore[attr-defined]
    text = pc.binary_join_element_wise(" ", text, " ", "")  # type: ignore[attr-defined]
    return pc.replace_substring_regex(text, _SPACE, " ")  # type: ignore[attr-defined]


def match_targets(
    captions: Any, targets: Mapping[str, Sequence[Target]] | None = None
) -> tuple[tuple[str, ...], Bool[np.ndarray, "n C"]]:
    """(domains, whether each caption names each domain).

    Args:
        captions: a column of texts.
        targets: domain -> words, or words in a row; the original's by default.
    """
    import pyarrow.compute as pc

    chosen = TARGETS if targets is None else targets
    text = spaced_words(captions)
    out = np.zeros((len(text), len(chosen)), bool)
    for place, words in enumerate(chosen.values()):
        for word in words:
            found = pc.match_substring(text, f" {word} ")  # type: ignore[attr-defined]
            out[:, place] |= found.to_numpy(zero_copy_only=False)
    return tuple(chosen), out
