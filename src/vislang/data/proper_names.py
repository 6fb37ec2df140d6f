"""What the classes of well-known data sets are called in prompts, where their folders say it badly.

Only what differs from the folder's name is listed; underscores are blanks anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vislang.data.class_words import imagenet_wnids
from vislang.data.prompts import imagenet_names
from vislang.errors import UserError
from vislang.lookup import nearest

if TYPE_CHECKING:
    from vislang.data.sample import Source

CALTECH101 = {
    "airplanes": "airplane",
    "background google": "random scene",  # pictures of anything: a class that is none
    "bass": "bass fish",
    "binocular": "pair of binoculars",
    "buddha": "statue of Buddha",
    "car side": "car from the side",
    "cellphone": "mobile phone",
    "cougar body": "cougar",
    "cougar face": "face of a cougar",
    "crocodile head": "head of a crocodile",
    "ewer": "ewer jug",
    "faces": "person with a background",
    "faces easy": "face of a person",
    "flamingo head": "head of a flamingo",
    "garfield": "Garfield the cartoon cat",
    "hawksbill": "hawksbill sea turtle",
    "headphone": "pair of headphones",
    "joshua tree": "Joshua tree",
    "ketch": "ketch sailing boat",
    "leopards": "leopard",
    "lotus": "lotus flower",
    "motorbikes": "motorbike",
    "nautilus": "nautilus shell",
    "rhino": "rhinoceros",
    "schooner": "schooner sailing ship",
    "scissors": "pair of scissors",
    "sea horse": "seahorse",
    "snoopy": "Snoopy the cartoon dog",
    "tick": "tick bug",
    "watch": "wristwatch",
    "water lilly": "water lily",
    "wild cat": "wildcat",
    "windsor chair": "Windsor chair",
    "yin yang": "yin and yang symbol",
}
NAMES: dict[str, Mapping[str, str]] = {
    "cifar10": {"plane": "airplane"},
    "cifar100": {"ray": "ray fish", "plain": "plain landscape"},
    "caltech101": CALTECH101,
    "imagenet": {},
    "tiny_imagenet": {},
}  # fmt: skip


def proper_names(source: Source, dataset: str) -> list[str]:
    """The names of a source's classes, in the order of its labels, as prompts should say them.

    Sources with WordNet ids get the curated names of ImageNet-1k for the ids that it has, and
    keep their own (the first word of their words.txt) for others.

    Args:
        source: with classes.
        dataset: cifar10, cifar100, caltech101, imagenet or tiny_imagenet.

    Raises:
        UserError: an unknown data set.
    """
    if dataset not in NAMES:
        raise UserError(
            f"There are no proper names for {dataset!r}.{nearest(dataset, NAMES)}"
            f" Known: {', '.join(NAMES)}. Or give the names themselves, in the order of the labels."
        )
    wnids = getattr(source, "wnids", ())
    if wnids:
        known = imagenet_wnids()
        curated = dict(zip(known, imagenet_names())) if known else {}
        return [curated.get(wnid, name) for wnid, name in zip(wnids, source.classes)]
    table = NAMES[dataset]
    plain = [name.replace("_", " ") for name in source.classes]
    return [table.get(name.lower(), name) for name in plain]
