"""What a class may be called besides its name: synonyms, and what WordNet says it is a kind of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from vislang.errors import UserError

LEVELS = 4  # a golden retriever is a retriever, a sporting dog, a hunting dog, a dog
# data.noun: offset, file, type, number of words (hex), words with an id each, pointers | gloss
_LINE = re.compile(r"(\d{8}) \d\d n ([0-9a-f]{2}) (.*)")
_ABOVE = re.compile(r" @i? (\d{8}) n ")


def called(
    wnids: Sequence[str],
    names: Sequence[str],
    synonyms: Mapping[str, Sequence[str]],
    nouns: Path | None = None,
) -> list[tuple[str, ...]]:
    """For each class all that it may be called; a caption picks one at random.

    Args:
        wnids: WordNet 3.0's ids, such as n02099601.
        names: names of the classes.
        synonyms: id -> words; a class without any is called by its name.
        nouns: WordNet 3.0's data.noun. With it, kinds are added up to four levels above, and the
            class's own words are repeated so that they make up half or more of the captions.

    >>> called(["n1"], ["crane"], {"n1": ["crane", "tower crane"]})
    [('crane', 'tower crane')]
    """
    own = [tuple(synonyms.get(wnid) or (name,)) for wnid, name in zip(wnids, names)]
    if nouns is None:
        return own
    above = read_nouns(nouns)
    found = []
    for wnid, words in zip(wnids, own):
        kinds = [kind for kind in kinds_of(wnid[1:], above) if kind not in words]
        found.append(words * max(1, -(-len(kinds) // len(words))) + tuple(kinds))
    return found


def kinds_of(offset: str, nouns: Mapping[str, tuple[list[str], list[str]]]) -> list[str]:
    """Words of everything up to LEVELS above a synset, the nearest first, each once."""
    words: dict[str, None] = {}
    level = [offset]
    for _ in range(LEVELS):
        level = [parent for child in level for parent in nouns.get(child, ([], []))[1]]
        words |= {word: None for synset in level for word in nouns.get(synset, ([], []))[0]}
    return list(words)


def read_nouns(path: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Offset -> (words, offsets of what it is a kind or an instance of) of a data.noun file.

    Raises:
        UserError: it cannot be read, or is no such file.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"WordNet's nouns {path} cannot be read: {error}.") from error
    nouns = {}
    for line in lines:
        if match := _LINE.match(line):
            offset, count, rest = match.groups()
            parts = rest.partition(" | ")[0]
            words = parts.split(" ")[: 2 * int(count, 16) : 2]
            nouns[offset] = [word.replace("_", " ") for word in words], _ABOVE.findall(parts)
    if not nouns:
        raise UserError(
            f"{path} has no synsets: wordnet takes data.noun of WordNet 3.0 (Debian's package"
            " wordnet-base has it), whose lines begin with '00001740 03 n 01 entity 0'."
        )
    return nouns
