"""Word vectors from a file (FastText, GloVe, word2vec in text form): a text is their mean.

V: words, D: width of a vector, B: texts, L: words of the longest text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vislang.config import from_dict
from vislang.errors import UserError
from vislang.models.towers.sides import check_side

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


@dataclass(frozen=True)
class WordVectorsOptions:
    """Options of `word_vectors`.

    Args:
        words: file of the words, one a line, for a random start (as exports have it).
        width: of a vector; taken from the file of vectors where one is given.
        most: words to read from it, from the top, where the frequent ones are; 0 reads all.
        context: words of a text that count.
    """

    words: str = ""
    width: int = 0
    most: int = 400_000
    context: int = 512


class WordTokenizer:
    """Texts -> numbers of their known words, int64 [n, L]; 0 is padding. Unknown ones are left out.

    Words are runs of letters and digits, as written or in lower case.

    Args:
        words: number i + 1 stands for words[i].
        context: most words of a text.
    """

    pad = 0

    def __init__(self, words: Sequence[str], context: int):
        self.words, self.context = tuple(words), context
        self._number = {word: i + 1 for i, word in enumerate(self.words)}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        rows = [self._numbers(text) for text in texts]
        out = torch.zeros(len(rows), max(1, *map(len, rows)) if rows else 1, dtype=torch.int64)
        for i, row in enumerate(rows):
            out[i, : len(row)] = torch.tensor(row, dtype=torch.int64)
        return out

    def _numbers(self, text: str) -> list[int]:
        known = self._number
        found = (known.get(w) or known.get(w.lower(), 0) for w in _WORD.findall(text))
        return [number for number in found if number][: self.context]


class WordVectors(nn.Module):
    """The mean of the vectors of a text's words; the zero vector where none is known.

    FastText's bag of words, Joulin et al. 2016, arXiv:1607.01759.
    """

    pad = 0

    def __init__(self, tokenizer: WordTokenizer, width: int):
        super().__init__()
        self.tokenizer, self.width = tokenizer, width
        self.settings = {
            "words": "{here}/words.txt", "width": width, "most": 0, "context": tokenizer.context
        }  # fmt: skip
        self.vectors = nn.Embedding(len(tokenizer.words) + 1, width, padding_idx=0)

    def files(self) -> dict[str, bytes]:
        """The words: what `settings` calls "{here}/words.txt"."""
        return {"words.txt": ("\n".join(self.tokenizer.words) + "\n").encode()}

    def prepare(self, texts: Sequence[str]) -> Tensor:
        """Texts -> tokens int64 [n, L]."""
        return self.tokenizer(texts)

    def set_grad_checkpointing(self, on: bool = True) -> None:
        """Nothing to save: there is one layer."""

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 [B, L] -> [B, D]."""
        known = (tokens != self.pad).sum(1, keepdim=True)
        return self.vectors(tokens).sum(1) / known.clamp_min(1)


def build(*, side: str, pretrained: str = "", weights: bool = True, **options: Any) -> WordVectors:
    """The mean of word vectors from a file in text form: FastText's .vec, GloVe, word2vec (text).

    `pretrained` is the file: a word and its numbers a line, with or without a first line of counts.
    """
    check_side(side, ("text",), "word_vectors")
    settings = from_dict(WordVectorsOptions, options, f"model.{side}.options")
    if pretrained:
        words, vectors = read_vectors(pretrained, settings.most)
        tower = WordVectors(WordTokenizer(words, settings.context), vectors.shape[1])
        if weights:
            with torch.no_grad():
                tower.vectors.weight[1:] = torch.from_numpy(vectors)
        return tower
    if not settings.words or not settings.width:
        raise UserError(
            "word_vectors needs model.text.pretrained: a file of word vectors in text form, such"
            " as FastText's wiki-news-300d-1M.vec or GloVe's glove.6B.300d.txt."
        )
    listed = Path(settings.words).expanduser()
    if not listed.is_file():
        raise UserError(f"There is no file of words {listed}.")
    words = listed.read_text(encoding="utf-8").split("\n")[:-1]
    return WordVectors(WordTokenizer(words, settings.context), settings.width)


def read_vectors(path: str | Path, most: int = 0) -> tuple[list[str], np.ndarray]:
    """(words, vectors float32 [V, D]) of a file in text form; of a repeated word the first counts.

    Raises:
        UserError: there is no file, it is binary, or a line has another number of values.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"There is no file of word vectors {path}.")
    known: dict[str, np.ndarray] = {}
    width = 0
    with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
        for number, line in enumerate(file, 1):
            parts = line.rstrip().split(" ")
            if number == 1 and len(parts) == 2 and all(part.isdigit() for part in parts):
                continue  # V and D
            width = width or len(parts) - 1
            try:
                # A word may hold spaces (GloVe 840B has ". . ."), numbers may not.
                values = np.array(parts[-width:], np.float32)
                word = " ".join(parts[:-width])
                if not word or not np.isfinite(values).all():
                    raise ValueError("no word, or a value that is no number")
            except ValueError as error:
                raise UserError(
                    f"{path}, line {number}: not a word and {width} numbers ({error})."
                    " Give the text form of the vectors; binary ones (.bin) are not read."
                ) from error
            known.setdefault(word, values)
            if most and len(known) >= most:
                break
    if not known:
        raise UserError(f"{path} holds no word vectors.")
    return list(known), np.stack(list(known.values()))
