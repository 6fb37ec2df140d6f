"""Small pictures for tests: smooth shapes with texture, on which resizing means something."""

import io

import numpy as np
from PIL import Image


def pixels(seed: int = 0, height: int = 48, width: int = 64) -> np.ndarray:
    """uint8 [height, width, 3]: waves, an edge and a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [
        128
        + 90 * np.sin(x / rng.uniform(3, 20) + rng.uniform(0, 6)) * np.cos(y / rng.uniform(3, 20))
        for _ in range(3)
    ]
    image = np.stack(waves, axis=-1)
    image[y > height * rng.uniform(0.3, 0.7)] += 40
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def encoded(image: np.ndarray | Image.Image, kind: str = "JPEG", **options) -> bytes:
    """An image file's bytes."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    if kind == "JPEG":
        options = {"quality": 90} | options
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(seed: int = 0, height: int = 48, width: int = 64, **options) -> bytes:
    """A JPEG of `pixels`."""
    return encoded(pixels(seed, height, width), "JPEG", **options)
