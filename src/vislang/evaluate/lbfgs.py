"""L-BFGS for smooth convex functions, to a gradient smaller than function values can show.

Near the optimum the decrease of F drowns in its rounding long before the gradient does, so that
searches that compare values of F stop at a gradient of about 1e-8. Along a line a convex function
has a rising slope: the search here looks for its zero and never asks for F.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float

MEMORY = 20  # pairs of steps and changes of the gradient
Pairs = deque[tuple[np.ndarray, np.ndarray, float]]
FALL, RISE = 0.9, 0.5  # slopes accepted: from 0.9 of the first one, down, to 0.5 of it, up


class Found(NamedTuple):
    """A point, the value and gradient there, how often both were computed, the last steps."""

    x: Float[np.ndarray, " n"]
    value: float
    gradient: Float[np.ndarray, " n"]
    evaluations: int
    pairs: Pairs


def minimise(
    function: Callable[[np.ndarray], tuple[float, np.ndarray]],
    x: Float[np.ndarray, " n"],
    done: Callable[[np.ndarray], bool],
    most: int = 10_000,
    pairs: Pairs | None = None,
) -> Found:
    """Minimise a convex function from its values and gradients.

    Args:
        function: x -> (F, gradient).
        x: where to start.
        done: gradient -> whether it is small enough.
        most: evaluations.
        pairs: of an earlier call at nearly the same function, to go on with its curvature.

    Nocedal & Wright, Numerical Optimization (2006), algorithm 7.4.

    >>> found = minimise(lambda x: (x @ x, 2 * x), np.array([3.0, 4.0]), lambda g: g @ g < 1e-20)
    >>> bool(found.value < 1e-20)
    True
    """
    value, gradient = function(x)
    count, pairs = 1, deque(pairs or (), MEMORY)
    while count < most and not done(gradient):
        direction = -_times_inverse(gradient, pairs)
        slope = float(direction @ gradient)
        if not slope < 0:  # rounding has the last word, or a fresh start helps
            if not pairs:
                break
            pairs.clear()
            continue
        # Without a memory the gradient has no length of its own: a first step of at most 1.
        first = 1.0 if pairs else min(1.0, 1.0 / float(np.sqrt(-slope)))
        step, value, new, used = _search(function, x, direction, slope, first, most - count)
        count += used
        if step == 0.0:
            if not pairs:
                break
            pairs.clear()
            continue
        x = x + step * direction
        change = new - gradient
        along = float(change @ direction) * step
        if along > 0:
            pairs.append((step * direction, change, 1 / along))
        gradient = new
    return Found(x, value, gradient, count, pairs)


def _times_inverse(gradient: np.ndarray, pairs: Pairs) -> np.ndarray:
    """The inverse Hessian that the pairs suggest, times the gradient (two loops)."""
    q = gradient.copy()
    weights = []
    for s, y, rho in reversed(pairs):
        weight = rho * float(s @ q)
        weights.append(weight)
        q -= weight * y
    if pairs:
        s, y, rho = pairs[-1]
        q *= 1 / (rho * float(y @ y))
    for (s, y, rho), weight in zip(pairs, reversed(weights)):
        q += (weight - rho * float(y @ q)) * s
    return q


def _search(function, x, direction, slope: float, step: float, most: int):
    """A step at which the slope along `direction` is small: (step, value, gradient, evaluations).

    The slope is negative at 0 and rises, so a step that is too short has a slope below
    `FALL * slope`, one that is too long a slope above `-RISE * slope`. 0 is given back when no
    step can be told from 0 any more.
    """
    low, low_slope, high, high_slope = 0.0, slope, np.inf, np.nan
    for used in range(1, min(most, 60) + 1):
        value, gradient = function(x + step * direction)
        here = float(gradient @ direction)
        if FALL * slope <= here <= -RISE * slope:
            return step, value, gradient, used
        if np.isfinite(here) and here < 0:
            low, low_slope = step, here
        else:
            high, high_slope = step, here
        if np.isinf(high):
            rising = low_slope - slope
            reach = low * slope / -rising if rising > 0 else np.inf  # zero of the line through both
            step = float(np.clip(reach, 2 * low, 10 * low))
            continue
        inside = high - low
        if inside <= 1e-14 * high:
            break
        guess = low - low_slope * inside / (high_slope - low_slope)
        if not np.isfinite(guess):
            guess = low + inside / 2
        step = float(np.clip(guess, low + 0.1 * inside, high - 0.1 * inside))
    return 0.0, np.nan, gradient, used
