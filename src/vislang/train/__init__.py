"""Training: the seam, the optimizer, checkpoints, and one readable loop."""

from typing import TYPE_CHECKING

from vislang.lookup import lazily

if TYPE_CHECKING:
    from vislang.train.loop import Judge, train
    from vislang.train.stop import Stopped

__all__ = ["Judge", "Stopped", "train"]

# Parts of this folder (the seam, the optimizer) are of use without the loop and what it brings.
__getattr__ = lazily(
    __name__,
    {
        "Judge": "vislang.train.loop",
        "train": "vislang.train.loop",
        "Stopped": "vislang.train.stop",
    },
)
