"""When a run saves a checkpoint: every so many steps, and at given fractions of epochs.

L: steps of an epoch.
"""

from collections.abc import Sequence
from fractions import Fraction

from vislang.errors import UserError

# What the original's fine-tuning saved beside the beginning of each epoch.
FRACTIONS = (
    *(f"1/{2**power}" for power in range(10, 0, -1)), "3/4", "5/4", "3/2", "7/4"
)  # fmt: skip
DOUBLING = "doubling"


def cadence(text: str, steps_per_epoch: int, field: str) -> int:
    """'500 steps' or '0.5 epochs' as a number of steps; empty is 0 (never).

    >>> cadence("0.5 epochs", 100, "run.checkpoint_every"), cadence("20 steps", 100, "")
    (50, 20)
    """
    if not text:
        return 0
    words = text.split()
    try:
        number = float(words[0])
        unit = words[1].rstrip("s") if len(words) == 2 else ""
        steps = {"step": number, "epoch": number * steps_per_epoch}[unit]
    except (ValueError, KeyError) as error:
        raise UserError(
            f"{field} must be like '500 steps' or '0.5 epochs', got {text!r}."
        ) from error
    if number <= 0:
        raise UserError(f"{field} must be above 0, or empty for never, got {text!r}.")
    return max(1, round(steps))


def checkpoint_steps(epochs: Sequence[str], steps_per_epoch: int, steps: int) -> set[int]:
    """Steps that are done when the checkpoints of `run.checkpoint_at` are saved.

        step = ⌊f⌋ L + round((f - ⌊f⌋) L)          (a half goes to the even number)

    A checkpoint holds the state *between* two steps: "after `step` steps" and "before the step of
    that number, counted from 0" are the same moment. Step 0 is the model as it starts.

    Args:
        epochs: fractions such as 1/1024, 0.5 or 7/4, or "doubling".
        steps_per_epoch: L.
        steps: of the whole run.

    >>> sorted(checkpoint_steps(("0", "1/8", "5/4"), 100, 200))
    [0, 12, 125]
    >>> sorted(checkpoint_steps(("doubling",), 64, 128))
    [0, 1, 2, 4, 8, 16, 32, 48, 64, 80, 96, 112]
    """
    found = set()
    for text in epochs:
        if text == DOUBLING:
            whole = range(-(-steps // steps_per_epoch))
            asked = [*map(Fraction, FRACTIONS), *map(Fraction, whole)]
            found |= {step for f in asked if (step := _step(f, steps_per_epoch)) < steps}
            continue
        step = _step(_fraction(text), steps_per_epoch)
        if step > steps:
            raise UserError(
                f"run.checkpoint_at has epoch {text}, but the run ends at epoch"
                f" {steps / steps_per_epoch:g}. Leave it out, or train for longer."
            )
        found.add(step)
    return found


def _step(f: Fraction, steps_per_epoch: int) -> int:
    whole = f.numerator // f.denominator
    return whole * steps_per_epoch + round((f - whole) * steps_per_epoch)


def _fraction(text: str) -> Fraction:
    try:
        f = Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise UserError(
            f"run.checkpoint_at must list epochs such as 0, 1/1024, 0.5 or 7/4, or {DOUBLING!r},"
            f" got {text!r}."
        ) from error
    if f < 0:
        raise UserError(f"run.checkpoint_at must not have an epoch below 0, got {text!r}.")
    return f
