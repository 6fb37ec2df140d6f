"""vislang curate tokenizer: learn a tokenizer from the captions of a source."""

from pathlib import Path
from typing import Any


def tokenizer(
    source: str,
    *,
    out: Path,
    source_options: dict[str, Any] | None = None,
    vocab: int = 20_000,
    min_count: int = 2,
    case: str = "lower",
    unicode: str = "nfc",
    spaces: str = "collapse",
) -> None:
    """Learn a tokenizer (byte-level BPE) from the captions of a source.

    What it writes is read by text towers (tokenizer file:OUT/tokenizer.json), the tokenizers
    library, transformers, and what `vislang export` makes for open_clip.

    Args:
        source: captions: a path whose layout is recognised, layout:path, or a name.
        out: folder to fill.
        source_options: arguments of the source's layout, for example {split: train}.
        vocab: ids in all: 256 bytes, padding, start, end, and what is learned.
        min_count: how often a pair must stand in the captions to become a token.
        case: lower, or keep.
        unicode: nfc, nfkc, or keep.
        spaces: collapse runs of white space, or keep them.
    """
    from vislang.curate.tokenizer import BpeRules, make_tokenizer
    from vislang.data.sources import open_source

    rules = BpeRules(vocab, min_count, case, unicode, spaces)
    made = make_tokenizer(open_source(source, **(source_options or {})), out, rules)
    print(f"Tokenizer: {out} ({made.vocab:,} ids from {made.captions:,} captions)")
    if made.vocab < vocab:
        print(f"  no more pairs stand there {min_count} times: {vocab:,} ids were asked for")
    if made.rejected:
        print(f"  rejected: {made.rejected:,} samples that could not be read")
    print(f"  a caption has {made.tokens:.1f} tokens; {made.longest} hold 99 % of them whole")
    print(f"Next: vislang train scratch --model.text.options.tokenizer file:{out}/tokenizer.json")
