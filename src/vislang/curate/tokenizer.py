"""A tokenizer of one's own: byte-level BPE, learned from the captions of a source.

The pairs that stand beside each other most often become one token, again and again, until the
vocabulary is full (Sennrich et al. 2016, arXiv:1508.07909). It begins with the 256 bytes, so that
any text can be written (Radford et al. 2019, section 2.2).

Ids: 0 padding, then bytes and merges, then start and end. The end token is the largest id, as in
CLIP. The three are no "added tokens" of the file: nothing that a caption says can stand for them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislang.errors import UserError
from vislang.files import plain, read_json, write_json, write_whole

if TYPE_CHECKING:
    from vislang.data.sample import Source

FILE, CONFIG, NOTE = "tokenizer.json", "tokenizer_config.json", "about.json"
# Brackets that are no bytes of the alphabet, so that merges can never spell these names.
PAD, START, END = "⟨pad⟩", "⟨start⟩", "⟨end⟩"
SMALLEST = 256 + 3
BATCH = 1000  # captions handed over at a time
# Characters read of a caption: learning takes the square of a word's length, and one of 10,000
# letters without a blank 0.2 s.
LONGEST = 2000
CASES, UNICODES, SPACES = ("lower", "keep"), ("nfc", "nfkc", "keep"), ("collapse", "keep")


@dataclass(frozen=True)
class BpeRules:
    """What a tokenizer is learned by; the last three are part of it and applied to every text.

    Args:
        vocab: ids in all, the three special ones included.
        min_count: a pair must stand in the captions so often to become a token.
        case: lower, or keep.
        unicode: nfc (one spelling of each character), nfkc (also of its variants, such as ﬁ), or
            keep.
        spaces: collapse (runs of white space are one blank, none at the ends), or keep.
    """

    vocab: int = 20_000
    min_count: int = 2
    case: str = "lower"
    unicode: str = "nfc"
    spaces: str = "collapse"

    def __post_init__(self) -> None:
        if self.vocab < SMALLEST:
            raise UserError(
                f"vocab must be at least {SMALLEST} (256 bytes, padding, start, end), got"
                f" {self.vocab}."
            )
        if self.min_count < 1:
            raise UserError(f"min_count must be at least 1, got {self.min_count}.")
        for name, known in (("case", CASES), ("unicode", UNICODES), ("spaces", SPACES)):
            if getattr(self, name) not in known:
                raise UserError(
                    f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}."
                )


@dataclass(frozen=True)
class Learned:
    """What came of learning a tokenizer.

    Args:
        folder: with tokenizer.json.
        vocab: ids that it has; fewer than asked for where the captions hold no more pairs.
        captions: that it was learned from.
        rejected: samples that could not be read.
        tokens: mean of a caption, start and end included.
        longest: tokens that hold 99 % of the captions whole; a fitting `context`.
    """

    folder: Path
    vocab: int
    captions: int
    rejected: int
    tokens: float
    longest: int


class Captions:
    """The captions of a source in batches, one after the other; samples that cannot be read are
    counted. Nothing is kept but the batch and every `keep`-th caption for the statistics."""

    def __init__(self, source: Source, most: int = 10_000):
        self.source, self.most = source, most
        self.count = self.rejected = 0
        self.drawn: list[str] = []
        self._stride = 1

    def __iter__(self) -> Iterator[list[str]]:
        batch: list[str] = []
        for text in self._each():
            batch.append(text[:LONGEST])
            if len(batch) == BATCH:
                yield self._taken(batch)
                batch = []
        if batch:
            yield self._taken(batch)

    def _each(self) -> Iterator[str]:
        from vislang.data.sample import BadSample

        for index in range(len(self.source)):
            try:
                texts = self.source[index].texts
            except BadSample:
                self.rejected += 1
                continue
            yield from texts

    def _taken(self, batch: list[str]) -> list[str]:
        self.drawn += batch[:: self._stride]
        if len(self.drawn) > self.most:  # thinned, so that it stays spread over the source
            self.drawn, self._stride = self.drawn[::2], self._stride * 2
        self.count += len(batch)
        return readable(batch)


def readable(texts: list[str]) -> list[str]:
    """Texts that UTF-8 can state: lone surrogates become question marks.

    >>> readable(["a dog", "a \\ud83d"])
    ['a dog', 'a ?']
    """
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return [text.encode("utf-8", errors="replace").decode() for text in texts]
    return texts


def make_tokenizer(source: Source, folder: Path | str, rules: BpeRules | None = None) -> Learned:
    """Learn a tokenizer from the captions of a source and write it.

    FOLDER/tokenizer.json is what `file:FOLDER/tokenizer.json` reads, the tokenizers library, and,
    with tokenizer_config.json, transformers. Memory is that of the distinct words. The same
    captions and rules give the same bytes. A folder that holds it already is left as it is.

    Raises:
        UserError: no captions, or the folder holds another tokenizer.
    """
    rules, folder = rules or BpeRules(), Path(folder)
    if "text" not in source.gives:
        raise UserError(
            f"A tokenizer is learned from captions, but the source {source.name!r} gives"
            f" {', '.join(sorted(source.gives))}. Name its caption column, or use another source."
        )
    about = {"source": source.fingerprint, "rules": plain(rules)}
    if (folder / NOTE).exists():
        return _found(folder, about)
    captions = Captions(source)
    text = learn_bpe(captions, rules)
    if not captions.count:
        raise UserError(f"The source {source.name!r} holds no captions to learn from.")
    tokens, longest = _lengths(text, captions.drawn)
    vocab = len(json.loads(text)["model"]["vocab"])
    learned = Learned(folder, vocab, captions.count, captions.rejected, tokens, longest)
    write_whole(folder / FILE, text)
    write_json(folder / CONFIG, transformers_config())
    write_json(folder / NOTE, about | {"learned": {**plain(learned), "folder": ""}})
    return learned


def _found(folder: Path, about: dict[str, Any]) -> Learned:
    note = read_json(folder / NOTE)
    other = [key for key in about if note.get(key) != about[key]]
    if other or not (folder / FILE).is_file():
        raise UserError(
            f"{folder} holds a tokenizer that was made with other settings ({', '.join(other)}:"
            f" {', '.join(str(note.get(key)) for key in other)}). Take another folder, or remove"
            " this one."
        )
    return Learned(**note["learned"] | {"folder": folder})


def learn_bpe(captions: Iterable[list[str]], rules: BpeRules) -> str:
    """The text of a tokenizer.json, learned from batches of captions.

    >>> import json
    >>> made = learn_bpe([["a dog", "the dog", "the dog"]], BpeRules(vocab=300))
    >>> {"Ġdog", "Ġthe", "⟨start⟩", "⟨end⟩"} <= set(json.loads(made)["model"]["vocab"])
    True
    """
    try:
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    except ModuleNotFoundError as error:
        raise UserError(
            "Learning a tokenizer needs the package tokenizers. Install vislang[towers]."
        ) from error
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=rules.vocab - 3,
        min_frequency=rules.min_count,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    normalizer = _normalizer(rules)
    # Normalised before they are handed over: the library's own normalising takes twice as long.
    made.train_from_iterator(_normalised(captions, rules, normalizer), trainer)
    made.normalizer = normalizer
    return _with_special(json.loads(made.to_str()))


def _normalizer(rules: BpeRules) -> Any:
    from tokenizers import Regex, normalizers

    steps: list[Any] = []
    if rules.unicode != "keep":
        steps.append(normalizers.NFC() if rules.unicode == "nfc" else normalizers.NFKC())
    if rules.case == "lower":
        steps.append(normalizers.Lowercase())
    if rules.spaces == "collapse":
        steps += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    # The first word is then the token that it is elsewhere; decoding takes the blank off again.
    steps.append(normalizers.Prepend(" "))
    return normalizers.Sequence(steps)


def _normalised(
    captions: Iterable[list[str]], rules: BpeRules, normalizer: Any
) -> Iterator[list[str]]:
    """The captions as the normalizer leaves them; printable ASCII needs no more than this."""
    lower, collapse = rules.case == "lower", rules.spaces == "collapse"

    def plain_text(text: str) -> str:
        text = text.lower() if lower else text
        text = " ".join(text.split()) if collapse else text
        return f" {text}" if text else ""

    for batch in captions:
        yield [
            plain_text(text)
            if text.isascii() and text.isprintable()
            else normalizer.normalize_str(text)
            for text in batch
        ]


def _with_special(made: dict[str, Any]) -> str:
    """The learned file with padding, start and end, which it puts around each text by number."""
    vocab = {PAD: 0} | {token: place + 1 for token, place in made["model"]["vocab"].items()}
    start, end = len(vocab), len(vocab) + 1
    made["model"]["vocab"] = vocab | {START: start, END: end}
    byte_level = {"add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    made["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "ByteLevel", **byte_level},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    }
    made["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [_special(START), _text("A"), _special(END)],
        "pair": [_special(START), _text("A"), _special(END), _text("B"), _special(END)],
        "special_tokens": {
            name: {"id": name, "ids": [id_], "tokens": [name]}
            for name, id_ in ((START, start), (END, end))
        },
    }
    made["padding"] = {
        "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": PAD,
    }  # fmt: skip
    return json.dumps(made, ensure_ascii=False)


def _special(name: str) -> dict[str, Any]:
    return {"SpecialToken": {"id": name, "type_id": 0}}


def _text(name: str) -> dict[str, Any]:
    return {"Sequence": {"id": name, "type_id": 0}}


def transformers_config() -> dict[str, Any]:
    """What transformers wants beside tokenizer.json.

    `split_special_tokens` keeps the special ones inert there, too: it adds them to its own table.
    """
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "bos_token": START,
        "eos_token": END,
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
    }


def _lengths(text: str, captions: list[str]) -> tuple[float, int]:
    """(mean tokens of a caption, tokens that hold 99 % of them)."""
    import numpy as np
    from tokenizers import Tokenizer

    made = Tokenizer.from_str(text)
    made.no_padding()
    rows = made.encode_batch_fast(readable(captions))
    lengths = np.array([len(row.ids) for row in rows] or [2])
    return float(lengths.mean()), int(np.ceil(np.quantile(lengths, 0.99)))
