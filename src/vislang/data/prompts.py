"""Sets of prompt templates: built in, from a file, from the source, or from open_clip's package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vislang.errors import UserError
from vislang.lookup import nearest

# Ours; the names of others' sets are looked up in their packages, never copied here.
_KINDS = ("", "blurry ", "black and white ", "low contrast ", "high contrast ", "bad ", "good ")
SETS: dict[str, tuple[str, ...]] = {
    "simple": ("a photo of a {}.",),
    "name": ("{}",),
    "varied": (
        "a photo of a {}.",
        "a picture of the {}.",
        "an image that shows a {}.",
        "a close view of a {}.",
        "a {} seen from some distance.",
        "a drawing of a {}.",
        "a dark photo of a {}.",
    ),
    # The 18 of CLIP's paper for small pictures, which the low-resource CLIP takes everywhere.
    "photos": tuple(
        template
        for article in ("a", "the")
        for template in (
            *(f"a {kind}photo of {article} {{}}." for kind in _KINDS),
            f"a photo of {article} small {{}}.",
            f"a photo of {article} big {{}}.",
        )
    ),
}
FOREIGN = {
    "openai_imagenet": "OPENAI_IMAGENET_TEMPLATES",
    "simple_imagenet": "SIMPLE_IMAGENET_TEMPLATES",
}
_MARK = "\x00"


def read_prompts(prompts: str | Sequence[str], own: Sequence[str] = ()) -> tuple[str, ...]:
    """Templates with one `{}` each, for the class name.

    Args:
        prompts: "auto" (the source's own templates, else "simple"), "source", a built-in set
            (simple, name, varied, photos), openai_imagenet or simple_imagenet from open_clip's
            package, a text file with one template a line (# begins a comment), or the templates
            themselves.
        own: the source's templates.

    >>> read_prompts("auto", own=["the digit {}"])
    ('the digit {}',)
    """
    if not isinstance(prompts, str):
        return _checked(list(prompts), "The list of prompts")
    if prompts == "auto":
        prompts = "source" if own else "simple"
    if prompts == "source":
        if not own:
            raise UserError(
                "prompts 'source': the source has no templates of its own. Use 'simple', another"
                f" of {', '.join([*SETS, *FOREIGN])}, or a file with one template a line."
            )
        return _checked(list(own), "The source's prompts")
    if prompts in SETS:
        return SETS[prompts]
    if prompts in FOREIGN:
        made = [template(_MARK) for template in _of_open_clip(FOREIGN[prompts], prompts)]
        return tuple(t.replace("{", "").replace("}", "").replace(_MARK, "{}") for t in made)
    if "{}" in prompts:
        return _checked([prompts], "The prompt")
    return _from_file(Path(prompts), prompts)


def _of_open_clip(constant: str, name: str) -> Any:
    """A constant as open_clip's installed package has it.

    Its file of constants is run by itself: importing the package would take seconds.
    """
    import importlib.util

    package = importlib.util.find_spec("open_clip")
    places = package.submodule_search_locations if package else None
    file = Path(places[0]) / "zero_shot_metadata.py" if places else None
    spec = importlib.util.spec_from_file_location("_prompts", file) if file else None
    if file is None or not file.exists() or spec is None or spec.loader is None:
        raise UserError(
            f"prompts {name!r} come with open_clip: pip install open_clip_torch, or use 'simple'."
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, constant)


def imagenet_names() -> tuple[str, ...]:
    """The curated names of ImageNet-1k's classes, in the order of their WordNet ids."""
    return tuple(_of_open_clip("IMAGENET_CLASSNAMES", "imagenet_names"))


def _from_file(path: Path, given: str) -> tuple[str, ...]:
    if not path.is_file():
        known = ["auto", "source", *SETS, *FOREIGN]
        raise UserError(
            f"There are no prompts {given!r}: neither a known set nor a file."
            f"{nearest(given, known)} Known: {', '.join(known)}."
            " A file holds one template a line, with {} for the class name."
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}). Save it as UTF-8.") from error
    kept = [line.strip() for line in lines]
    return _checked([line for line in kept if line and not line.startswith("#")], str(path))


def _checked(templates: list[str], where: str) -> tuple[str, ...]:
    if not templates:
        raise UserError(f"{where}: no template. Give one a line, with {{}} for the class name.")
    for template in templates:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise UserError(
                f"{where}: {template!r} must hold {{}} exactly once, where the class name goes."
            )
    return tuple(dict.fromkeys(templates))


def fill(template: str, name: str) -> str:
    """The prompt for one class; underscores of a folder's name become spaces.

    >>> fill("a photo of a {}.", "polar_bear")
    'a photo of a polar bear.'
    """
    return template.replace("{}", name.replace("_", " "))
