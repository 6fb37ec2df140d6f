"""timm's image models, without their classifiers."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from vislang.config import from_dict, to_dict
from vislang.errors import UserError
from vislang.files import read_json
from vislang.lookup import nearest
from vislang.models.foreign import guarded
from vislang.models.towers.sides import check_side
from vislang.models.towers.wrapped import WrappedImage, output_width
from vislang.models.weights import load_pretrained
from vislang.preprocess import Preprocess

LOCAL = "local-dir:"
FITS = {"center": "shortest", "squash": "squash", "border": "longest"}


@dataclass(frozen=True)
class TimmOptions:
    """Options of `timm`.

    Args:
        name: a model of timm, or local-dir:FOLDER that holds a config.json of timm's.
        image_size: side in pixels; 0 takes that of the weights.
        preprocess: fields of Preprocess to use instead of those of the weights.
        model_options: further arguments of timm.create_model, such as drop_path_rate.
    """

    name: str = "vit_base_patch16_224"
    image_size: int = 0
    preprocess: dict[str, Any] = field(default_factory=dict)
    model_options: dict[str, Any] = field(default_factory=dict)


class TimmImage(WrappedImage):
    """A timm model; transformers and convolutional nets alike offer `dense`."""

    def dense(self, images: Tensor) -> Tensor:
        """The last feature map: [B, 3, H, W] -> [B, h, w, width]."""
        return self.with_dense(images)[1]

    def with_dense(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` and `dense` give, in one pass."""
        last, (maps,) = self.model.forward_intermediates(  # type: ignore[operator]
            self.pixels(images), indices=1, norm=True, output_fmt="NCHW"
        )
        if maps.shape[1] != self.width:
            raise UserError(
                f"This model's last map has {maps.shape[1]} features, its output {self.width}:"
                " there is no dense output of the tower's width."
            )
        return self.model.forward_head(last), maps.permute(0, 2, 3, 1)  # type: ignore[operator]


def build(*, side: str, pretrained: str = "", weights: bool = True, **options: Any) -> TimmImage:
    """Any image model of timm, without its classifier (image).

    `pretrained` is a tag such as augreg2_in21k_ft_in1k, "default", or a local file of weights.
    """
    check_side(side, ("image",), "timm")
    settings = from_dict(TimmOptions, options, f"model.{side}.options")
    local = bool(pretrained) and Path(pretrained).expanduser().is_file()
    model, made = _make(settings, "" if local else pretrained, weights)
    if local and weights:
        ignore = _classifier(model)
        load_pretrained(model, pretrained, side, ignore=ignore, what=settings.name)
    preprocess = _preprocess(model, made)
    full = replace(made, preprocess=to_dict(preprocess))
    width = output_width(model, preprocess.size)
    return TimmImage(model, width, preprocess, to_dict(full))


def _make(settings: TimmOptions, tag: str, weights: bool) -> tuple[Any, TimmOptions]:
    import timm

    name, _, own_tag = settings.name.partition(".")
    architecture, saved = name, {}
    if settings.name.startswith(LOCAL):
        name, own_tag = settings.name, ""
        _, architecture, saved = _local_config(name)
    elif not timm.is_model(name):
        raise UserError(
            f"timm has no model {name!r}.{nearest(name, timm.list_models())}"
            " See timm.list_models()."
        )
    tag = tag or own_tag
    full = _tagged(timm, name, tag)
    arguments = dict(settings.model_options)
    if settings.image_size and _fixed_size(timm, full):
        arguments["img_size"] = settings.image_size
    wanted = weights and bool(tag or name.startswith(LOCAL))
    try:
        with guarded():
            model = _create(timm, full, wanted, arguments)
    except UserError:
        raise
    except Exception as error:
        how = f" with the weights {tag!r}" if wanted else ""
        raise UserError(f"timm cannot make {name}{how}: {error}") from error
    if name.startswith(LOCAL):
        settings = replace(settings, model_options={**saved, **settings.model_options})
        name = architecture
    return model, replace(settings, name=name)


def _create(timm: Any, name: str, wanted: bool, arguments: dict[str, Any]) -> Any:
    """The model, ready for images of other sizes where it can be; the same at its own."""
    try:
        flexible = {"dynamic_img_size": True, **arguments}
        return timm.create_model(name, pretrained=wanted, num_classes=0, **flexible)
    except TypeError as error:
        if "dynamic_img_size" not in str(error):
            raise
    return timm.create_model(name, pretrained=wanted, num_classes=0, **arguments)


def _tagged(timm: Any, name: str, tag: str) -> str:
    if not tag or tag == "default":
        return name
    full = f"{name}.{tag}"
    known = timm.list_pretrained(name)
    if known and full not in known:
        tags = [item.partition(".")[2] for item in known]
        raise UserError(
            f"timm's {name} has no weights {tag!r}, and there is no such file."
            f"{nearest(tag, tags)} Known: default, {', '.join(tags)}."
        )
    return full


def _fixed_size(timm: Any, name: str) -> bool:
    if name.startswith(LOCAL):
        return bool(_local_config(name)[0].get("fixed_input_size"))
    told = timm.get_pretrained_cfg(name)
    return bool(told and told.fixed_input_size)


def _local_config(name: str) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """(weights' description, architecture, arguments) of a folder that timm wrote."""
    path = Path(name.removeprefix(LOCAL)).expanduser() / "config.json"
    if not path.is_file():
        raise UserError(f"{name}: there is no {path}, which timm writes beside its weights.")
    told = read_json(path)
    return told.get("pretrained_cfg", told), told["architecture"], told.get("model_args") or {}


def _classifier(model: Any) -> tuple[str, ...]:
    named = model.pretrained_cfg.get("classifier") or ()
    named = (named,) if isinstance(named, str) else named
    return tuple(f"{name}." for name in named)


def _preprocess(model: Any, settings: TimmOptions) -> Preprocess:
    import timm.data

    told = timm.data.resolve_model_data_config(model)
    side = settings.image_size
    values = {
        "size": (side, side) if side else tuple(told["input_size"][1:]),
        "mean": tuple(told["mean"]),
        "std": tuple(told["std"]),
        "interpolation": told["interpolation"],
        "fit": FITS.get(told["crop_mode"], "shortest"),
        "crop_fraction": told["crop_pct"] if told["crop_mode"] == "center" else 1.0,
    }
    return from_dict(Preprocess, values | settings.preprocess, "preprocess")
