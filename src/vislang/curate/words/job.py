"""Counting the words of a dump: spans of pages side by side, then the sum of their tables.

OUT/words.parquet      word, count, documents; sorted by word; written last but one
OUT/words.json         every rule, what was read, what was skipped and why; written last
OUT/skipped.parquet    a row for each article that could not be counted
OUT/units/00000.json   a finished span;  OUT/parts/  its counts: may be removed when all is done
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislang.curate.words.crew import Crew
from vislang.curate.words.dump import MAX_CHARACTERS, Dump
from vislang.curate.words.rules import Rules
from vislang.curate.words.tables import schema, sum_tables, write_tables
from vislang.curate.words.unpack import Cut
from vislang.curate.words.wikitext import prefixes
from vislang.errors import UserError
from vislang.files import cores, plain, read_json, same_settings, whole_file, write_json

if TYPE_CHECKING:
    import pyarrow as pa

TABLE, MANIFEST = "words.parquet", "words.json"
SPAN_CHARACTERS, SPAN_PAGES = 4_000_000, 20_000
MEMORY = 448 << 20  # bytes of one worker's data, of which 120 MiB are programs
# One reader unpacks about 10 MB of XML a second and feeds so many; together they need < 1 GB.
MOST_WORKERS = 6
_COUNT_ONLY = ("other namespace", "redirect")  # skipped by the million, so without rows
_LATE = ("minimum", "inclusive")  # of the rules: they choose from finished counts


def count_words(
    dump: Path | str,
    out: Path | str,
    rules: Rules = Rules(),  # noqa: B008  frozen
    *,
    workers: int | None = None,
    partial: bool = False,
    seconds: float = 10.0,
    max_characters: int = MAX_CHARACTERS,
    on_done: Callable[[str, Mapping[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Count the words of a dump's articles; the same call again goes on where it stopped.

    Counts are exact. They lie in memory for a span of pages at a time and are summed from sorted
    tables, so memory does not grow with the dump.

    Args:
        dump: a MediaWiki XML export, plain, .bz2 (also multistream) or .gz, in any language.
        out: folder to fill.
        rules: what counts; `minimum` may be changed afterwards without counting again.
        workers: processes; by default one for each core, up to 6.
        partial: take a dump that ends early for what it is.
        seconds: of processor time for one article.
        max_characters: of one article's wikitext.
        on_done: called with (span's name, note) after each span.

    Returns:
        What is in OUT/words.json.

    Raises:
        UserError: no dump; or it ended early, when everything before that was counted and written.
    """
    dump, out = Path(dump), Path(out)
    _needed()
    settings = {
        "dump": _mark(dump),
        "rules": {k: v for k, v in plain(asdict(rules)).items() if k not in _LATE},
        "limits": {"seconds": seconds, "max_characters": max_characters},
        "span": {"characters": SPAN_CHARACTERS, "pages": SPAN_PAGES},
    }
    same_settings(out / "settings.json", settings, "The folder")
    manifest = read_json(out / MANIFEST) if (out / MANIFEST).exists() else None
    if manifest is None:
        opened = Dump(dump, max_characters)
        counting = _Counting(opened, out, rules, workers, seconds, on_done)
        manifest = {"spans": counting.run(), "ended_early": counting.cut}
    elif manifest["rules"] == plain(asdict(rules)) and (out / TABLE).exists():
        return _judged(manifest, out, partial)
    notes = [read_json(_note(out, number)) for number in range(manifest["spans"])]
    manifest = _summed(out, notes, rules, settings, str(manifest["ended_early"]))
    return _judged(manifest, out, partial)


def _needed() -> None:
    try:
        import mwparserfromhell  # noqa: F401
        import regex  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(
            f"Counting words needs the package {error.name!r}: pip install 'vislang[words]'."
        ) from error


def _judged(manifest: dict[str, Any], out: Path, partial: bool) -> dict[str, Any]:
    if manifest["ended_early"] and not partial:
        raise UserError(
            f"The dump ends early: {manifest['ended_early']}. The {manifest['pages']:,} pages"
            f" before that are counted in {out / TABLE}. Fetch the dump anew and count it into"
            " another folder, or say --partial true to take these."
        )
    return manifest


def _note(out: Path, number: int) -> Path:
    return out / "units" / f"{number:05d}.json"


