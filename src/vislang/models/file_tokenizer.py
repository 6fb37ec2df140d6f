"""Any tokenizer that is written in a `tokenizer.json` of the tokenizers library."""

import json
import os
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from vislang.errors import UserError
from vislang.models.clip_bpe import clean
from vislang.models.tokenizers import pad_rows

PAD_NAMES = ("[PAD]", "<pad>", "<|pad|>", "<|padding|>", "<PAD>")
CLEANINGS = ("", "whitespace", "lower", "canonicalize")
LONGEST = 100_000  # characters read of a text; a word of a million would take 5 s to merge


class FileTokenizer:
    """The tokenizer of a file, cut to `context` (its special tokens stay) and padded.

    Args:
        source: path of a tokenizer.json, with the other arguments after a question mark where
            needed (path?pad=1&cleaning=lower); or the file's text, if it begins with "{".
        context: longest text in tokens.
        pad: id of padding. By default what the file says, else that of a token named like
            [PAD]; without any it is -1, which towers put out of sight before they look it up.
        cleaning: "" leaves a text as it is; open_clip's "whitespace", "lower" and "canonicalize"
            (lower case without punctuation) mend it first.
        hide: id of a token to replace by 0 (open_clip's strip_sep_token).
    """

    def __init__(
        self,
        source: str,
        context: int,
        pad: int | None = None,
        cleaning: str = "",
        hide: int | None = None,
    ):
        path, notes = _split(source)
        self.source = source if source.startswith("{") else _read(path)
        self.context = context
        self._start()
        self.pad = int(notes.get("pad", self._pad())) if pad is None else pad
        self.cleaning = cleaning or notes.get("cleaning", "")
        self.hide = int(notes["hide"]) if "hide" in notes else hide
        if self.cleaning not in CLEANINGS:
            raise UserError(f"cleaning must be one of {CLEANINGS}, got {self.cleaning!r}.")

    def _start(self) -> None:
        # Its threads do not survive the fork of loader workers; batches are small anyway.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            from tokenizers import Tokenizer
        except ModuleNotFoundError as error:
            raise UserError(
                "The tokenizer 'file' needs the package tokenizers. Install vislang[towers]."
            ) from error
        try:
            self.tokenizer: Any = Tokenizer.from_str(self.source)
        except Exception as error:
            raise UserError(f"This is no tokenizer.json: {error}.") from error
        self.tokenizer.enable_truncation(self.context)
        self.tokenizer.no_padding()
        self.vocab: int = self.tokenizer.get_vocab_size()
        self._around = _template(json.loads(self.source))

    def _pad(self) -> int:
        padding = json.loads(self.source).get("padding") or {}
        if isinstance(padding.get("pad_id"), int):
            return padding["pad_id"]
        ids = (self.tokenizer.token_to_id(name) for name in PAD_NAMES)
        return next((i for i in ids if i is not None), -1)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "tokenizer"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    @property
    def end(self) -> int | None:
        """Id of the token that closes every text; None where the file says of none."""
        return self._around[-1] if self._around else None

    @property
    def inert(self) -> bool:
        """Whether no text can spell a special token, since the file names none to look for."""
        return not json.loads(self.source).get("added_tokens")

    @property
    def portable(self) -> str:
        """The spec that builds it again, with its file as "{here}/tokenizer.json"."""
        hide = "" if self.hide is None else f"&hide={self.hide}"
        return f"file:{{here}}/tokenizer.json?pad={self.pad}&cleaning={self.cleaning}{hide}"

    def files(self) -> dict[str, bytes]:
        """Its file."""
        return {"tokenizer.json": self.source.encode()}

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Lists of ids -> texts, without special tokens."""
        left_out = {self.pad, *self._around}
        kept = [[i for i in row if i >= 0 and i not in left_out] for row in rows]
        return self.tokenizer.decode_batch(kept, skip_special_tokens=True)

    def __call__(self, texts: str | Sequence[str]) -> Tensor:
        """Texts -> int64 [n, context]."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        texts = [mend(text[:LONGEST], self.cleaning) for text in texts]
        try:
            encoded = self.tokenizer.encode_batch(texts)
        except TypeError:  # a lone surrogate, which UTF-8 cannot state
            texts = [text.encode("utf-8", errors="replace").decode() for text in texts]
            encoded = self.tokenizer.encode_batch(texts)
        rows = [encoding.ids for encoding in encoded]
        out = pad_rows(rows, self.context, self.pad)
        return out if self.hide is None else out.masked_fill(out == self.hide, 0)


def without_added(source: str) -> str:
    """A tokenizer.json without added tokens, which texts are searched for, where the vocabulary
    has them anyway: transformers writes them into files that need none."""
    about = json.loads(source)
    vocab = about["model"].get("vocab") or {}
    about["added_tokens"] = [t for t in about["added_tokens"] if t["content"] not in vocab]
    return json.dumps(about, ensure_ascii=False)


def _template(about: dict[str, Any]) -> list[int]:
    """Ids of the special tokens that the file puts around a single text, in their order."""
    post = about.get("post_processor") or {}
    known = post.get("special_tokens") or {}
    names = [
        part["SpecialToken"]["id"] for part in post.get("single", ()) if "SpecialToken" in part
    ]
    return [id_ for name in names for id_ in known.get(name, {}).get("ids", ())]


def mend(text: str, cleaning: str) -> str:
    """`text` after one of open_clip's cleanings.

    >>> mend("A  Photo_of, it", "canonicalize")
    'a photo of it'
    """
    if not cleaning:
        return text
    text = clean(text)
    if cleaning == "lower":
        return text.lower()
    if cleaning == "canonicalize":
        bare = text.replace("_", " ").translate(str.maketrans("", "", string.punctuation))
        return " ".join(bare.lower().split())
    return text


def _split(source: str) -> tuple[str, dict[str, str]]:
    """Path and notes of "path?pad=1&cleaning=lower".

    >>> _split("a.json?pad=1&cleaning=")
    ('a.json', {'pad': '1', 'cleaning': ''})
    """
    path, mark, notes = source.rpartition("?")
    if not mark or source.startswith("{"):
        return source, {}
    pairs = (note.partition("=") for note in notes.split("&"))
    return path, {key: value for key, _, value in pairs}


def _read(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"Cannot read the tokenizer {path!r}: {error}. Give file:PATH of a tokenizer.json."
        ) from error
