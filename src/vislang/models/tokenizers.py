"""Tokenizers: texts -> int64 [n, context], padded on the right.

A tokenizer is picklable and small to pickle (loader workers get a copy), and has

    context: int    tokens in a row
    pad: int        id of padding
    vocab: int      ids are 0 .. vocab - 1
    portable: str   the spec that builds it again elsewhere; "{here}/name" stands for a file
    files()         name -> bytes of the files that `portable` names
    decode(rows)    lists of ids -> their texts, without start, end and padding

A text that is too long is cut so that its end token stays.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vislang.errors import UserError
from vislang.lookup import lookup
from vislang.models import TOKENIZERS


def build_tokenizer(spec: str, context: int) -> Any:
    """The tokenizer that `spec` names: "bytes", "clip" or "file:path/to/tokenizer.json".

    Args:
        spec: a key of TOKENIZERS, with its argument after a colon.
        context: longest text in tokens, special tokens included.
    """
    if context < 3:
        raise UserError(f"context must be at least 3 tokens (start, one, end), got {context}.")
    name, colon, argument = spec.partition(":")
    # A tokenizer is never the user's own import: its name may come with a checkpoint.
    kind = lookup("tokenizer", TOKENIZERS, name, trusted=False)
    if colon and name != "file":
        raise UserError(f"The tokenizer {name!r} takes no argument, got {spec!r}.")
    return kind(argument, context) if name == "file" else kind(context)


def trim(tokens: Tensor, pad: int) -> Tensor:
    """Leave out the columns on the right that are padding in every row: [B, L] -> [B, L'].

    Captions of 12 tokens in rows of 77 are then 5 times less work. On an accelerator, finding
    the length would make the host wait for the device, so the tokens stay as they are there.

    >>> trim(torch.tensor([[5, 6, 0, 0], [7, 0, 0, 0]]), 0)
    tensor([[5, 6],
            [7, 0]])
    """
    if tokens.device.type != "cpu" or torch.compiler.is_compiling() or not tokens.numel():
        return tokens
    used = (tokens != pad).any(0).nonzero()
    return tokens[:, : int(used[-1]) + 1] if len(used) else tokens[:, :1]


def pad_rows(rows: Sequence[Sequence[int]], context: int, pad: int) -> Tensor:
    """Lists of ids, none longer than `context` -> int64 [n, context]."""
    out = np.full((len(rows), context), pad, dtype=np.int64)
    for line, row in zip(out, rows):
        line[: len(row)] = row
    return torch.from_numpy(out)


class ByteTokenizer:
    """UTF-8 bytes between a start and an end token; needs no vocabulary and no download.

    Ids: 0 padding, 1-256 the bytes, 257 start, 258 end (the largest, as in CLIP). A long text
    is cut at a whole character.

    >>> ByteTokenizer(8)(["ab", "ééé"])
    tensor([[257,  98,  99, 258,   0,   0,   0,   0],
            [257, 196, 170, 196, 170, 196, 170, 258]])
    """

    pad, start, end, vocab = 0, 257, 258, 259
    portable = "bytes"

    def __init__(self, context: int):
        self.context = context

    def files(self) -> dict[str, bytes]:
        """It has none."""
        return {}

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Lists of ids -> texts; bytes that are no UTF-8 become the replacement character.

        >>> ByteTokenizer(8).decode(ByteTokenizer(8)(["ab", "é"]).tolist())
        ['ab', 'é']
        """
        texts = (bytes(i - 1 for i in row if self.pad < i < self.start) for row in rows)
        return [text.decode("utf-8", errors="replace") for text in texts]

    def __call__(self, texts: str | Sequence[str]) -> Tensor:
        """Texts -> int64 [n, context]."""
        texts = [texts] if isinstance(texts, str) else texts
        out = np.zeros((len(texts), self.context), dtype=np.int64)
        for line, text in zip(out, texts):
            raw = text.encode("utf-8", errors="replace")
            if len(raw) > self.context - 2:
                raw = raw[: self.context - 2].decode("utf-8", errors="ignore").encode()
            line[0], line[len(raw) + 1] = self.start, self.end
            line[1 : len(raw) + 1] = np.frombuffer(raw, dtype=np.uint8)
            line[1 : len(raw) + 1] += 1
        return torch.from_numpy(out)
