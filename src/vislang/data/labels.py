"""From folder names or a column to class indices and readable class names."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from vislang.errors import UserError
from vislang.lookup import nearest

# Beyond this an integer label is an identifier, not an index.
_MOST_CLASSES = 1_000_000


def encode(values: Sequence[object], classes: Sequence[str] = ()) -> tuple[np.ndarray, list[str]]:
    """(class index of each value or -1 for none, names of the classes).

    Whole numbers are kept as indices; names get the index of their place in `classes`, or among
    the sorted names when that is empty.

    >>> encode(["dog", "cat", None, "dog"])
    (array([ 1,  0, -1,  1]), ['cat', 'dog'])
    >>> encode([2, 0, "2"])
    (array([2, 0, 2]), ['0', '1', '2'])
    """
    texts = ["" if value is None else str(value).strip() for value in values]
    present = {text for text in texts if text}
    if not classes and present and all(re.fullmatch(r"\d{1,6}", text) for text in present):
        indices = np.array([int(text) if text else -1 for text in texts], np.int64)
        return indices, [str(i) for i in range(int(indices.max()) + 1)]
    names = list(classes) or sorted(present)
    at = {name: i for i, name in enumerate(names)}
    unknown = sorted(present - set(at))
    if unknown:
        numbers = all(text.isdigit() and int(text) < len(names) for text in present)
        if not numbers:
            raise UserError(
                f"The label {unknown[0]!r} is not among the {len(names)} given classes."
                f"{nearest(unknown[0], names)}"
            )
        at = {str(i): i for i in range(len(names))}
    return np.array([at.get(text, -1) for text in texts], np.int64), names


def read_classes(value: str | Path | Sequence[str]) -> list[str]:
    """Class names: a list as it is, or a file with one name a line."""
    if isinstance(value, str | Path):
        try:
            lines = Path(value).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"The file of class names {value} cannot be read: {error}.") from error
        value = [line.strip() for line in lines if line.strip()]
    twice = [name for name, count in Counter(value).items() if count > 1]
    if twice:
        raise UserError(f"The class {twice[0]!r} is named twice among the classes.")
    return list(value)


def read_words(path: Path) -> dict[str, list[str]]:
    """Key -> synonyms: lines 'n01443537<tab>goldfish, Carassius auratus', or a JSON mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The file of names {path} cannot be read: {error}.") from error
    if path.suffix == ".json":
        try:
            mapping = json.loads(text)
            return {k: [v] if isinstance(v, str) else list(map(str, v)) for k, v in mapping.items()}
        except (ValueError, AttributeError) as error:
            raise UserError(f"{path} must be a JSON object of key -> name.") from error
    words = {}
    for line in text.splitlines():
        key, _, names = re.sub(r"[\t ]", "\t", line.strip(), count=1).partition("\t")
        if names:
            words[key] = [" ".join(name.split()) for name in names.split(",") if name.strip()]
    return words


def readable(keys: Iterable[str], words: Mapping[str, Sequence[str]]) -> list[str]:
    """A distinct name for each class: its first synonym; where classes share it, more of them.

    >>> readable(["n1", "n2", "great_auk"], {"n1": ["crane"], "n2": ["crane", "bird"]})
    ['crane (n1)', 'crane, bird', 'great auk']
    """
    keys = list(keys)
    names = [words[key][0] if key in words else key.replace("_", " ") for key in keys]
    shared = {name for name, count in Counter(names).items() if count > 1}
    for i, key in enumerate(keys):
        if names[i] in shared:
            more = words.get(key, ())
            names[i] = ", ".join(more[:2]) if len(more) > 1 else f"{names[i]} ({key})"
    still = {name for name, count in Counter(names).items() if count > 1}
    return [f"{n} ({key})" if n in still else n for n, key in zip(names, keys)]


def templates(value: str | Sequence[str]) -> tuple[str, ...]:
    """Caption templates with one {} for the class name."""
    given = (value,) if isinstance(value, str) and value else tuple(value)
    for template in given:
        if template.count("{}") != 1:
            raise UserError(
                f"A template must have one {{}} for the class name, got {template!r}."
                " Example: 'a photo of a {}.'"
            )
    return given
