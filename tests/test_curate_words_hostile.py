"""Dumps made with malice, workers that die, disks that fill: a counted row or a clear error."""

import gzip
import resource
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dumps import HEAD, TAIL, page, write_dump
from vislang.curate.words import Rules, count_words, plain_text, read_pages
from vislang.curate.words import job as job_module
from vislang.curate.words.unpack import Cut
from vislang.curate.words.worker import count_span
from vislang.errors import UserError

# Each keeps the parser, which is C, for minutes or longer.
ENDLESS = ("<b>{{[[" * 25_000, "<ref>" * 40_000, "{{{a|[[b|" * 20_000)


def rows(out: Path) -> list[tuple[str, str]]:
    found = pq.read_table(out / "skipped.parquet").to_pylist()
    return [(row["page"], row["reason"]) for row in found]


def words_of(out: Path) -> dict[str, int]:
    found = pq.read_table(out / "words.parquet").to_pylist()
    return {row["word"]: row["count"] for row in found}


def test_wikitext_that_nests_without_end_is_a_row_and_the_rest_is_counted(tmp_path):
    texts = ["good first", *ENDLESS, "good last"]
    path = write_dump(tmp_path / "a.xml", texts)
    done = count_words(path, tmp_path / "out", workers=1, seconds=0.5)
    assert words_of(tmp_path / "out")["good"] == 2
    assert done["skipped"]["takes too long"] == len(ENDLESS)
    assert {reason for _, reason in rows(tmp_path / "out")} == {"takes too long"}
    assert done["counted"] + done["skipped"]["takes too long"] == len(texts)


@pytest.mark.parametrize("wikitext", [
    "{{" * 100_000, "[[" * 50_000, "{{{" * 60_000, "''" * 90_000, "{{a|" * 9_000 + "}}" * 9_000,
    "[[" * 30 + "]]" * 30,
])  # fmt: skip
def test_what_nests_but_ends_is_read(wikitext):
    assert isinstance(plain_text(wikitext), str)


def test_a_page_that_needs_too_much_memory_is_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(job_module, "MEMORY", 140 << 20)
    texts = ["good first", ":" * 300_000, "good last"]
    path = write_dump(tmp_path / "a.xml", texts)
    done = count_words(path, tmp_path / "out", workers=1, seconds=60)
    assert words_of(tmp_path / "out")["good"] == 2
    assert done["counted"] == 2 and done["skipped"] == {"takes too much memory": 1}


def test_a_worker_that_is_killed_from_outside_is_an_error_and_nothing_is_lost(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(job_module, "SPAN_PAGES", 1)
    path = write_dump(tmp_path / "a.xml", ["one", "two", *ENDLESS])
    import psutil

    me = psutil.Process()

    def kill(name: str, note: object) -> None:
        if name == "00001":
            me.children()[0].kill()

    with pytest.raises(UserError, match="killed from outside"):
        count_words(path, tmp_path / "out", workers=1, seconds=60, on_done=kill)
    assert {p.stem for p in (tmp_path / "out" / "units").iterdir()} == {"00000", "00001"}
    assert not me.children()


def test_a_page_of_a_gigabyte_never_lies_in_memory(tmp_path):
    path = tmp_path / "big.xml.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write((HEAD + page(1, "good")).encode())
        file.write(b"<page><title>big</title><ns>0</ns><id>2</id><revision><text>")
        for _ in range(256):
            file.write(b"word " * ((1 << 20) // 5))
        file.write(b"</text></revision></page>\n")
        file.write((page(3, "good") + TAIL).encode())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert [p.skip for p in read_pages(path)] == ["", "too long", ""]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 60, f"{grown:.0f} MiB for a page of 256 MiB"


@pytest.mark.parametrize(("inside", "message"), [
    ("<a>" * 100, "nests more than"),
    ('<page a="' + "x" * (17 << 20) + '"/>', "a tag of more than"),
    ("<page><title>a</title></mediawiki>", "damaged"),
])  # fmt: skip
def test_xml_that_is_no_export(inside, message, tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(HEAD + page(1, "good") + inside)
    found = []
    with pytest.raises(Cut, match=message):
        found.extend(read_pages(path))
    found = []
    with pytest.raises(Cut):
        for one in read_pages(path):
            found.append(one.text)
    assert found == ["good"]


def test_a_word_of_a_megabyte_and_control_characters(tmp_path):
    texts = ["x" * 1_000_000 + " good", "go\u200bod \u202egood\u202c שלום שלום", "\u0085good\x7f"]
    path = write_dump(tmp_path / "a.xml", texts)
    done = count_words(path, tmp_path / "out", Rules(script=""), workers=1)
    words = words_of(tmp_path / "out")
    assert words["good"] == 3 and words["שלום"] == 2 and max(map(len, words)) < 65
    assert done["words"]["dropped"] == {"too long": 1}


def test_a_disk_that_fills_is_a_clear_error_and_loses_nothing(tmp_path, monkeypatch):
    """RLIMIT_FSIZE stands for the full disk: the third span's table is larger than allowed."""
    many = " ".join(f"w{n}x{n * 7919 % 104729}" for n in range(30_000))
    path = write_dump(tmp_path / "a.xml", ["one two", "three", many, "four"])
    program = (
        "import resource, sys; from vislang.curate.words import count_words, job;"
        "from vislang.errors import UserError; job.SPAN_PAGES = 1\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: count_words(sys.argv[1], sys.argv[2], workers=1)\n"
        "except UserError as error: print(error); sys.exit(2)"
    )
    run = [sys.executable, "-c", program, str(path), str(tmp_path / "out")]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "The disk is full" in done.stdout and "repeat the same command" in done.stdout
    finished = sorted(p.stem for p in (tmp_path / "out" / "units").glob("*.json"))
    assert finished[:2] == ["00000", "00001"] and "00002" not in finished
    assert not list((tmp_path / "out").rglob("*.tmp"))
    monkeypatch.setattr(job_module, "SPAN_PAGES", 1)
    count_words(path, tmp_path / "out", workers=1)
    assert words_of(tmp_path / "out")["three"] == 1


def test_no_process_stays_behind_an_error(tmp_path):
    import psutil

    (tmp_path / "a.xml").write_text("<html/>")
    with pytest.raises(UserError):
        count_words(tmp_path / "a.xml", tmp_path / "out", workers=2)
    assert not psutil.Process().children()


def test_writing_tables_is_on_no_pages_time(tmp_path):
    """The clock of a page stops before a table is written, however long that takes."""
    told: list[int | None] = []
    span = {"name": "0", "pages": [["1", "a"], ["2", "b"]], "links": [], "skipped": {}, "rows": [],
            "without": {}}  # fmt: skip
    (tmp_path / "parts").mkdir()
    count_span(span, ["one two", "three"], Rules(), tmp_path, told.append)
    assert told == [0, 1, None]
