"""Adapters, prompts and heads in a file of their own, some megabytes beside a tower's gigabyte."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vislang.errors import UserError
from vislang.files import fingerprint, write_whole
from vislang.lookup import nearest
from vislang.models.adapters import ADAPTERS
from vislang.models.adapters.insert import insert_adapters
from vislang.models.dual import DualEncoder, Side
from vislang.models.fingerprint import fingerprint_tensors
from vislang.models.layers import ADDED
from vislang.models.prompt_tuning import insert_prompt
from vislang.models.weights import load_exactly

FORMAT = "vislang adapters 1"
PARTS = ("tower.adapters", "tower.prompt", "head")


def save_adapters(model: DualEncoder, path: Path | str, heads: bool = True) -> Path:
    """Write what was added to a model's towers as one safetensors file, whole or absent.

    The file says which weights the towers had: it will not be laid over others.

    Args:
        model: at least one side has adapters or a prompt.
        path: the file, by custom *.safetensors.
        heads: also write the heads, which are trained along with adapters.
    """
    state: dict[str, Tensor] = {}
    about: dict[str, Any] = {}
    for name, side in _sides(model).items():
        added = {k: v for k, v in side.tower.state_dict().items() if k.startswith(ADDED)}
        if not added:
            continue
        adapters, prompt = getattr(side.tower, "adapters", None), _prompt(side.tower)
        about[name] = {
            "adapter": adapters.name if adapters is not None else "",
            "options": adapters.options if adapters is not None else {},
            "prompt_tokens": 0 if prompt is None else len(prompt.vectors),
            "base": _base(side.tower),
        }
        state |= {f"{name}.tower.{key}": value for key, value in added.items()}
        if heads:
            state |= {f"{name}.head.{k}": v for k, v in side.head.state_dict().items()}
    if not about:
        raise UserError("The model has no adapters and no prompt to save.")
    from safetensors.torch import save

    path = Path(path)
    copies = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
    write_whole(path, save(copies, {"format": FORMAT, "sides": json.dumps(about)}))
    return path


def load_adapters(model: DualEncoder, path: Path | str, any_base: bool = False) -> DualEncoder:
    """Put the adapters of a file into a model, in place; returns the model.

    A side without adapters gets those that the file describes; one that has them must have the
    same.

    Args:
        model: whose towers have the weights that the adapters were trained on.
        path: what `save_adapters` wrote.
        any_base: load them onto other weights all the same.

    Raises:
        UserError: no such file, other adapters, or a tower with other weights.
    """
    path = Path(path).expanduser()
    about, state = _read(path)
    for name, told in about.items():
        side = model.side(name)
        if not any_base and _base(side.tower) != told["base"]:
            raise UserError(
                f"{path}: the adapters of the {name} side were trained on other weights than this"
                " tower has, and would be noise on them. Load the model that they were trained on,"
                " or say any_base=True."
            )
        _agree(side, name, told, path)
        for part in PARTS:
            prefix = f"{name}.{part}."
            found = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            if found:
                load_exactly(side.get_submodule(part), found, f"{path} into {name}.{part}")
    return model


def _agree(side: Side, name: str, told: dict[str, Any], path: Path) -> None:
    """Insert what the file describes, or check that the side has the very same."""
    tower = side.tower
    if told["prompt_tokens"] and _prompt(tower) is None:
        insert_prompt(tower, told["prompt_tokens"])
    own = getattr(tower, "adapters", None)
    if own is None and told["adapter"]:
        if told["adapter"] not in ADAPTERS:
            raise UserError(
                f"{path} holds adapters {told['adapter']!r}, which this vislang does not know."
                f"{nearest(told['adapter'], ADAPTERS)} Known: {', '.join(ADAPTERS)}."
            )
        insert_adapters(tower, told["adapter"], told["options"], trusted=False)
    elif own is not None:
        has = (own.name, fingerprint(own.options))
        if has != (told["adapter"], fingerprint(told["options"])):
            raise UserError(
                f"{path} holds adapters {told['adapter']!r} {told['options']} for the {name} side,"
                f" which has {own.name!r} {own.options}. Build the model without adapters first."
            )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"There is no file of adapters at {path}. Check the path.")
    try:
        with safe_open(path, "pt") as file:
            told = file.metadata() or {}
            if told.get("format") != FORMAT:
                raise UserError(
                    f"{path} was not written by save_adapters (its format is"
                    f" {told.get('format')!r}, not {FORMAT!r})."
                )
            names = file.keys()
            return json.loads(told["sides"]), {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise UserError(f"{path} is no whole safetensors file ({error}). Copy it again.") from error


def _base(tower: nn.Module) -> str:
    """Fingerprint of a tower's own weights, without what was added."""
    own = {k: v for k, v in tower.state_dict().items() if not k.startswith(ADDED)}
    return fingerprint_tensors(own)[:16]


def _prompt(tower: nn.Module) -> Any:
    return getattr(tower, "prompt", None)


def _sides(model: DualEncoder) -> dict[str, Side]:
    both = {"image": model.image, "text": model.text}
    return {name: side for name, side in both.items() if side is not None}
