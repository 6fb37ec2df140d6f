"""Training: the seam, the optimizer, checkpoints, and one readable loop."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vislang.train.loop import Judge, train
    from vislang.train.stop import Stopped

__all__ = ["Judge", "Stopped", "train"]


def __getattr__(name: str) -> Any:
    """`train` and `Stopped`, imported when they are asked for: parts of this folder (the seam,
    the optimizer) are of use without the loop and all that it brings along.
    """
    if name in ("train", "Judge"):
        from vislang.train import loop

        return getattr(loop, name)
    if name == "Stopped":
        from vislang.train.stop import Stopped

        return Stopped
    raise AttributeError(name)
