"""torchvision's image classifiers, with the classifier taken off.

The classifier is found by its place in the computation, not by its name: a run without
arithmetic shows which layer is the last to be called, and that layer makes the logits.
"""

import inspect
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from vislang.config import from_dict, to_dict
from vislang.errors import UserError
from vislang.lookup import nearest
from vislang.models.foreign import guarded
from vislang.models.towers.sides import check_side
from vislang.models.towers.wrapped import WrappedImage, output_width, run_on_meta
from vislang.models.weights import load_pretrained
from vislang.preprocess import Preprocess


@dataclass(frozen=True)
class TorchvisionOptions:
    """Options of `torchvision`.

    Args:
        name: a classification model, such as resnet50 (`torchvision.models.list_models()`).
        image_size: side in pixels; 0 takes that of the weights.
        preprocess: fields of Preprocess to use instead of those of the weights.
        model_options: further arguments of the model's constructor.
    """

    name: str = "resnet50"
    image_size: int = 0
    preprocess: dict[str, Any] = field(default_factory=dict)
    model_options: dict[str, Any] = field(default_factory=dict)


def build(*, side: str, pretrained: str = "", weights: bool = True, **options: Any) -> WrappedImage:
    """Any classification model of torchvision, without its classifier (image).

    `pretrained` is a weights tag such as IMAGENET1K_V2, "default", or a local file.
    """
    from torchvision import models

    check_side(side, ("image",), "torchvision")
    settings = from_dict(TorchvisionOptions, options, f"model.{side}.options")
    known = models.list_models(module=models)
    if settings.name not in known:
        raise UserError(
            f"torchvision has no classification model {settings.name!r}."
            f"{nearest(settings.name, known)} Known: {', '.join(known)}."
        )
    local = bool(pretrained) and Path(pretrained).expanduser().is_file()
    tag = None if local else _weights(settings.name, pretrained)
    preprocess = _preprocess(settings, tag)
    model = _make(settings, tag if weights else None, preprocess.size)
    spare = take_off_classifier(model, preprocess.size)
    if local and weights:
        load_pretrained(model, pretrained, side, ignore=spare, what=settings.name)
    full = replace(settings, preprocess=to_dict(preprocess))
    return WrappedImage(model, output_width(model, preprocess.size), preprocess, to_dict(full))


def _weights(name: str, tag: str) -> Any:
    from torchvision import models

    if not tag:
        return None
    known = models.get_model_weights(name)
    names = [member.name for member in known]
    if tag.upper() not in (*names, "DEFAULT"):
        raise UserError(
            f"torchvision's {name} has no weights {tag!r}, and there is no such file."
            f"{nearest(tag.upper(), names)} Known: default, {', '.join(names)}."
        )
    return known[tag.upper()]


def _preprocess(settings: TorchvisionOptions, tag: Any) -> Preprocess:
    """That of the weights (of the default ones for a random start), as torchvision states it."""
    from torchvision import models

    tag = tag or models.get_model_weights(settings.name)["DEFAULT"]
    told = tag.transforms()
    crop, resized = told.crop_size[0], told.resize_size[0]
    side = settings.image_size or crop
    values = {
        "size": (side, side),
        "mean": tuple(told.mean),
        "std": tuple(told.std),
        "interpolation": told.interpolation.value,
        "crop_fraction": crop / resized,
    }
    return from_dict(Preprocess, values | settings.preprocess, "preprocess")


def _make(settings: TorchvisionOptions, tag: Any, size: tuple[int, int]) -> nn.Module:
    from torchvision import models

    maker = models.get_model_builder(settings.name)
    options = dict(settings.model_options)
    if settings.image_size and "image_size" in inspect.signature(_class(maker)).parameters:
        options["image_size"] = size[0]
    with warnings.catch_warnings():
        # googlenet and inception announce that their random start will change one day.
        warnings.simplefilter("ignore", FutureWarning)
        try:
            with guarded():
                return maker(weights=tag, **options)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"torchvision cannot make {settings.name}: {error}") from error


def _class(maker: Any) -> Any:
    """The class that a maker's return annotation names, or the maker itself."""
    found = inspect.signature(maker).return_annotation
    return found if inspect.isclass(found) else maker


def take_off_classifier(model: nn.Module, size: tuple[int, int]) -> tuple[str, ...]:
    """Replace the layer that makes the logits, and parts used only in training, by nothing.

    Args:
        model: a classifier.
        size: height and width of an image that it takes.

    Returns:
        The prefixes of the weights that are no longer there.
    """
    called: list[str] = []
    names = {module: name for name, module in model.named_modules()}
    hooks = [
        module.register_forward_hook(lambda module, _, __: called.append(names[module]))
        for module in names
    ]
    try:
        run_on_meta(model, size)
    finally:
        for hook in hooks:
            hook.remove()
    layers = [n for n in called if isinstance(model.get_submodule(n), nn.Linear | nn.Conv2d)]
    if not layers:
        raise UserError(f"{type(model).__name__} has no layer that makes logits to take off.")
    gone = [layers[-1]]
    # Auxiliary classifiers feed a training loss of their own, which there is none of here.
    for name, child in model.named_children():
        ran = any(c == name or c.startswith(f"{name}.") for c in called)
        if not ran and any(True for _ in child.parameters()):
            gone.append(name)
    for name in gone:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, nn.Identity())
    _forget_versions(model)
    return tuple(f"{name}." for name in gone)


def _forget_versions(model: nn.Module) -> None:
    """Let weights without version notes load.

    mnasnet insists on a version number in the metadata of a state dict, which safetensors files
    do not carry; what it would mend is older than those files.
    """
    kind = type(model)
    if kind._load_from_state_dict is not nn.Module._load_from_state_dict:
        plain = {"_load_from_state_dict": nn.Module._load_from_state_dict}
        model.__class__ = type(kind.__name__, (kind,), plain)
