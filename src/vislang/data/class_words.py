"""The words that stand for each class, and the prompts made of them.

C: classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislang.data.labels import read_words
from vislang.data.prompts import fill, imagenet_names, read_prompts
from vislang.errors import UserError

if TYPE_CHECKING:
    from vislang.data.sample import Source

Words = tuple[tuple[str, ...], ...]


def class_words(
    source: Source, words: Mapping[str, str | Sequence[str]] | Path | str | None = None
) -> Words:
    """For each class of a source, in the order of the labels, all words that stand for it.

    Args:
        source: ImageNet's layout brings the synonyms of its words.txt; elsewhere the class's name
            is the only word.
        words: of some or all classes by name or WordNet id, or a file of
            'class<tab>word, word ...' lines (or JSON); takes the place of the source's.

    Raises:
        UserError: a class has no word.
    """
    given = read_words(Path(words)) if isinstance(words, str | Path) else dict(words or {})
    wnids = getattr(source, "wnids", ()) or source.classes
    # Layouts without words of their own: the name, which may stand for a folder.
    own = getattr(source, "words", None) or [(name,) for name in source.classes]
    known = {*source.classes, *wnids}
    for name in given if not isinstance(words, str | Path) else ():
        if name not in known:
            raise UserError(f"words name the class {name!r}, which {source.name!r} does not have.")
    found = []
    for name, wnid, usual in zip(source.classes, wnids, own):
        some = given.get(name, given.get(wnid, usual))
        some = (some,) if isinstance(some, str) else tuple(some)
        some = tuple(dict.fromkeys(fill("{}", word).strip() for word in some if word.strip()))
        if not some:
            raise UserError(
                f"The class {name!r} of {source.name!r} has no words, so no prompt can name it."
                " Give them: a file of 'class<tab>word, word' lines (words=FILE), or for ImageNet"
                " a words.txt in its folder."
            )
        found.append(some)
    return tuple(found)


def official_prompts(source: Source, words: Words) -> dict[str, list[str]]:
    """ImageNet's 80 templates, and one name a class.

    The name is the curated one of CLIP's notebook where all classes are of ImageNet-1k, and else
    the first word.
    """
    names = [some[0] for some in words]
    known = imagenet_wnids()
    wnids = getattr(source, "wnids", ())
    if known and wnids and set(wnids) <= set(known):
        place = {wnid: position for position, wnid in enumerate(known)}
        curated = imagenet_names()
        names = [curated[place[wnid]] for wnid in wnids]
    return {"templates": list(read_prompts("openai_imagenet")), "names": names}


def imagenet_wnids() -> list[str]:
    """The sorted WordNet ids of ImageNet-1k as timm's installed package lists them, or none."""
    import importlib.util

    package = importlib.util.find_spec("timm")
    places = package.submodule_search_locations if package else None
    file = Path(places[0]) / "data" / "_info" / "imagenet_synsets.txt" if places else None
    return file.read_text().split() if file and file.is_file() else []


def distinct_prompts(
    templates: Iterable[str], words: Words, official: Mapping[str, Any] | None = None
) -> list[str]:
    """Every prompt once, in an order that does not depend on that of domains: by length, text.

    >>> distinct_prompts(["a {}", "one {}", "a {}"], (("cat",), ("dog", "hound")))
    ['a cat', 'a dog', 'a hound', 'one cat', 'one dog', 'one hound']
    """
    every = [word for some in words for word in some]
    texts = {template.replace("{}", word) for template in set(templates) for word in every}
    if official:
        texts |= {
            t.replace("{}", name) for t in official["templates"] for name in official["names"]
        }
    return sorted(texts, key=lambda text: (len(text), text))
