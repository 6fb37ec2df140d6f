"""External knowledge about classes in prompts: Wiktionary, WordNet and GPT-3, as ELEVATER has it.

The files are JSON lists, whatever their suffix: [{classname, def_wiki, path_wn, def_wn}] and
[{classname, gpt3: [strings]}]. One piece of knowledge k about a class c becomes, in each template,

    template(c) + " " + words(" ; c , k")

where words() separates words and marks by spaces. Shen et al. 2022, "K-LITE", arXiv:2204.09222.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vislang.errors import UserError
from vislang.files import read_json
from vislang.lookup import nearest

KINDS = ("wiki", "wordnet", "hierarchy", "gpt3")
FIELDS = {"wiki": "def_wiki", "wordnet": "def_wn", "hierarchy": "path_wn"}
STEPS = 3  # of WordNet's hierarchy


@dataclass(frozen=True)
class Knowledge:
    """What is known of classes, and which of it goes into prompts.

    Args:
        kinds: any of wiki, wordnet, hierarchy, gpt3. Of the first three the last one counts.
        dictionary: class -> record of the Wiktionary and WordNet file.
        gpt3: class -> its strings.
        items: strings of GPT-3 to take.
        together: take GPT-3's besides the dictionary's; False only where that has no entry
            (an empty definition is an entry).
    """

    kinds: tuple[str, ...] = ()
    dictionary: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    gpt3: Mapping[str, Sequence[str]] = field(default_factory=dict)
    items: int = 1
    together: bool = True

    def pieces(self, name: str) -> list[str | None]:
        """What is known of one class; None is an entry that says nothing.

        >>> Knowledge(("wiki",), {"ship": {"def_wiki": "A vessel."}}).pieces("ship")
        ['A vessel.']
        """
        found: list[str | None] = []
        told = [kind for kind in ("wiki", "wordnet", "hierarchy") if kind in self.kinds]
        if told and name in self.dictionary:
            value = self.dictionary[name].get(FIELDS[told[-1]])
            found.append(" ".join(value[:STEPS]) if isinstance(value, list) else value)
        if "gpt3" in self.kinds and (self.together or not found):
            found += list(self.gpt3.get(name, ()))[: self.items]
        return found

    def prompts(self, name: str, templates: Sequence[str]) -> list[str]:
        """All prompts of a class: every template with every piece, or the templates alone."""
        pieces = self.pieces(name)
        if not pieces:
            return [template.replace("{}", name) for template in templates]
        return [
            f"{template.replace('{}', name)} {_told(name, piece)}"
            for piece in pieces
            for template in templates
        ]


def _told(name: str, piece: str | None) -> str:
    return "" if piece is None else " ".join(separate(f" ; {name} , {piece}"))


def read_knowledge(
    kinds: Sequence[str],
    dictionary: Path | str = "",
    gpt3: Path | str = "",
    items: int = 1,
    together: bool = True,
) -> Knowledge:
    """Knowledge from files.

    Args:
        kinds, items, together: see Knowledge.
        dictionary: the file of Wiktionary and WordNet.
        gpt3: the file of GPT-3's strings.

    Raises:
        UserError: an unknown kind, or no file for one that is asked for, or one of another form.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(
                f"There is no knowledge {kind!r}.{nearest(kind, KINDS)} Known: {', '.join(KINDS)}."
            )
    if not items >= 0:
        raise UserError(f"The number of GPT-3's strings must not be negative, got {items}.")
    records = _records(dictionary, "classname") if set(kinds) - {"gpt3"} else {}
    strings = _records(gpt3, "gpt3") if "gpt3" in kinds else {}
    return Knowledge(
        tuple(kinds), records, {k: list(v["gpt3"]) for k, v in strings.items()}, items, together
    )


def _records(path: Path | str, needed: str) -> dict[str, Mapping[str, Any]]:
    if not path or not Path(path).is_file():
        raise UserError(
            f"There is no file of knowledge {str(path)!r}: ELEVATER's repository has one a set,"
            " NAME_knowledge.tsv and GPT3_NAME.tsv."
        )
    content = read_json(path)
    if not isinstance(content, list) or not all(
        isinstance(row, dict) and "classname" in row and needed in row for row in content
    ):
        raise UserError(f"{path} must be a JSON list of objects with classname and {needed}.")
    return {str(row["classname"]): row for row in content}


# The Penn Treebank's way of writing: marks stand alone, contractions are divided, quotes have two
# forms, and a full stop is a mark only where the text ends.
_MARK = r"\.{2,}|--|``|''|[\";@#$%&?!*()\[\]{}<>]|[:,](?!\d)"
_PIECE = re.compile(rf"{_MARK}|(?:(?!{_MARK}).)+")
_ENDING = re.compile(r"(?i)(?<=[^' ])('(?:s|m|d|ll|re|ve)|n't|')$")


def separate(text: str) -> list[str]:
    """Words and marks of a sentence, as the Penn Treebank writes them.

    >>> separate("an aircraft that can't hover (usually)")
    ['an', 'aircraft', 'that', 'ca', "n't", 'hover', '(', 'usually', ')']
    """
    found: list[str] = []
    for word in text.split():
        opening = True
        for piece in _PIECE.findall(word):
            if piece == '"':
                found.append("``" if opening else "''")
                continue
            opening = piece in "([{<"
            stem = _ENDING.sub("", piece)
            found += ["can", "not"] if piece.lower() == "cannot" else [stem or piece]
            if stem and stem != piece:
                found.append(piece[len(stem) :])
    if found and len(found[-1]) > 1 and found[-1].endswith(".") and found[-1][-2] != ".":
        found[-1:] = [found[-1][:-1], "."]
    return found
