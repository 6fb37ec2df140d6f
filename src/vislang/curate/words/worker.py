"""A process that counts spans of pages and may be killed: some wikitext keeps any parser for ever.

Which page it is at is said before each one, so that the crew knows whose fault its end was. The
kernel ends a process whose page takes too much time of the processor: a handler in Python would
wait for the parser, which is C.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from vislang.curate.words.rules import Rules, Tally
from vislang.curate.words.tables import write_table
from vislang.curate.words.wikitext import plain_text
from vislang.errors import UserError

NO_MEMORY = 77  # status of a process whose page needed more than there is
SPILL = 120_000  # different words in memory; then they go to disk


def count_span(
    span: Mapping[str, Any], texts: list[str], rules: Rules, folder: Path, at_page: Any
) -> dict[str, Any]:
    """Count a span's pages into tables parts/<span>-<n>.parquet; returns its note.

    Args:
        span: name, first, pages (id, title of each text), links, skipped (reason -> pages that are
            not counted), rows (of these, the ones worth a row), without (place -> reason: pages
            that are to be left out).
        texts: wikitext of the pages.
        rules: what counts.
        folder: where parts/ is.
        at_page: called with a place before that page is read, and with None before tables are
            written, which is on no page's time.
    """
    tally = Tally(rules)
    skipped, rows = Counter(span["skipped"]), [list(row) for row in span["rows"]]
    parts: list[str] = []
    words = 0

    def spill() -> None:
        nonlocal words
        at_page(None)
        name = f"parts/{span['name']}-{len(parts):02d}.parquet"
        written = write_table(folder / name, _counted(tally, sums))
        words += written
        parts.append(name)

    sums = Counter()
    for place, ((page, title), text) in enumerate(zip(span["pages"], texts)):
        reason = span["without"].get(str(place), "")
        if not reason:
            at_page(place)
            try:
                tally.add(plain_text(text, span["links"]))
            except MemoryError:  # the parser may hold on to what it has: start afresh
                os._exit(NO_MEMORY)
            except Exception as error:  # whatever a hostile page sets off is a row
                reason = f"fails ({type(error).__name__})"
        if reason:
            skipped[reason] += 1
            rows.append([page, title, reason])
        if len(tally) > SPILL:
            spill()
    if len(tally) or not parts:
        spill()
    return {
        "pages": len(texts) + sum(span["skipped"].values()),
        "counted": len(texts) + sum(span["skipped"].values()) - sum(skipped.values()),
        "characters": sum(map(len, texts)), "skipped": skipped, "rows": rows, "parts": parts,
        "words": sums["words"], "dropped": tally.dropped,
    }  # fmt: skip


def _counted(tally: Tally, sums: Counter[str]) -> Any:
    for word, count, documents in tally.take():
        sums["words"] += count if " " not in word else 0
        yield word, count, documents


def serve(rules: Rules, folder: Path, seconds: float, memory: int) -> None:
    """Count what comes on standard input until it ends; answers are lines on standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; its end is ours
    _limit_memory(memory)
    source, answers = sys.stdin.buffer, os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is no answer

    def at_page(place: int | None) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0 if place is None else seconds)
        if place is not None:
            os.write(answers, b"p %d\n" % place)

    Tally(rules).add(plain_text("[[warm]] up"))  # what is imported late is on no page's time
    while (taken := read_span(source)) is not None:
        try:
            note = count_span(*taken, rules, folder, at_page)
            answer = b"d " + json.dumps(note).encode()
        except UserError as error:
            answer = b"e " + json.dumps(str(error)).encode()
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.flush()
        _write_all(answers, answer + b"\n")


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _limit_memory(memory: int) -> None:
    """Of this process alone; where the system has no such limit there is none."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    except (ImportError, AttributeError, ValueError, OSError):
        pass


def write_span(file: BinaryIO, span: Mapping[str, Any], texts: list[str]) -> None:
    """Send a span to a worker."""
    data = [text.encode("utf-8", "surrogatepass") for text in texts]
    head = json.dumps(dict(span) | {"bytes": [len(item) for item in data]}).encode()
    file.write(b"%d\n" % len(head) + head)
    for item in data:
        file.write(item)
    file.flush()


def read_span(file: BinaryIO) -> tuple[dict[str, Any], list[str]] | None:
    """What `write_span` sent; None when nothing more comes."""
    line = file.readline()
    if not line:
        return None
    span = json.loads(file.read(int(line)))
    texts = [file.read(size).decode("utf-8", "surrogatepass") for size in span.pop("bytes")]
    return span, texts


def main() -> None:
    """The child's program: its settings are its only argument."""
    given = json.loads(sys.argv[1])
    rules = Rules(**given["rules"] | {"stop": tuple(given["rules"]["stop"])})
    try:
        serve(rules, Path(given["folder"]), given["seconds"], given["memory"])
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)


if __name__ == "__main__":
    main()
