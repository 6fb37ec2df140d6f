"""What counts as a word: rules that are stated in full beside every table that they made."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from vislang.errors import UserError
from vislang.lookup import nearest

CASES = ("lower", "keep", "refuse")
TOKENS = ("words", "runs")
DIGITS = ("keep", "numbers", "drop")
# Words of HTML that the original deleted with the tags, although they are English as well.
TEN_WORDS = ("id", "class", "style", "href", "src", "alt", "title", "rel", "type", "li")
_WORD = r"[\p{L}\p{M}\p{N}]+(?:'[\p{L}\p{M}\p{N}]+)*"


@dataclass(frozen=True)
class Rules:
    """From a text to the words that count.

    Args:
        tokens: words (runs of letters, marks and digits in any script, with apostrophes inside:
            "don't") or runs (of letters, digits and the underscore, as Python's regular expressions
            see them; those with an underscore are dropped, as in the original).
        case: lower makes all small, keep leaves them, refuse drops words with a capital letter.
        stop: words that do not count.
        script: of Unicode, such as Latin or Cyrillic; words with a letter of another one are
            dropped. Empty: any.
        digits: keep them, drop numbers alone (no letter), or drop every word with a digit.
        shortest: characters.
        longest: characters; 0: any. Scripts without blanks make whole sentences into one word.
        ngrams: also count 2, 3 ... up to so many words that follow each other with nothing but
            blanks and hyphens between them, none of them dropped.
        minimum: times that a word must occur to be in the table.
        inclusive: whether the minimum itself is enough.
    """

    tokens: str = "words"
    case: str = "lower"
    stop: tuple[str, ...] = ()
    script: str = ""
    digits: str = "keep"
    shortest: int = 1
    longest: int = 64
    ngrams: int = 1
    minimum: int = 1
    inclusive: bool = True

    def __post_init__(self) -> None:
        for name, allowed in (("tokens", TOKENS), ("case", CASES), ("digits", DIGITS)):
            if (got := getattr(self, name)) not in allowed:
                near = nearest(got, allowed)
                raise UserError(f"{name} must be one of {', '.join(allowed)}, got {got!r}.{near}")
        for name, least in (("shortest", 1), ("longest", 0), ("ngrams", 1), ("minimum", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name} must be at least {least}, got {getattr(self, name)}.")
        if self.ngrams > 8:
            raise UserError(f"ngrams must be at most 8, got {self.ngrams}.")
        if self.script:
            _script(self.script)

    @property
    def least(self) -> int:
        """Occurrences that are enough."""
        return self.minimum if self.inclusive else self.minimum + 1


def read_stop(name: str) -> tuple[str, ...]:
    """Stop words: "english" (the 179 of NLTK), a file with words between blanks, or none.

    >>> len(read_stop("english"))
    179
    """
    if not name:
        return ()
    path = Path(__file__).parent / "stop_english.txt" if name == "english" else Path(name)
    try:
        return tuple(path.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"Stop words: {name!r} is neither 'english' nor a text file that can be read ({error})."
        ) from error


def _original() -> Rules:
    return Rules(
        tokens="runs", case="refuse", stop=(*TEN_WORDS, *read_stop("english")), longest=0,
        minimum=100,
    )  # fmt: skip


RULES: Mapping[str, Rules] = {"plain": Rules(), "original": _original()}


@lru_cache(16)
def _script(name: str) -> Any:
    import regex

    try:
        return regex.compile(rf"[\p{{Script={name}}}\p{{M}}\p{{N}}\p{{Script=Common}}]+")
    except regex.error as error:
        raise UserError(
            f"Unicode knows no script {name!r}. Such are Latin, Cyrillic, Greek, Arabic, Han."
        ) from error


class Tally:
    """Counts of the words of some documents under rules.

    Words are counted as they come and judged once each when the counts are taken: there are far
    fewer different words than words.

    >>> tally = Tally(Rules(stop=("the",)))
    >>> tally.add("The sun, the Sun's light. Sun!")
    >>> [(word, n, documents) for word, n, documents in tally.take()]
    [('light', 1, 1), ('sun', 2, 1), ("sun's", 1, 1)]
    """

    def __init__(self, rules: Rules):
        import regex

        self.rules = rules
        self._stop = frozenset(rules.stop)
        self._word = regex.compile(_WORD if rules.tokens == "words" else r"\w+")
        self._gap = regex.compile("[ \t\u2010\u2011-]*")
        self._counts: Counter[str] = Counter()
        self._documents: Counter[str] = Counter()
        self._reasons: dict[str, str] = {}
        self.dropped: Counter[str] = Counter()

    def __len__(self) -> int:
        """Different words held now."""
        return len(self._counts)

    def add(self, text: str) -> None:
        """Count one document."""
        if self.rules.tokens == "words":
            text = unicodedata.normalize("NFC", text).replace("’", "'")
        if self.rules.case == "lower":
            text = text.lower()
        found = self._word.findall(text)
        if self.rules.ngrams > 1:
            found += self._ngrams(text)
        self._counts.update(found)
        self._documents.update(set(found))

    def _ngrams(self, text: str) -> list[str]:
        """Two and more kept words in a row, joined by a blank."""
        out: list[str] = []
        row: list[str] = []
        end = 0
        for match in self._word.finditer(text):
            if not self._gap.fullmatch(text, end, match.start()):
                row = []
            end = match.end()
            if self._reason(match[0]):
                row = []
                continue
            row.append(match[0])
            del row[: -self.rules.ngrams]
            out += [" ".join(row[-n:]) for n in range(2, len(row) + 1)]
        return out

    def _reason(self, word: str) -> str:
        if word not in self._reasons:
            if len(self._reasons) > 60_000:
                self._reasons.clear()
            self._reasons[word] = why_dropped(word, self.rules, self._stop)
        return self._reasons[word]

    def take(self) -> Iterator[tuple[str, int, int]]:
        """(word, count, documents) of the words that count, sorted; the tally is empty then."""
        counts, documents = self._counts, self._documents
        self._counts, self._documents = Counter(), Counter()
        for word in sorted(counts):
            # An n-gram was judged word by word; it alone has a blank inside.
            reason = "" if " " in word else self._reason(word)
            if reason:
                self.dropped[reason] += counts[word]
            else:
                yield word, counts[word], documents[word]


def why_dropped(word: str, rules: Rules, stop: Iterable[str] | None = None) -> str:
    """The rule that a word breaks, or an empty text.

    >>> why_dropped("Sun", Rules(case="refuse")), why_dropped("sun", Rules())
    ('capital letter', '')
    """
    stop = rules.stop if stop is None else stop
    if rules.tokens == "runs" and "_" in word:
        return "underscore"
    if rules.case == "refuse" and any(map(str.isupper, word)):
        return "capital letter"
    if word in stop:
        return "stop word"
    if len(word) < rules.shortest:
        return "too short"
    if rules.longest and len(word) > rules.longest:
        return "too long"
    if rules.script and not _script(rules.script).fullmatch(word):
        return "other script"
    if rules.digits != "keep" and (found := _digits(word, rules.digits)):
        return found
    return ""


def _digits(word: str, rule: str) -> str:
    if rule == "drop":
        return "digit" if any(unicodedata.category(c) in ("Nd", "Nl", "No") for c in word) else ""
    return "" if any(c.isalpha() for c in word) else "number"
