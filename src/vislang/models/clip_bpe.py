"""CLIP's byte-pair tokenizer, from the merges that the package open_clip carries.

Sennrich et al. 2016, arXiv:1508.07909; the vocabulary is that of arXiv:2103.00020.
"""

import gzip
import html
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from vislang.errors import UserError
from vislang.models.tokenizers import pad_rows

START, END = "<start_of_text>", "<end_of_text>"
MERGES = 48_894  # 49,152 less 256 bytes and the 2 special tokens, as CLIP took them
PATTERN = rf"{START}|{END}|'s|'t|'re|'ve|'m|'ll|'d|\p{{L}}+|\p{{N}}|[^\s\p{{L}}\p{{N}}]+"
REMEMBERED_WORDS = 200_000


class Tables(NamedTuple):
    """What the tokenizer looks up: letters for bytes, ids of pieces, ranks of merges."""

    letters: tuple[str, ...]
    ids: dict[str, int]
    ranks: dict[tuple[str, str], int]
    pattern: Any
    words: dict[str, tuple[int, ...]]


class ClipTokenizer:
    """Byte-pair encoding between a start and an end token, as OpenAI's CLIP and open_clip do it.

    Words are encoded once and remembered, which makes captions some ten times faster than
    merging each word anew.
    """

    pad, start, end, vocab = 0, 49_406, 49_407, 49_408
    portable = "clip"

    def __init__(self, context: int = 77):
        self.context = context
        tables()

    def files(self) -> dict[str, bytes]:
        """It has none: the merges come with the package open_clip."""
        return {}

    def __call__(self, texts: str | Sequence[str]) -> Tensor:
        """Texts -> int64 [n, context]."""
        texts = [texts] if isinstance(texts, str) else texts
        return pad_rows([self._row(text) for text in texts], self.context, self.pad)

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Lists of ids -> texts in lower case, a blank between words.

        Padding is left out where it follows the end token; elsewhere its id is that of "!".
        """
        pieces, letters = spellings()
        texts = []
        for row in rows:
            kept = row[: row.index(self.end)] if self.end in row else row
            text = "".join(pieces[i] for i in kept if i < self.start)
            spelt = b"".join(letters[c] for c in text.replace("</w>", " "))
            texts.append(spelt.decode("utf-8", errors="replace").strip())
        return texts

    def _row(self, text: str) -> list[int]:
        found = tables()
        row = [self.start]
        for word in found.pattern.findall(clean(text).lower()):
            pieces = found.words.get(word)
            if pieces is None:
                pieces = _encode(word, found)
            row.extend(pieces)
            if len(row) >= self.context:
                break
        return [*row[: self.context - 1], self.end]


def clean(text: str) -> str:
    """Mend wrongly decoded text, undo HTML escapes, make every run of white space one blank."""
    if not (text.isascii() and text.isprintable() and "&" not in text):
        import ftfy  # slow, and the identity on plain printable ASCII

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split())


@lru_cache(maxsize=1)
def tables() -> Tables:
    """Read the merges, once a process."""
    try:
        import regex
    except ModuleNotFoundError:
        regex = None
    spec = find_spec("open_clip")  # finds the package without importing it (8 seconds)
    if spec is None or spec.origin is None or regex is None:
        raise UserError(
            "The tokenizer 'clip' needs the package open_clip, which carries its vocabulary."
            " Install vislang[towers], or use the tokenizer 'bytes'."
        )
    path = Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(path.read_bytes()).decode().split("\n")[1 : MERGES + 1]
    merges = [tuple(line.split()) for line in lines]
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = {byte: chr(byte) for byte in shown}
    letters |= {byte: chr(256 + i) for i, byte in enumerate(hidden)}
    pieces = [letters[byte] for byte in [*shown, *hidden]]
    pieces += [piece + "</w>" for piece in pieces]
    pieces += ["".join(pair) for pair in merges]
    pieces += [START, END]
    ids = {piece: i for i, piece in enumerate(pieces)}
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    words = {START: (ids[START],), END: (ids[END],)}
    pattern = regex.compile(PATTERN, regex.IGNORECASE)
    return Tables(tuple(letters[byte] for byte in range(256)), ids, ranks, pattern, words)  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def spellings() -> tuple[list[str], dict[str, bytes]]:
    """The piece of each id, and the byte that each letter of a piece stands for."""
    found = tables()
    letters = {letter: bytes([byte]) for byte, letter in enumerate(found.letters)}
    return list(found.ids), letters | {" ": b" "}


def _encode(word: str, found: Tables) -> tuple[int, ...]:
    """Merge the neighbours of lowest rank until no merge is known; remember the ids."""
    pieces = [found.letters[byte] for byte in word.encode()]
    pieces[-1] += "</w>"
    while len(pieces) > 1:
        pairs = list(pairwise(pieces))
        best = min(pairs, key=lambda pair: found.ranks.get(pair, MERGES))
        if best not in found.ranks:
            break
        merged, at = [], 0
        while at < len(pieces):
            if at < len(pairs) and pairs[at] == best:
                merged.append("".join(best))
                at += 2
            else:
                merged.append(pieces[at])
                at += 1
        pieces = merged
    ids = tuple(found.ids[piece] for piece in pieces)
    if len(found.words) < REMEMBERED_WORDS:
        found.words[word] = ids
    return ids
