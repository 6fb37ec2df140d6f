"""Models as folders: writing one, and reading one that we wrote.

An exported folder is whole by itself: `vislang.json` (written last) describes the architecture
without any path or download and holds the checksums of the other files.

    model.safetensors  vislang.json  [tokenizer.json]  [sentence/...]
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor, nn

from vislang import __version__
from vislang.config import ModelConfig, TowerConfig, TrainConfig, from_dict, read_config, to_dict
from vislang.errors import UserError
from vislang.files import DONE, read_json, sha256_file, write_json, write_whole
from vislang.models.build import NO_SIDE, build_model
from vislang.models.dual import DualEncoder
from vislang.models.fingerprint import fingerprint_model
from vislang.models.weights import load_exactly, read_weights

NOTE = "vislang.json"
WEIGHTS = "model.safetensors"
HERE = "{here}"
FORMAT = 1


def save_model(model: DualEncoder, config: ModelConfig, folder: Path | str) -> Path:
    """Write a model as a folder that `load_model` reads anywhere.

    Its note `vislang.json` is written last, with the checksums of all files: a folder without it,
    or that does not agree with it, is never taken for a model.

    Args:
        model: the model.
        config: what it was built from.
        folder: where; files of an earlier export there are replaced.
    """
    folder = Path(folder)
    (folder / NOTE).unlink(missing_ok=True)
    files: dict[str, bytes] = {WEIGHTS: tensor_bytes(model)}
    parts = {}
    for name in ("image", "text"):
        side, part = getattr(model, name), getattr(config, name)
        if side is None:
            parts[name] = TowerConfig(name="")
            continue
        files |= side.tower.files() if hasattr(side.tower, "files") else {}
        options = getattr(side.tower, "settings", part.options)
        parts[name] = replace(part, options=options, pretrained="")
    for name, content in files.items():
        write_whole(folder / name, content)
    about = {
        "format": FORMAT,
        "vislang": __version__,
        "model": to_dict(replace(config, **parts, width=model.width, start="")),
        "fingerprint": fingerprint_model(model),
        "sha256": {name: sha256_file(folder / name) for name in files},
    }
    write_json(folder / NOTE, about)
    return folder


def tensor_bytes(module: nn.Module) -> bytes:
    """A module's state as the bytes of a safetensors file."""
    from safetensors.torch import save

    state: dict[str, Tensor] = {}
    places = set()
    for name, value in module.state_dict().items():
        tensor = value.detach().cpu().contiguous()
        # Tied weights share memory, which the format refuses: write each out.
        state[name] = tensor.clone() if tensor.data_ptr() in places else tensor
        places.add(tensor.data_ptr())
    return save(state)


def load_export(folder: Path, trusted: bool = False) -> DualEncoder:
    """A folder that `save_model` wrote, after checking every checksum."""
    about = read_json(folder / NOTE)
    if not isinstance(about, Mapping) or about.get("format") != FORMAT:
        made = about.get("vislang") if isinstance(about, Mapping) else None
        raise UserError(
            f"{folder / NOTE} is not of format {FORMAT} (made by vislang {made}; this is"
            f" {__version__}). Export the model again."
        )
    for name, expected in about["sha256"].items():
        path = folder / _inside(name)
        if not path.is_file() or sha256_file(path) != expected:
            raise UserError(
                f"{path} is missing or not as it was written. Copy or export the model again."
            )
    config = from_dict(ModelConfig, _at(about["model"], folder), "model")
    return _filled(config, folder / WEIGHTS, trusted)


def run_of(path: Path) -> tuple[Path, Path | None] | None:
    """(run folder, its checkpoint or None for the newest) that a path names; None of others."""
    if (path / "config.yaml").is_file():
        return path, None
    if path.parent.name == "checkpoints" and (path.parent.parent / "config.yaml").is_file():
        return path.parent.parent, path
    return None


def load_run(run: Path, checkpoint: Path | None, ema: bool, trusted: bool = False) -> DualEncoder:
    """The model of a run folder, at `checkpoint` or at its newest whole one.

    Args:
        run: the run folder.
        checkpoint: its folder checkpoints/000002000, or None for the newest.
        ema: take the moving average of the weights.
        trusted: whether the config may name any import, not only registered parts.
    """
    stem = "ema" if ema else "model"
    path = (checkpoint or newest_checkpoint(run, stem)) / f"{stem}.safetensors"
    if why := _unusable(path.parent, stem):
        raise UserError(f"The checkpoint {path.parent} cannot be used: {why}.")
    config = read_config(run / "config.yaml", TrainConfig).model
    return _filled(config, path, trusted)


def newest_checkpoint(run: Path, stem: str = "model") -> Path:
    """The newest checkpoint folder of a run whose `<stem>.safetensors` is as it was written."""
    reasons = []
    for folder in sorted((run / "checkpoints").glob("[0-9]*"), reverse=True):
        why = _unusable(folder, stem)
        if not why:
            return folder
        reasons.append(f"{folder.name}: {why}")
    found = "; ".join(reasons) or "there is none"
    raise UserError(
        f"The run {run} has no usable checkpoint ({found})."
        " Let it train until its first checkpoint, or give another run."
    )


def _unusable(folder: Path, stem: str) -> str:
    """Why a checkpoint folder cannot be used; empty when it can."""
    name = f"{stem}.safetensors"
    if not (folder / DONE).is_file():
        return f"it has no {DONE}, which is written last"
    try:
        expected = read_json(folder / DONE)["sha256"].get(name)
    except (UserError, KeyError, TypeError, AttributeError):
        return f"its {DONE} is damaged"
    if expected is None:
        hint = ": the run kept no moving average (optim.ema)" if stem == "ema" else ""
        return f"it has no {name}{hint}"
    if not (folder / name).is_file() or sha256_file(folder / name) != expected:
        return f"{name} does not have the bytes that were written"
    return ""


def _filled(config: ModelConfig, path: Path, trusted: bool) -> DualEncoder:
    model = build_model(config, trusted=trusted, weights=False)
    load_exactly(model, read_weights(path), f"{path} into the model that lies beside it")
    return model


def _at(value: Any, folder: Path) -> Any:
    """`value` with every "{here}" replaced by the folder."""
    if isinstance(value, str):
        return value.replace(HERE, str(folder))
    if isinstance(value, Mapping):
        return {k: _at(v, folder) for k, v in value.items()}
    return [_at(v, folder) for v in value] if isinstance(value, list) else value


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{NOTE} names a file outside its folder: {name!r}. Do not use it.")
    return name


def sides_of(config: ModelConfig) -> tuple[str, ...]:
    """The sides that a config describes.

    >>> sides_of(ModelConfig(text=TowerConfig(name="none")))
    ('image',)
    """
    return tuple(s for s in ("image", "text") if getattr(config, s).name not in NO_SIDE)
