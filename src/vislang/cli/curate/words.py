"""vislang curate words: count the words of a Wikipedia dump."""

from dataclasses import replace
from pathlib import Path


def words(
    dump: Path,
    *,
    out: Path,
    rules: str = "plain",
    tokens: str = "",
    case: str = "",
    stop: str = "",
    script: str = "",
    digits: str = "",
    shortest: int | None = None,
    longest: int | None = None,
    ngrams: int | None = None,
    minimum: int | None = None,
    inclusive: bool | None = None,
    partial: bool = False,
    seconds: float = 10.0,
    max_characters: int = 2_000_000,
    workers: int = 0,
) -> None:
    """Count the words of a Wikipedia dump; the same command again goes on where it stopped.

    Writes OUT/words.parquet with word, count and documents, and OUT/words.json with every rule.

    Args:
        dump: MediaWiki XML export, plain, .bz2 or .gz, in any language.
        out: folder to fill.
        rules: plain or original; the flags below change single rules of it.
        tokens: words, or runs (of letters, digits and underscores).
        case: lower, keep, or refuse (drops words with a capital letter).
        stop: words that do not count: english, or a text file with them.
        script: letters of another one drop a word, as in Latin or Cyrillic.
        digits: keep, numbers (drops words without a letter) or drop (words with a digit).
        shortest: characters of a word.
        longest: characters of a word; 0 takes any.
        ngrams: also count up to so many words in a row.
        minimum: times that a word must occur.
        inclusive: whether the minimum itself is enough.
        partial: take a dump that ends early for what it is.
        seconds: of processor time for one article.
        max_characters: of one article.
        workers: processes; 0 takes one for each core, up to 6.
    """
    from vislang.curate.words import RULES, count_words
    from vislang.curate.words.rules import read_stop
    from vislang.errors import UserError
    from vislang.lookup import nearest

    if rules not in RULES:
        raise UserError(
            f"rules must be one of {', '.join(RULES)}, got {rules!r}.{nearest(rules, RULES)}"
        )
    changed = {
        "tokens": tokens or None, "case": case or None, "stop": read_stop(stop) or None,
        "script": script or None, "digits": digits or None, "shortest": shortest,
        "longest": longest, "ngrams": ngrams, "minimum": minimum, "inclusive": inclusive,
    }  # fmt: skip
    chosen = replace(RULES[rules], **{k: v for k, v in changed.items() if v is not None})
    done = count_words(
        dump, out, chosen, workers=workers or None, partial=partial, seconds=seconds,
        max_characters=max_characters,
        on_done=lambda name, note: print(f"{name}: {note['counted']:,} articles", flush=True),
    )  # fmt: skip
    found = done["words"]
    print(f"Words: {out} ({found['kept']:,} of {found['different']:,} different ones,"
          f" {done['counted']:,} articles)")  # fmt: skip
    for what, counts in (("pages skipped", done["skipped"]), ("dropped", found["dropped"])):
        for reason, count in sorted(counts.items(), key=lambda item: -item[1]):
            print(f"  {what}: {count:,} ({reason})")
    if done["ended_early"]:
        print(f"  the dump ends early: {done['ended_early']}")
    print(f"Next: vislang curate images {out} --out IMAGES --providers openverse")
