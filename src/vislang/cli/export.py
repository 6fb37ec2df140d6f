"""vislang export: a trained model as a folder that other programs load."""

from pathlib import Path


def export(model: str, *, out: Path, format: str = "open_clip") -> None:
    """Write a model's weights as a folder for open_clip, or as our own safetensors folder.

    Args:
        model: a run folder, a checkpoint, or a name such as open_clip:ViT-B-32/openai.
        out: folder to write.
        format: open_clip (open_clip_config.json + open_clip_model.safetensors) or vislang.
    """
    raise NotImplementedError