def _mark(path: Path) -> dict[str, Any]:
    """Changes when the file does; reads its first and last MiB, not its 25 GB."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            digest = hashlib.sha256(file.read(1 << 20))
            file.seek(max(0, size - (1 << 20)))
            digest.update(file.read())
    except OSError as error:
        raise UserError(f"The dump {path} cannot be read: {error.strerror}.") from error
    return {"name": path.name, "bytes": size, "ends_sha256": digest.hexdigest()[:16]}


class _Counting:
    """The pass over the dump: it is cut into the same spans every time, finished ones are kept."""

    def __init__(
        self, dump: Dump, out: Path, rules: Rules, workers: int | None, seconds: float,
        on_done: Callable[[str, Mapping[str, Any]], None] | None,
    ):  # fmt: skip
        self.dump, self.out, self.rules = dump, out, rules
        self.workers = workers or min(cores(), MOST_WORKERS)
        self.seconds, self._tell = seconds, on_done
        self.cut = ""

    def run(self) -> int:
        """Count every span that has no note; returns how many spans there are."""
        total = 0
        with Crew(
            self.workers, self.rules, self.out.absolute(), self.seconds, MEMORY, self._done
        ) as crew:
            for span, texts in self._spans():
                total += 1
                if not _note(self.out, int(span["name"])).exists():
                    crew.submit(span, texts)
            crew.finish()
        return total

    def _done(self, name: str, note: Mapping[str, Any]) -> None:
        write_json(_note(self.out, int(name)), note)
        if self._tell:
            self._tell(name, note)

    def _spans(self) -> Iterator[tuple[dict[str, Any], list[str]]]:
        """(what a worker must know, wikitexts) of each span."""
        number, pages = 0, self._until_cut(iter(self.dump))
        more = True
        while more:
            skipped: Counter[str] = Counter()
            rows, named, texts = [], [], []
            read = length = 0
            more = False
            for page in pages:
                read += 1
                if page.skip:
                    skipped[page.skip] += 1
                    if page.skip not in _COUNT_ONLY:
                        rows.append((page.id, page.title, page.skip))
                else:
                    named.append((page.id, page.title))
                    texts.append(page.text)
                    length += len(page.text)
                if length >= SPAN_CHARACTERS or read >= SPAN_PAGES:
                    more = True
                    break
            if read:
                links = prefixes(self.dump.namespaces)
                yield {"name": f"{number:05d}", "pages": named, "links": links, "rows": rows,
                       "skipped": skipped, "without": {}}, texts  # fmt: skip
                number += 1

    def _until_cut(self, pages: Iterator[Any]) -> Iterator[Any]:
        try:
            yield from pages
        except Cut as cut:
            self.cut = str(cut)


def _summed(
    out: Path, notes: list[Any], rules: Rules, settings: Mapping[str, Any], cut: str
) -> dict[str, Any]:
    """Write the tables and the manifest."""
    import pyarrow.compute as pc

    compute: Any = pc
    parts = [out / part for note in notes for part in note["parts"]]
    if gone := [part for part in parts if not part.exists()]:
        raise UserError(
            f"{gone[0]} is gone, which other minimum counts are taken from. Count the dump anew"
            " into another folder."
        )
    seen = Counter()

    def keep(table: pa.Table) -> pa.Table:
        kept = table.filter(compute.greater_equal(table["count"], max(rules.least, 1)))
        seen["different"] += table.num_rows
        seen["kept"] += kept.num_rows
        seen["kept_occurrences"] += compute.sum(kept["count"]).as_py() or 0
        return kept

    (out / MANIFEST).unlink(missing_ok=True)
    write_tables(out / TABLE, _bundled(sum_tables(parts, out / "parts" / "sums", keep)))
    skipped, dropped = Counter(), Counter()
    for note in notes:
        skipped.update(note["skipped"])
        dropped.update(note["dropped"])
    _write_skipped(out, notes)
    manifest = {
        "dump": settings["dump"], "rules": asdict(rules), "limits": settings["limits"],
        "pages": sum(note["pages"] for note in notes),
        "counted": sum(note["counted"] for note in notes),
        "skipped": skipped, "ended_early": cut, "spans": len(notes),
        "words": {"occurrences": sum(n["words"] for n in notes), "dropped": dropped, **seen},
        "versions": _versions(),
    }  # fmt: skip
    write_json(out / MANIFEST, manifest)
    return plain(manifest)


def _bundled(tables: Iterator[pa.Table], rows: int = 1 << 17) -> Iterator[pa.Table]:
    """Fewer, larger row groups."""
    import pyarrow as pa

    waiting, number = [], 0
    for table in tables:
        waiting.append(table)
        number += table.num_rows
        if number >= rows:
            yield pa.concat_tables(waiting)
            waiting, number = [], 0
    yield pa.concat_tables([*waiting, schema().empty_table()])


def _write_skipped(out: Path, notes: list[Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [row for note in notes for row in note["rows"]]
    names = ("page", "title", "reason")
    columns = {name: pa.array([row[i] for row in rows], pa.string())
               for i, name in enumerate(names)}  # fmt: skip
    with whole_file(out / "skipped.parquet") as file:
        pq.write_table(pa.table(columns), file)


def _versions() -> dict[str, str]:
    import unicodedata
    from importlib.metadata import version

    names = ("mwparserfromhell", "regex")
    return {name: version(name) for name in names} | {"unicode": unicodedata.unidata_version}


def read_words(path: Path | str) -> list[str]:
    """The words of a folder of `count_words`, of its table, or of a text file with one a line."""
    path = Path(path)
    path = path / TABLE if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"There is no {path}. `vislang curate words` makes one.")
    if path.suffix == ".parquet":
        from vislang.curate.collections import read_table

        names = read_table(path, "schema").names
        if "word" not in names:
            raise UserError(f"{path} has no column word. It has: {', '.join(names)}.")
        return read_table(path, "table", columns=["word"])["word"].to_pylist()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is neither Parquet nor UTF-8 text: {error}.") from error
    return [line.strip() for line in lines if line.strip()]
