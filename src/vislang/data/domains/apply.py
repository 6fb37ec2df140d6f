"""One picture under many domains: what they share is computed once, a failure concerns one domain.

H, W: the picture's height and width.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.data.sample import BadSample
from vislang.errors import UserError
from vislang.lookup import lookup

if TYPE_CHECKING:
    from jaxtyping import UInt8

    from vislang.data.domains.domain import Domain


class Shared:
    """What several domains need of the same picture, computed when the first one asks."""

    def __init__(self, pixels: UInt8[np.ndarray, "H W 3"]):
        self.pixels = pixels
        self._foreground: dict[str, np.ndarray | BadSample] = {}

    @cached_property
    def grey(self) -> UInt8[np.ndarray, "H W"]:
        """Luma."""
        import cv2

        return cv2.cvtColor(self.pixels, cv2.COLOR_RGB2GRAY)

    def foreground(self, axes: str) -> UInt8[np.ndarray, "H W"]:
        """255 on the object, 0 on the background."""
        from vislang.data.domains.background import find_foreground

        if axes not in self._foreground:
            try:
                self._foreground[axes] = find_foreground(self.pixels, axes)
            except BadSample as bad:
                self._foreground[axes] = bad
        found = self._foreground[axes]
        if isinstance(found, BadSample):
            raise found
        return found


def apply_domains(
    pixels: UInt8[np.ndarray, "H W 3"], domains: Sequence[Domain], *, seed: int, id: str
) -> list[np.ndarray | BadSample]:
    """The picture under each domain; a domain that fails gives a BadSample with the reason.

    The result of one domain depends on the picture, on (seed, id) and on that domain alone: not
    on the others, their order, the process or what was done before.

    Args:
        pixels: RGB; not changed.
        domains: which.
        seed: of the random domains.
        id: of the sample.
    """
    return list(each_domain(pixels, domains, seed=seed, id=id))


def each_domain(
    pixels: UInt8[np.ndarray, "H W 3"], domains: Sequence[Domain], *, seed: int, id: str
) -> Iterator[np.ndarray | BadSample]:
    """Like `apply_domains`, one at a time, so that a picture can make room for the next."""
    shared = Shared(pixels)
    for domain in domains:
        yield _apply(domain, shared, seed, id)


def _apply(domain: Domain, shared: Shared, seed: int, id: str) -> np.ndarray | BadSample:
    function, wanted = operation(domain.operation)
    arguments: dict[str, Any] = dict(domain.parameters)
    if "rng" in wanted:
        arguments["rng"] = domain_rng(seed, id, domain.name)
    if "shared" in wanted:
        arguments["shared"] = shared
    own = domain.operation.startswith("vislang.")
    pixels = shared.pixels if own else shared.pixels.copy()  # a user's may draw into its input
    try:
        made = function(pixels, **arguments)
    except BadSample as bad:
        return BadSample(id, f"{domain.name}: {bad.reason}")
    except UserError:
        raise
    except ModuleNotFoundError as error:  # no picture's fault
        raise UserError(
            f"The domain {domain.name!r} needs the package {error.name!r}, which is not installed:"
            " pip install 'vislang[images]', or choose other domains."
        ) from error
    except Exception as error:  # somebody else's function, or pixels that OpenCV refuses
        return BadSample(id, f"{domain.name}: failed with {type(error).__name__}: {error}")
    return _checked(made, domain, id)


def _checked(made: Any, domain: Domain, id: str) -> np.ndarray | BadSample:
    got = f"{made.dtype} {list(made.shape)}" if isinstance(made, np.ndarray) else repr(type(made))
    if (
        not isinstance(made, np.ndarray)
        or made.dtype != np.uint8
        or made.ndim != 3
        or made.shape[2] != 3
        or not made.size
    ):
        return BadSample(id, f"{domain.name}: gave {got} where uint8 [H, W, 3] is needed")
    return np.ascontiguousarray(made)


@lru_cache(maxsize=256)
def operation(name: str) -> tuple[Callable[..., Any], frozenset[str]]:
    """The function of an operation and the names of its parameters."""
    # Ours are as good as registered, so that a missing package is named with its extra.
    table = {name: name} if name.startswith("vislang.") else {}
    function = lookup("operation", table, name)
    return function, frozenset(inspect.signature(function).parameters)


def domain_rng(seed: int, id: str, domain: str) -> np.random.Generator:
    """The randomness of one picture under one domain."""
    key = f"{seed}\x00{id}\x00{domain}".encode()
    digest = hashlib.blake2b(key, digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
