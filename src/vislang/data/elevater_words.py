"""Class names and templates of ELEVATER's sets: from a file, or from packages that are installed.

Names belong to labels through the set's own file of labels: they are put into its order by what
they say, and a name that it does not have is an error.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vislang.data.elevater_sets import ElevaterSet
from vislang.data.labels import templates as checked_templates
from vislang.errors import UserError
from vislang.files import read_json

# registered name -> (names, templates) in clip-benchmark's files; "" where it has none.
CLIP_BENCHMARK: dict[str, tuple[str, str]] = {
    "caltech-101": ("caltech101_vtab", "caltech101"),
    "cifar-10": ("", "cifar10"),
    "cifar-100": ("", "cifar100"),
    "country211": ("country211", "country211"),
    "dtd": ("", "dtd"),
    "eurosat_clip": ("eurosat", "eurosat"),
    "fer-2013": ("fer2013", "fer2013"),
    "fgvc-aircraft-2013b-variants102": ("", "fgvc_aircraft"),
    "oxford-flower-102": ("flowers", "flowers"),
    "food-101": ("", "food101"),
    "gtsrb": ("gtsrb", "gtsrb"),
    "kitti-distance": ("kitti_closest_vehicle_distance", "kitti_closest_vehicle_distance"),
    "mnist": ("mnist", "mnist"),
    "oxford-iiit-pets": ("pets", "pets"),
    "patch-camelyon": ("pcam", ""),
    "rendered-sst2": ("", "renderedsst2"),
    "stanford-cars": ("", "cars"),
    "voc-2007-classification": ("", "voc2007_multilabel"),
    "imagenet-1k": ("imagenet1k", "imagenet1k"),
}
USUAL = ("a photo of a {}",)  # the toolkit's template for a set of which it knows nothing


@dataclass(frozen=True)
class SetWords:
    """What a set's classes are called in prompts.

    Args:
        names: in the order of the labels.
        templates: with {} for the name.
        origin: where both come from, in words.
    """

    names: tuple[str, ...]
    templates: tuple[str, ...]
    origin: str


def set_words(entry: ElevaterSet, labels: Sequence[str], where: str = "auto") -> SetWords:
    """Names in the order of `labels`, and templates.

    Args:
        entry: the set.
        labels: names of its file of labels (numbers where there is none).
        where: auto (the toolkit's package if it is installed, then clip-benchmark's files, then
            the labels themselves and the toolkit's usual template), labels, or a JSON file
            {set: {"classes": [names] or {label: name}, "templates": [...]}}.

    Raises:
        UserError: names that are not those of the labels, or too few of them.
    """
    if where in ("auto", "labels"):
        found = [] if where == "labels" else [_of_toolkit(entry), _of_packages(entry)]
        names, given, origin = next((each for each in found if each), ((), (), ""))
    else:
        names, given, origin = _of_file(entry, Path(where))
    origin = origin or "the set's labels"
    known = all(re.fullmatch(r"\d+", label) for label in labels)
    if not names:
        if known and entry.registered != "mnist":
            raise UserError(
                f"{entry.name}: nothing tells what its classes are called: the labels are numbers."
                " Give names in a file (words)."
            )
        placed, origin = [label.replace("_", " ") for label in labels], f"{origin}; names: labels"
    elif known and not isinstance(names, Mapping):
        placed = _as_many(entry, [_first(name) for name in names], labels)
    else:
        placed = in_order_of(labels, names, entry.name, origin)
    return SetWords(tuple(placed), checked_templates(given or USUAL), origin)


def in_order_of(
    labels: Sequence[str], names: Sequence[Any] | Mapping[str, str], of: str, origin: str
) -> list[str]:
    """Names in the order of labels, paired by what they say (case, _, / and - do not count).

    >>> in_order_of(["apple_pie", "F-16A-B"], ["F-16A/B", "apple pie"], "x", "a file")
    ['apple pie', 'F-16A/B']
    """
    if isinstance(names, Mapping):
        lost = [label for label in labels if label not in names]
        if lost:
            raise UserError(f"{of}: {origin} has no name for the label {lost[0]!r}.")
        return [str(names[label]) for label in labels]
    place: dict[str, str] = {}
    for name in names:
        for alias in [name] if isinstance(name, str) else name:
            place.setdefault(_normal(alias), _first(name))
    lost = [label for label in labels if _normal(label) not in place]
    if lost or len(names) != len(labels):
        raise UserError(
            f"{of}: the names of {origin} are not those of its labels: {len(names)} names for"
            f" {len(labels)} labels, and {lost[0] if lost else 'all'!r} is"
            f" {'not among them' if lost else 'there'}. Give a file (words) whose classes are a"
            " mapping from label to name, or take the labels themselves: words=labels."
        )
    return [place[_normal(label)] for label in labels]


def _as_many(entry: ElevaterSet, names: list[str], labels: Sequence[str]) -> list[str]:
    if len(names) != len(labels):
        raise UserError(
            f"{entry.name}: {len(names)} names are given for {len(labels)} classes, and without"
            " names of labels nothing tells which is which."
        )
    return names


def _first(name: Any) -> str:
    """A name, or the first of its aliases."""
    return name if isinstance(name, str) else str(name[0])


def _normal(name: str) -> str:
    return " ".join(re.sub(r"[_/\-]", " ", name).lower().split())


Found = tuple[Any, Sequence[str], str]


def _of_file(entry: ElevaterSet, path: Path) -> Found:
    if not path.is_file():
        raise UserError(f"words must be auto, labels or a JSON file that exists, got {path}.")
    content = read_json(path)
    told = content.get(entry.registered, content.get(entry.name)) if content else None
    if not isinstance(told, dict):
        raise UserError(
            f"{path} says nothing of {entry.name!r}: expected a JSON object"
            ' {set: {"classes": [...], "templates": [...]}}.'
        )
    return told.get("classes", ()), told.get("templates", ()), str(path)


def _folder_of(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) if places else None


def _of_toolkit(entry: ElevaterSet) -> Found | None:
    """ELEVATER's own lists, where its toolkit is installed; its file is run by itself."""
    home = _folder_of("vision_benchmark")
    file = home / "datasets" / "prompts.py" if home else None
    spec = importlib.util.spec_from_file_location("_elevater", file) if file else None
    if file is None or not file.is_file() or spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names = getattr(module, "class_map", {}).get(entry.registered)
    given = getattr(module, "template_map", {}).get(entry.registered, ())
    return (names, given, "the toolkit's package") if names else None


def _of_packages(entry: ElevaterSet) -> Found | None:
    """What clip-benchmark and torchvision have of it, and the few that nobody else has."""
    if entry.registered == "hateful-memes":
        return ["meme", "hatespeech meme"], ("a {}.",), "the toolkit's two names"
    if entry.registered == "resisc45_clip":
        ways = (f"{sight} {how} {article}{{}}." for sight in ("satellite", "aerial")
                for how in ("imagery of", "photo of", "view of")
                for article in ("", "a ", "the "))  # fmt: skip
        return (), tuple(ways), "CLIP's eighteen templates"
    home = _folder_of("clip_benchmark")
    if home is None or entry.registered not in CLIP_BENCHMARK:
        return None
    names_key, templates_key = CLIP_BENCHMARK[entry.registered]
    files = [home / "datasets" / f"en_{what}.json" for what in
             ("classnames", "zeroshot_classification_templates")]  # fmt: skip
    if not all(file.is_file() for file in files):
        return None
    names, given = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    found = names.get(names_key, ())
    ways = [t.replace("{c}", "{}") for t in given.get(templates_key, ["this is a photo of {}"])]
    return found, tuple(ways), "clip-benchmark's package"
