"""vislang interpolate: a model between two others, weight by weight (WiSE-FT)."""

from pathlib import Path


def interpolate(
    start: str,
    end: str,
    *,
    out: Path,
    alpha: float = 0.5,
    ema: bool = False,
    trusted: bool = False,
) -> None:
    """Write the model between two others: (1 - alpha) * START + alpha * END, weight by weight.

    Between a zero-shot model and what was fine-tuned from it, this often keeps the new skill and
    most of the old robustness.

    Args:
        start: the model at alpha 0, for example open_clip:ViT-B-32/openai.
        end: the model at alpha 1: a run folder, a checkpoint or an export of the same architecture.
        out: folder to write; `vislang evaluate` and `vislang embed` take it as a MODEL.
        alpha: where on the line, from 0 to 1.
        ema: take the moving average of END's weights.
        trusted: let the configs beside the weights name parts of your own, 'package.module:Name'.
    """
    from vislang.errors import UserError
    from vislang.models.pretrained import load_model, save_model
    from vislang.models.wise import check_alpha, interpolate_models

    check_alpha(alpha)
    first = load_model(start, trusted=trusted)
    last = load_model(end, ema=ema, trusted=trusted)
    made = interpolate_models(first, last, alpha)
    if made.config is None:
        raise UserError(f"{end} has no config, so the result could not be loaded again.")
    save_model(made, made.config, out)
    print(f"Written: {out}\n{1 - alpha:g} of {start} and {alpha:g} of {end}")
