"""vislang export: a trained model as a folder that other programs load."""

from pathlib import Path

from vislang.errors import UserError
from vislang.lookup import nearest

FORMATS = ("open_clip", "vislang", "adapters")


def export(
    model: str,
    *,
    out: Path,
    format: str = "open_clip",
    merge: bool = False,
    ema: bool = False,
    trusted: bool = False,
) -> None:
    """Write a model as a folder for open_clip, or as our own safetensors folder.

    Args:
        model: a run folder (its newest checkpoint), a checkpoint, or open_clip:NAME/PRETRAINED.
        out: folder to write.
        format: open_clip (open_clip_config.json and open_clip_model.safetensors) or vislang
            (vislang.json and model.safetensors; any towers and heads), or adapters (only what
            was added to the towers, and the heads: adapters.safetensors).
        merge: fold the adapters lora and ia3 into the towers' weights first.
        ema: take the moving average of the weights.
        trusted: let the config beside the weights name parts of your own, 'package.module:Name'.
    """
    if format not in FORMATS:
        raise UserError(
            f"--format must be {' or '.join(FORMATS)}, got {format!r}.{nearest(format, FORMATS)}"
        )
    from vislang.models.pretrained import export_open_clip, load_model, save_model

    loaded = load_model(model, ema=ema, trusted=trusted)
    if merge:
        from vislang.models.adapters.merge import merge_adapters

        merge_adapters(loaded)
    if format == "open_clip":
        export_open_clip(loaded, out, *learned_scale(model))
        how = f"open_clip.create_model_from_pretrained('local-dir:{out}')"
    elif format == "adapters":
        from vislang.models.adapters.saved import save_adapters

        path = save_adapters(loaded, out / "adapters.safetensors")
        how = f"vislang.models.adapters.saved.load_adapters(model, {str(path)!r})"
    else:
        if loaded.config is None:
            raise UserError(f"{model} has no config, so only --format open_clip can be written.")
        save_model(loaded, loaded.config, out)
        how = f"vislang.models.pretrained.load_model({str(out)!r})"
    print(f"Exported: {out}\nLoad it with {how}")


def learned_scale(model: str) -> tuple[float | None, float | None]:
    """(log scale, bias) that the objective of a run has learned; None where there is none."""
    folder = Path(model)
    if (folder / "config.yaml").is_file():
        from vislang.models.saved import newest_checkpoint

        folder = newest_checkpoint(folder)
    path = folder / "objective.safetensors"
    if not path.is_file():
        return None, None
    from safetensors.numpy import load_file

    scalars = {k: float(v.item()) for k, v in load_file(path).items() if v.size == 1}
    for name, value in scalars.items():
        # A weighted sum of objectives holds those of its parts under longer names.
        if name.rpartition(".")[2] == "log_scale":
            return value, scalars.get(name.removesuffix("log_scale") + "bias")
    return None, None
