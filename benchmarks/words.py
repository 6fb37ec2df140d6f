"""Counting the words of a dump: MB of XML for each second of processor time, and peak memory.

    VISLANG_TEST_DATA=... python benchmarks/words.py [--copies 20]

The dump is the real English excerpt, many times over, each copy with words that no other has, so
that the vocabulary grows with the dump.  Reference: one process that reads the same dump with
ElementTree, lets the same parser (mwparserfromhell) strip the code, and counts with one Counter.
Times are of the processor, children included, so that one number fits any number of cores.
"""

import argparse
import bz2
import os
import re
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

EXCERPT = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
FRESH = 300  # words of each article that no other copy has


def make_dump(path: Path, copies: int) -> int:
    """The excerpt many times over; returns bytes of XML."""
    root = os.environ.get("VISLANG_TEST_DATA")
    if not root:
        raise SystemExit("set VISLANG_TEST_DATA to the folder with wikipedia-dump")
    text = bz2.decompress((Path(root) / "wikipedia-dump" / EXCERPT).read_bytes()).decode()
    head, _, rest = text.partition("<page>")
    pages = [f"<page>{page}" for page in rest.partition("</mediawiki>")[0].split("<page>")]
    size = 0
    with bz2.open(path, "wb", 1) as file:
        size += file.write(head.encode())
        for copy in range(copies):
            for number, page in enumerate(pages):
                fresh = " ".join(f"w{copy}x{number}x{n}" for n in range(FRESH))
                size += file.write(page.replace("</text>", f"\n{fresh}</text>", 1).encode())
        size += file.write(b"</mediawiki>")
    return size


def plain(path: Path) -> dict[str, int]:
    """The reference: everything in one process and one Counter, as one would write it first."""
    import xml.etree.ElementTree as ET
    from collections import Counter

    import mwparserfromhell

    counts: Counter[str] = Counter()
    space = "{http://www.mediawiki.org/xml/export-0.10/}"
    with bz2.open(path) as file:
        for _, item in ET.iterparse(file):
            if item.tag != f"{space}page":
                continue
            text = item.findtext(f"{space}revision/{space}text") or ""
            if item.findtext(f"{space}ns") == "0" and item.find(f"{space}redirect") is None:
                code = mwparserfromhell.parse(text)
                counts.update(re.findall(r"\w+", code.strip_code().lower()))
            item.clear()
    return counts


class Peak:
    """The largest sum of memory of this process and its children, looked at every 20 ms."""

    def __enter__(self) -> "Peak":
        self.mib, self._stop = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def _look(self) -> None:
        import psutil

        me = psutil.Process()
        while not self._stop.wait(0.02):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.Error:
                    continue
            self.mib = max(self.mib, total / 2**20)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def processor_seconds() -> float:
    """Of this process and its ended children."""
    parts = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, parts))


def main() -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--copies", type=int, default=20)
    given = parser.parse_args()
    import pyarrow.parquet as pq

    from vislang.curate.words import count_words

    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "small.xml.bz2", Path(folder) / "large.xml.bz2"
        few = max(1, given.copies // 8)
        megabytes = {
            small: make_dump(small, few) / 1e6,
            large: make_dump(large, given.copies) / 1e6,
        }
        peaks, rates = {}, {}
        for path in (small, large):
            began, wall = processor_seconds(), time.perf_counter()
            with Peak() as peak:
                count_words(path, Path(folder) / path.stem)
            wall = time.perf_counter() - wall
            rates[path] = megabytes[path] / (processor_seconds() - began)
            peaks[path] = peak.mib
        began = processor_seconds()
        expected = plain(small)
        reference = megabytes[small] / (processor_seconds() - began)
        table = pq.read_table(Path(folder) / small.stem / "words.parquet")
        found = dict(zip(table["word"].to_pylist(), table["count"].to_pylist()))
        # The reference keeps footnotes' texts and names of files, so it has a little more.
        for word in ("the", "philosophy", "temperature", "w0x1x1"):
            assert 0.6 * expected[word] <= found[word] <= 1.05 * expected[word], word
    size = f"{megabytes[large]:,.0f} MB of XML, {os.cpu_count()} workers"
    return [
        {"case": f"words of a dump ({size})", "value": round(rates[large], 2),
         "unit": "MB per processor second", "reference": round(reference, 2),
         "reference_is": "one process, strip_code and Counter",
         "ratio": round(rates[large] / reference, 2), "target": ">= 1.0",
         "met": rates[large] >= reference, "wall_mb_per_s": round(megabytes[large] / wall, 2)},
        {"case": f"peak memory, all processes ({size})", "value": round(peaks[large]),
         "unit": "MiB", "reference": round(peaks[small]),
         "reference_is": f"a dump of {megabytes[small]:,.0f} MB", "target": "<= 1024",
         "met": peaks[large] <= 1024},
    ]  # fmt: skip


if __name__ == "__main__":
    for row in main():
        print(row)
    sys.exit(0)
