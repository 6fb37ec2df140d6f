"""Searching for words at providers: blocks of words, each whole or absent, then one table.

OUT/images.parquet     a row a picture, for `vislang curate fetch`; written last but one
OUT/images.json        what was asked, found, merged and rejected; written last
OUT/found/  OUT/units/ rows and notes of a block of words at one provider
OUT/answers/           every good answer as it came: nothing is asked for twice
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vislang.curate.images import PROVIDERS
from vislang.curate.images.asking import Asking, Manners, NoAnswer
from vislang.curate.images.join import join_images, write_found
from vislang.curate.images.provider import BadAnswer, Found, Photo, Provider, tidy
from vislang.curate.words import read_words
from vislang.errors import UserError
from vislang.files import fingerprint, read_json, run_units
from vislang.lookup import lookup

BLOCK = 20  # words of a unit
_LONGEST_ADDRESS = 4096


@dataclass(frozen=True)
class Searching:
    """What is searched for.

    Args:
        per_word: pictures of one word at one provider; 0 takes all that it gives.
        max_caption: characters; longer ones are no captions.
        need_caption: reject pictures without one.
        most_words: of the list, from its beginning; 0 takes all.
    """

    per_word: int = 100
    max_caption: int = 2000
    need_caption: bool = True
    most_words: int = 0


def search_images(
    words: Path | str | Sequence[str],
    out: Path | str,
    providers: Sequence[str] = ("openverse",),
    how: Searching = Searching(),
    *,
    endpoints: Mapping[str, str] | None = None,
    manners: Manners = Manners(),  # noqa: B008  frozen
    retry_failed: bool = False,
    on_done: Callable[[str, Mapping[str, Any]], None] | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Search for words, and join what was found; the same call again goes on where it stopped.

    Args:
        words: folder of `count_words`, a table with a column word, a text file, or a list.
        out: folder to fill; further providers may be added to it later.
        providers: names of PROVIDERS.
        how: how much of what.
        endpoints: provider -> address to ask instead of its own.
        manners: how one asks.
        retry_failed: ask again for words that got no answer.
        on_done: called with (unit, note) after each block of words.
        say: called with a line about long waits.

    Returns:
        What is in OUT/images.json.

    Raises:
        UserError: a key is missing or refused, a provider does not answer, the disk is full.
    """
    out = Path(out)
    _check(how, manners)
    listed = read_words(words) if isinstance(words, Path | str) else list(words)
    listed = list(dict.fromkeys(filter(None, map(str.strip, listed))))
    listed = listed[: how.most_words] if how.most_words else listed
    if not listed:
        raise UserError("There are no words to search for. Is their minimum count too high?")
    asked = [_asking(name, out, endpoints or {}, manners, say) for name in providers]
    settings = {
        "words": fingerprint(listed), "number_of_words": len(listed), "block": BLOCK,
        "per_word": how.per_word, "max_caption": how.max_caption,
        "need_caption": how.need_caption,
    }  # fmt: skip
    for asking in asked:
        units = _units(asking.name, listed)
        if retry_failed:
            _forget_failed(out, units)

        def work(unit: str, folder: Path, units=units, asking=asking) -> dict[str, Any]:
            return _search_block(asking, units[unit], how, folder / "found" / f"{unit}.parquet")

        for unit in units:  # one by one: a refused key ends all of them at once
            run_units(out, [unit], work, settings, on_done=on_done)
    return join_images(out)


def _check(how: Searching, manners: Manners) -> None:
    for name, least in (("per_word", 0), ("max_caption", 1), ("most_words", 0)):
        if getattr(how, name) < least:
            raise UserError(f"{name} must be at least {least}, got {getattr(how, name)}.")
    if manners.tries < 1:
        raise UserError(f"tries must be at least 1, got {manners.tries}.")


def _asking(
    name: str, out: Path, endpoints: Mapping[str, str], manners: Manners, say: Callable[[str], None]
) -> Asking:
    provider: Provider = lookup("provider", PROVIDERS, name)()
    endpoint = endpoints.get(name, "")
    if endpoint and (urlsplit(endpoint).scheme not in ("http", "https")):
        raise UserError(f"The endpoint of {name} must be an http(s) address, got {endpoint!r}.")
    key = os.environ.get(provider.key, "").strip() if provider.key else ""
    if provider.key_needed and not key:
        raise UserError(
            f"{name} answers nobody without a key. Get one at {provider.register} and set the"
            f" environment variable {provider.key}."
        )
    return Asking(name, provider, out / "answers", key, endpoint, manners, say)


