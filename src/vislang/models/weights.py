"""Reading weights into a module: every key must fit, and every misfit is named."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from vislang.errors import UserError

# How the tensors of one tower are prefixed in the files of the world, by side. "" first.
# encoder: SimSiam's, and Lightning-Bolts' SimCLR; base_encoder: MoCo v3's (beside its momentum
# copy); visual_backbone: the training checkpoints of the language-guided code.
PREFIXES = {
    "image": (
        "", "image.tower.", "visual.", "model.visual.", "encoder.", "base_encoder.",
        "visual_backbone.",
    ),
    "text": ("", "text.tower.", "text.", "model.text."),
}  # fmt: skip
WRAPPERS = ("module.", "_orig_mod.")
# What only self-supervised training needs, beside a whole image tower (SwAV's among others).
SPARE = ("projection_head.", "prototypes.", "projector.", "predictor.", "head.mlp.")


def load_pretrained(
    module: nn.Module, path: str, side: str, ignore: Iterable[str] = (), what: str = ""
) -> None:
    """Fill a tower from a local file of weights.

    The file may hold the tower alone, or a whole model of ours or of open_clip, of which the
    tower's part is taken.

    Args:
        module: the tower.
        path: .safetensors, or a foreign .pt, .pth, .bin (converted in a child process).
        side: "image" or "text".
        ignore: prefixes of tensors that the tower does not want, a classifier's for example.
        what: the tower's name, for the error message.
    """
    state = read_weights(path)
    names = set(module.state_dict())
    part = take_part(state, names, PREFIXES[side])
    dropped = tuple(ignore)
    kept = {k: v for k, v in part.items() if k in names or not (dropped and k.startswith(dropped))}
    load_exactly(module, kept, f"{path} into {what or type(module).__name__}")


def take_part(
    state: Mapping[str, Tensor], names: set[str], prefixes: Iterable[str]
) -> dict[str, Tensor]:
    """The part of a state dict whose keys, less a prefix, fit `names` best."""
    for wrapper in WRAPPERS:
        if state and all(key.startswith(wrapper) for key in state):
            state = {key.removeprefix(wrapper): value for key, value in state.items()}
    best: dict[str, Tensor] = {}
    most = -1
    for prefix in prefixes:
        part = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if prefix == "" and names <= set(part):
            # CLIP keeps its text tower at the top level, beside the image tower and the scale.
            part = {k: v for k, v in part.items() if k in names or not _beside(k)}
            part = {k: v for k, v in part.items() if k in names or not k.startswith(SPARE)}
        fitting = len(names & set(part))
        if fitting > most:
            best, most = part, fitting
    return best


def _beside(key: str) -> bool:
    return key.startswith("visual.") or key in ("logit_scale", "logit_bias", "text_projection")


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load a state dict whose keys and shapes must be the module's; else name the first misfits."""
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key} is {list(state[key].shape)}, not {list(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if missing or unexpected or shapes:
        raise UserError(
            f"The weights do not fit: {what}."
            + _some("Missing", missing)
            + _some("Unexpected", unexpected)
            + _some("Of another shape", shapes)
            + " The file was made by another architecture, or with other options."
        )
    module.load_state_dict(dict(state))


def _some(label: str, items: list[str], shown: int = 3) -> str:
    if not items:
        return ""
    more = f" and {len(items) - shown} more" if len(items) > shown else ""
    return f" {label}: {', '.join(items[:shown])}{more}."


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file of weights; a pickled one is never read in this process."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"There is no file of weights at {path}. Check the path.")
    if path.suffix != ".safetensors":
        from vislang.models.foreign import convert

        path = convert(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(
            f"{path} is no whole safetensors file ({error}). Copy or make it again."
        ) from error
