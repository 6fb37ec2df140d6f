"""vislang embed: turn a source into a folder of embeddings; run again to resume."""

from pathlib import Path
from typing import Any


def embed(
    model: str,
    source: str,
    *,
    out: Path,
    options: dict[str, Any] | None = None,
    batch_size: int = 256,
    workers: int = 2,
    device: str = "auto",
) -> None:
    """Embed every image and text of a source; the same command again goes on where it stopped.

    Args:
        model: a run folder, a checkpoint, or a name such as open_clip:ViT-B-32/openai.
        source: a path whose layout is recognised, layout:path, or a name (`vislang list sources`).
        out: store folder to fill; units already there are kept.
        options: arguments of the source's layout, for example {split: test}.
        batch_size: samples a forward pass.
        workers: loader processes; 0 loads in this process.
        device: auto, cpu, cuda or cuda:N.
    """
    raise NotImplementedError
