"""In which script a caption is written: as much as is known of its language without a model."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache

# First words of Unicode's names of letters -> what a reader calls the script.
_NAMES = {
    "LATIN": "Latin", "CYRILLIC": "Cyrillic", "GREEK": "Greek", "ARABIC": "Arabic",
    "HEBREW": "Hebrew", "CJK": "Chinese", "HIRAGANA": "Japanese", "KATAKANA": "Japanese",
    "HANGUL": "Korean", "THAI": "Thai", "DEVANAGARI": "Devanagari", "BENGALI": "Bengali",
    "TAMIL": "Tamil", "TELUGU": "Telugu", "GEORGIAN": "Georgian", "ARMENIAN": "Armenian",
    "ETHIOPIC": "Ethiopic", "FULLWIDTH": "Latin", "IDEOGRAPHIC": "Chinese",
}  # fmt: skip


def script_of(text: str) -> str:
    """The script of most letters; kana among Chinese characters make a text Japanese.

    >>> [script_of(t) for t in ("a cat", "кошка", "猫が好き", "猫", "123", "xγγ")]
    ['Latin', 'Cyrillic', 'Japanese', 'Chinese', 'no letters', 'Greek']
    """
    counts = Counter(found for char in text if (found := _script(char)))
    if not counts:
        return "no letters"
    if "Japanese" in counts and "Chinese" in counts:
        return "Japanese"
    return max(counts, key=lambda script: (counts[script], script))


@lru_cache(maxsize=8192)
def _script(char: str) -> str:
    if not char.isalpha():
        return ""
    first = unicodedata.name(char, "").split(" ")[0].split("-")[0]
    return _NAMES.get(first, first.capitalize())