def _units(name: str, words: Sequence[str]) -> dict[str, list[str]]:
    return {
        f"{name.replace(':', '-')}-{at // BLOCK:06d}": list(words[at : at + BLOCK])
        for at in range(0, len(words), BLOCK)
    }


def _forget_failed(out: Path, units: Mapping[str, Any]) -> None:
    for unit in units:
        note = out / "units" / f"{unit}.json"
        if note.exists() and read_json(note)["failed"]:
            note.unlink()


def _search_block(
    asking: Asking, words: Sequence[str], how: Searching, path: Path
) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    rejected: Counter[str] = Counter()
    notes: list[list[str]] = []
    failed: list[list[str]] = []
    before = asking.requests
    for word in words:
        search = _Search(asking, word, how, rejected)
        try:
            search.run()
        except (NoAnswer, BadAnswer) as reason:
            failed.append([word, str(reason)])
        rows += search.rows
        notes += [[word, note] for note in search.notes]
    write_found(path, rows)
    return {
        "provider": asking.name, "words": len(words), "rows": len(rows),
        "requests": asking.requests - before, "rejected": rejected, "notes": notes,
        "failed": failed,
    }  # fmt: skip


class _Search:
    """All pages of one word, as far as they bring anything new."""

    def __init__(self, asking: Asking, word: str, how: Searching, rejected: Counter[str]):
        self.asking, self.word, self.how, self.rejected = asking, word, how, rejected
        self.rows: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self._seen: set[str] = set()

    def run(self) -> None:
        page, total = 1, -1
        while page <= self.asking.provider.most_pages:
            found = self.asking.provider.read(self.asking.ask(self.word, page), page)
            if page > 1 and found.total != total:
                self.notes.append(f"page {page} says {found.total} in all, not {total}")
            total = found.total
            if not found.photos:
                if page > 1:
                    self.notes.append(f"page {page} is empty, though {total} were promised")
                return
            if not self._take(found):
                self.notes.append(f"page {page} repeats earlier ones")
                return
            if self._full() or (0 <= found.pages <= page):
                return
            page += 1

    def _full(self) -> bool:
        return bool(self.how.per_word) and len(self.rows) >= self.how.per_word

    def _take(self, found: Found) -> bool:
        """Rows of the new pictures; False when there is none among them."""
        new = False
        for photo in found.photos:
            if self._full():
                return True
            identity = photo.photo_id or photo.original or photo.url
            if identity in self._seen:
                self.rejected["repeated"] += 1
                continue
            self._seen.add(identity)
            new = True
            caption = tidy(photo.caption[: 10 * self.how.max_caption])
            reason = _why_rejected(photo, caption, self.how)
            if reason:
                self.rejected[reason] += 1
            else:
                self.rows.append(self._row(photo, caption))
        return new

    def _row(self, photo: Photo, caption: str) -> dict[str, Any]:
        name = self.asking.name
        texts = {field: tidy(getattr(photo, field))[:1000] for field in ("author", "licence")}
        return photo._asdict() | texts | {
            "id": f"{name}:{photo.photo_id}", "provider": name, "word": self.word,
            "caption": caption, "original": photo.original or photo.url,
        }  # fmt: skip


def _why_rejected(photo: Photo, caption: str, how: Searching) -> str:
    if photo.reject:
        return photo.reject
    if not photo.photo_id:
        return "no photo id"
    if not photo.url:
        return "no address"
    try:
        photo.url.encode()
        good = urlsplit(photo.url).scheme in ("http", "https") and bool(urlsplit(photo.url).netloc)
    except ValueError:
        good = False
    if not good or len(photo.url) > _LONGEST_ADDRESS:
        return "bad address"
    if not caption and how.need_caption:
        return "no caption"
    return "caption too long" if len(photo.caption) > how.max_caption else ""
