"""Superpixels of an image at several levels, as label maps.

The labels are scikit-image's (Achanta et al. 2012, SLIC), bit for bit.  What all levels share is
done once: the stretch to [0, 1] and the conversion to Lab; requests that lead to the same grid of
seeds are answered with one map.  L: levels, H, W: pixels.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Int, UInt8

LEVELS = tuple(range(100, 601, 50))
_ITERATIONS, _SMALLEST, _LARGEST = 10, 0.5, 3.0  # scikit-image's defaults


def label_maps(
    image: UInt8[np.ndarray, "H W 3"],
    levels: Sequence[int] = LEVELS,
    compactness: float = 50.0,
    sigma: float = 0.0,
) -> Int[np.ndarray, "L H W"]:
    """Label maps int32 from 0 on, without gaps, for each requested number of segments.

    The real number differs from the requested one, because seeds lie on a grid.

    Args:
        image: the picture.
        levels: requested numbers of segments; a level that occurs twice counts twice.
        compactness: weight of distance against colour.
        sigma: of a Gaussian blur before (0: none).
    """
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UserError(f"Superpixels need an RGB image [H, W, 3], got {list(image.shape)}.")
    if not levels or min(levels) < 1:
        raise UserError(f"Levels must be numbers of segments of at least 1, got {list(levels)}.")
    try:
        from skimage.segmentation import _slic  # pyright: ignore[reportAttributeAccessIssue]

        return _shared(image, levels, compactness, sigma, _slic)
    except (ImportError, AttributeError, TypeError):  # another release of scikit-image
        return np.stack([one_level(image, n, compactness, sigma) for n in levels])


def one_level(
    image: UInt8[np.ndarray, "H W 3"], segments: int, compactness: float = 50.0, sigma: float = 0.0
) -> Int[np.ndarray, "H W"]:
    """One label map by scikit-image's public function, labels from 0 on."""
    from skimage.segmentation import slic

    pixels = image.astype(np.float32) / 255
    return _from_zero(slic(pixels, n_segments=segments, compactness=compactness, sigma=sigma))


def _from_zero(labels: np.ndarray) -> np.ndarray:
    """Labels in ascending order as 0 ... n-1."""
    low, high = int(labels.min()), int(labels.max())
    present = np.zeros(high - low + 1, np.int32)
    present[labels.ravel() - low] = 1
    return (np.cumsum(present, dtype=np.int32) - 1)[labels - low]


def _shared(image, levels, compactness: float, sigma: float, _slic) -> np.ndarray:
    from skimage.color import rgb2lab
    from skimage.util import regular_grid

    pixels = image.astype(np.float32) / 255
    pixels -= pixels.min()
    if (largest := pixels.max()) > 0:
        pixels /= largest
    lab = rgb2lab(pixels[None])
    if sigma > 0:
        from skimage.filters import gaussian

        blur: Any = [sigma, sigma, sigma, 0]
        lab = gaussian(lab, sigma=blur, mode="reflect")
    lab = np.ascontiguousarray(lab * (1 / compactness), dtype=np.float32)
    shape = lab.shape[:3]
    places = np.mgrid[: shape[0], : shape[1], : shape[2]]
    made: dict[tuple, np.ndarray] = {}
    maps = []
    for segments in levels:
        grid = regular_grid(shape, segments)
        key = tuple((s.start, s.stop, s.step) for s in grid)
        if key not in made:
            made[key] = _one(lab, grid, places, _slic)
        maps.append(made[key])
    return np.stack(maps)


def _one(lab: np.ndarray, grid, places: np.ndarray, _slic) -> np.ndarray:
    """One level on the prepared Lab image [1, H, W, 3]."""
    centres = np.stack([axis[grid].ravel() for axis in places], axis=-1)
    steps = np.asarray([float(s.step) if s.step is not None else 1.0 for s in grid])
    seeds = np.concatenate([centres, np.zeros((len(centres), lab.shape[3]))], axis=-1)
    seeds = np.ascontiguousarray(seeds, dtype=lab.dtype)
    spacing = np.ones(3, dtype=lab.dtype)
    labels = _slic._slic_cython(
        lab, None, seeds, max(steps), _ITERATIONS, spacing, False, ignore_color=False, start_label=1
    )
    size = int(np.prod(lab.shape[:3]) / len(centres))
    labels = _slic._enforce_label_connectivity_cython(
        labels, int(_SMALLEST * size), int(_LARGEST * size), start_label=1
    )
    return _from_zero(labels[0])


class Superpixels:
    """`label_maps` of many images: in worker processes, and remembered by the image's content.

    Args:
        levels, compactness, sigma: of `label_maps`.
        workers: processes besides this one (0: none).
        remember: images whose maps are kept.
    """

    def __init__(
        self,
        levels: Sequence[int] = LEVELS,
        compactness: float = 50.0,
        sigma: float = 0.0,
        workers: int = 0,
        remember: int = 64,
    ):
        self.levels, self.compactness, self.sigma = tuple(levels), compactness, sigma
        self.workers, self.remember = workers, remember
        self._kept: OrderedDict[str, np.ndarray] = OrderedDict()
        self._pool: ProcessPoolExecutor | None = None

    def __call__(self, images: Sequence[UInt8[np.ndarray, "H W 3"]]) -> list[np.ndarray]:
        """The label maps [L, H, W] of each image."""
        keys = [_content(image) for image in images]
        missing = {k: i for k, i in zip(keys, images) if k not in self._kept}
        fresh = dict(zip(missing, self._make(list(missing.values()))))
        out = []
        for key in keys:
            found = fresh.get(key)
            out.append(self._kept[key] if found is None else found)
        self._kept |= fresh
        for key in keys:
            self._kept.move_to_end(key)
        while len(self._kept) > self.remember:
            self._kept.popitem(last=False)
        return out

    def _make(self, images: list[np.ndarray]) -> list[np.ndarray]:
        arguments = (self.levels, self.compactness, self.sigma)
        if not self.workers or len(images) < 2:
            return [label_maps(image, *arguments) for image in images]
        if self._pool is None:
            # Forking a process in which torch runs threads may hang.
            import multiprocessing

            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.workers, context)
        jobs = [self._pool.submit(label_maps, image, *arguments) for image in images]
        return [job.result() for job in jobs]

    def close(self) -> None:
        """End the worker processes."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def _content(image: np.ndarray) -> str:
    """What tells images apart: their size and all of their pixels."""
    digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16)
    return f"{image.shape}{digest.hexdigest()}"
