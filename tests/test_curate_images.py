"""Searching for pictures at a loopback server: what is asked, kept, joined, resumed."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers import Handler
from searching import ALL, pictures, provided, search  # noqa: F401
from vislang.cli import main as cli
from vislang.curate.images import PROVIDERS, Searching, join_images, search_images
from vislang.curate.images import job as job_module
from vislang.curate.images.job import _why_rejected
from vislang.curate.images.join import found_schema, write_found
from vislang.curate.images.provider import Photo, address_key, number, readable, text, tidy
from vislang.errors import UserError
from vislang.files import write_json
from vislang.lookup import lookup

# -- each provider, as it answers -----------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_all_pages_of_each_provider_with_everything_that_it_tells(name, server, tmp_path):
    done = search(server, tmp_path, ["sun"], [name])
    found = pictures(tmp_path)
    assert len(found) == 65 == done["pictures"]
    row = found[0]
    assert row["caption"] == "A sun, number 0" + (" & more" if name == "wikimedia" else "")
    assert row["word"] == "sun" and row["words"] == ["sun"] and row["captions"] == [row["caption"]]
    assert row["id"] == f"{name}:{row['photo_id']}" and row["provider"] == name
    for column in ("url", "page", "author", "licence", "licence_page", "original"):
        assert row[column], column
    assert row["width"] > row["height"] > 100
    # The order is the provider's, and the last page is not asked for twice.
    assert [r["caption"].partition(" &")[0][-2:].strip() for r in found[:3]] == ["0", "1", "2"]
    per_page = lookup("provider", PROVIDERS, name).page_size
    assert server.count() == {name: -(-65 // per_page)}


def test_what_is_sent(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENVERSE_TOKEN", "a-token\n")
    search(server, tmp_path, ["red kite"], ALL, Searching(per_word=1))
    asked = {name: (query, headers) for name, query, headers in server.asked}
    query, headers = asked["unsplash"]
    assert query == {"query": "red kite", "page": "1", "per_page": "30"}
    assert (headers["Authorization"], headers["Accept-Version"]) == ("Client-ID a-key", "v1")
    query, headers = asked["openverse"]
    assert query == {"q": "red kite", "page": "1", "page_size": "20"}
    assert headers["Authorization"] == "Bearer a-token" and headers["User-Agent"] == "vislang"
    query, headers = asked["wikimedia"]
    assert query["gsrsearch"] == "filetype:bitmap red kite" and query["gsroffset"] == "0"
    assert "Authorization" not in headers
    # Keys are written nowhere.
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"a-key" not in path.read_bytes()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("answer", [
    {}, {"results": None}, {"results": [1, None, []]}, {"query": {"pages": [1, {"imageinfo": 3}]}},
    {"results": [{"id": 3, "urls": [], "user": 1, "links": "x", "alt_description": {}}]},
    {"query": {"pages": {"1": {"title": 3, "imageinfo": [{"extmetadata": []}]}}}, "continue": 3},
])  # fmt: skip
def test_answers_of_another_shape_are_reasons(name, answer, server, tmp_path):
    server.tricks.append(lambda handler, *_: handler.send(answer) or True)
    done = search(server, tmp_path, ["sun"], [name])
    assert done["pictures"] == 0
    counts = done["providers"][name]
    assert sum(counts["rejected"].values()) + sum(counts["failed"].values()) <= 1


# -- one table ------------------------------------------------------------------------------------


def test_the_same_picture_under_words_and_providers_is_one_row(server, tmp_path):
    done = search(server, tmp_path, ["sun", "moon"], ALL)
    assert done["rows"] == 390 and done["pictures"] == 124  # 59 of each word, 6 shared ones
    shared = next(row for row in pictures(tmp_path) if "shared-9." in row["url"])
    assert shared["words"] == ["sun", "moon"] and len(shared["ids"]) == 3
    assert shared["captions"] == ["A shared, number 9", "A shared, number 9 & more"]
    assert len({address_key(row["original"]) for row in pictures(tmp_path)}) == 124
    again = search(server, tmp_path, ["sun", "moon"], ALL)
    assert again == done and sum(server.count().values()) == 18  # nothing was asked again


def test_a_provider_may_be_added_later(server, tmp_path):
    search(server, tmp_path, providers=["openverse"])
    done = search(server, tmp_path, providers=["unsplash"])
    assert set(done["providers"]) == {"openverse", "unsplash"} and done["pictures"] == 124
    with pytest.raises(UserError, match="other settings: per_word"):
        search(server, tmp_path, how=Searching(per_word=3))


def _row(identity: str, address: str, caption: str, word: str) -> dict[str, Any]:
    photo = Photo(identity, address, address, caption)._asdict()
    return photo | {"id": identity, "provider": "p", "word": word}


@settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("123456")), max_size=12))
def test_chains_of_equal_ids_and_addresses_become_one(pairs):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        rows = [_row(i, f"http://h/{a}", f"c{n}", f"w{n}") for n, (i, a) in enumerate(pairs)]
        write_found(out / "found" / "p-0.parquet", rows)
        write_json(out / "units" / "p-0.json", {"provider": "p", "words": 1, "rows": len(rows),
                   "requests": 1, "rejected": {}, "failed": [], "notes": []})  # fmt: skip
        done = join_images(out)
        found = pictures(out)
    groups: list[set[int]] = []  # by merging sets until nothing changes
    for n, (i, a) in enumerate(pairs):
        near = [g for g in groups if any(pairs[m][0] == i or pairs[m][1] == a for m in g)]
        groups = [g for g in groups if g not in near] + [set().union({n}, *near)]
    assert done["pictures"] == len(found) == len(groups)
    expected = sorted([f"w{n}" for n in sorted(g)] for g in groups)
    assert sorted(row["words"] for row in found) == expected


@pytest.mark.parametrize(("a", "b", "same"), [
    ("http://h/a.jpg", "https://H/a.jpg#x", True), ("https://h/a?ixid=1", "https://h/a", True),
    ("https://h/a?w=4&utm_source=z", "https://h/a?utm_medium=q&w=4", True),
    ("https://h/a?w=4", "https://h/a?w=5", False), ("https://h/a", "https://h/A", False),
    ("http://h:81/a", "http://h/a", False), ("http://[bad", "http://[bad", True),
])  # fmt: skip
def test_when_two_addresses_are_one_file(a, b, same):
    assert (address_key(a) == address_key(b)) is same


def test_the_table_goes_through_fetch_with_all_its_columns(server, tmp_path):
    import hostile
    from vislang.curate.fetch import Fetching, Network, fetch_sample

    with hostile.serving() as web:
        server.picture_url = f"{web.base}/good/{{n}}.jpg"
        search(server, tmp_path / "images", ["sun"], ["unsplash"], Searching(per_word=4))
        network = Network(ports=(web.server_port,), allow_loopback=True)
        done = fetch_sample(
            tmp_path / "images" / "images.parquet", tmp_path / "pictures",
            Fetching(side=16, robots=False, threads=2), network=network,
        )  # fmt: skip
    assert done["status"] == {"ok": 4}
    ledger = pq.read_table(tmp_path / "pictures" / "ledger.parquet").to_pylist()
    assert [row["id"] for row in ledger] == [f"unsplash:sun-{n}" for n in range(4)]
    assert [row["caption"] for row in ledger] == [f"A sun, number {n}" for n in range(4)]


# -- captions and rows ----------------------------------------------------------------------------


def test_captions_that_are_hard(server, tmp_path):
    captions = ["a\x00b\nc\u2028d", "x" * 1_000_000, "\u202b\u05e9\u05dc\u05d5\u05dd\u202c", None,
                "  ", "half \ud83d emoji", "[EOS] <b>bold</b>", "👩‍👩‍👧 kite"]  # fmt: skip

    def change(name: str, answer: dict[str, Any]) -> None:
        for item, caption in zip(answer["results"], captions):
            item["alt_description"] = caption

    server.change, server.pictures = change, len(captions)
    done = search(server, tmp_path, ["sun"], ["unsplash"])
    rejected = {"caption too long": 1, "no caption": 2}
    assert done["providers"]["unsplash"]["rejected"] == rejected
    assert [row["caption"] for row in pictures(tmp_path)] == [
        "a b c d", "\u202b\u05e9\u05dc\u05d5\u05dd\u202c", "half emoji", "[EOS] <b>bold</b>",
        "👩‍👩‍👧 kite",
    ]  # fmt: skip
    kept = search(server, tmp_path / "b", ["sun"], ["unsplash"],
                  Searching(per_word=0, need_caption=False))  # fmt: skip
    assert kept["providers"]["unsplash"]["rejected"] == {"caption too long": 1}


def test_rows_that_are_of_no_use_are_counted_by_reason(server, tmp_path):
    def change(name: str, answer: dict[str, Any]) -> None:
        rows = answer["results"]
        rows[0]["id"] = None
        rows[1]["url"] = None
        rows[2]["url"] = "javascript:alert(1)"
        rows[3]["url"] = "https://a.example/" + "x" * 5000
        rows[4]["license"] = ""
        rows[5]["url"] = "http://[bad"
        rows[6]["width"] = "many"

    server.change, server.pictures = change, 8
    done = search(server, tmp_path, ["sun"])
    assert done["providers"]["openverse"]["rejected"] == {
        "no photo id": 1, "no address": 1, "bad address": 3, "no licence": 1,
    }  # fmt: skip
    assert [row["width"] for row in pictures(tmp_path)] == [0, 800]


def test_reading_values():
    assert _why_rejected(Photo("a", "https://a/b", "", "c"), "c", Searching()) == ""
    assert readable("a &lt; b<script>x</script><br>c") == "a < b c" and tidy(" a\t") == "a"
    assert text(3) == "" and number("9" * 30) == 2**53 and number([]) == 0
    assert pa.schema(found_schema()).names[:3] == ["id", "url", "caption"]


# -- resuming, disks, commands --------------------------------------------------------------------


def test_killed_and_repeated_asks_for_nothing_twice(server, tmp_path):
    words = [f"word{n}" for n in range(45)]
    (tmp_path / "words.txt").write_text("\n".join(words))
    command = [
        sys.executable, "-m", "vislang", "curate", "images", str(tmp_path / "words.txt"), "--out",
        str(tmp_path / "out"), "--providers", "openverse", "--per_word", "50", "--endpoints",
        json.dumps(server.endpoints),
    ]  # fmt: skip
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def kill(handler: Handler, name: str, query: dict[str, str]) -> bool:
        if len(server.asked) == 70:
            os.kill(child.pid, signal.SIGKILL)
        return False

    server.tricks.append(kill)
    child.communicate(timeout=120)
    assert child.returncode == -signal.SIGKILL
    assert (tmp_path / "out" / "units" / "openverse-000000.json").exists()
    server.tricks.clear()
    done = search(server, tmp_path / "out", words, how=Searching(per_word=50))
    whole = search(server, tmp_path / "whole", words, how=Searching(per_word=50))
    assert pictures(tmp_path / "out") == pictures(tmp_path / "whole")
    assert done["pictures"] == whole["pictures"]
    asked = [(q["q"], q["page"]) for _, q, _ in server.asked]
    first = asked[: len(asked) - 45 * 3]
    assert len(first) <= len(set(first)) + 1  # the one whose answer the kill cut off


def test_a_damaged_answer_on_disk_is_asked_for_again(server, tmp_path):
    search(server, tmp_path, ["sun"])
    for path in (tmp_path / "answers").rglob("*.gz"):
        path.write_bytes(path.read_bytes()[:20])
    for path in (tmp_path / "units").glob("*"):
        path.unlink()
    assert search(server, tmp_path, ["sun"])["pictures"] == 65 and len(server.asked) == 8


def test_a_disk_that_fills_is_a_clear_error_and_loses_nothing(server, tmp_path):
    program = (
        "import json, resource, sys\n"
        "from vislang.curate.images import Searching, job, search_images\n"
        "from vislang.errors import UserError\n"
        "job.BLOCK = 1\n"
        "def limit(unit, note): resource.setrlimit(resource.RLIMIT_FSIZE, (1_500, 1_500))\n"
        "try: search_images(['sun', 'moon', 'sea'], sys.argv[1], ['openverse'],"
        " Searching(0), endpoints=json.loads(sys.argv[2]), on_done=limit)\n"
        "except UserError as error: print(error); sys.exit(2)"
    )
    run = [sys.executable, "-c", program, str(tmp_path / "out"), json.dumps(server.endpoints)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "The disk is full" in done.stdout
    assert len(list((tmp_path / "out" / "units").glob("*.json"))) == 1
    assert not list((tmp_path / "out").rglob("*.tmp"))
    assert len(pq.read_table(tmp_path / "out" / "found" / "openverse-000000.parquet")) == 65


def test_the_command_and_its_errors(server, tmp_path, capsys, monkeypatch):
    (tmp_path / "w.txt").write_text("sun\nmoon\n")
    endpoints = json.dumps(server.endpoints)
    arguments = ["curate", "images", str(tmp_path / "w.txt"), "--out", str(tmp_path / "out"),
                 "--per_word", "3", "--endpoints", endpoints]  # fmt: skip
    assert cli.main([*arguments, "--providers", "openverse,wikimedia"]) == 0
    said = capsys.readouterr().out
    assert "(6; 6 rows were of pictures found before)" in said and "curate fetch" in said
    for more, message in (
        (["--providers", "flickr"], "No provider is called 'flickr'"),
        (["--per_word", "-1"], "per_word must be at least 0"),
        (["--endpoints", "{openverse: 'ftp://x'}"], "must be an http"),
        (["--most_words", "-1"], "most_words must be"),
    ):
        assert cli.main([*arguments, *more]) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "w.txt").write_text("\n")
    assert cli.main([*arguments, "--out", str(tmp_path / "out2")]) == 2
    assert "no words to search for" in capsys.readouterr().err


def test_the_whole_way_from_a_dump(server, tmp_path):
    from dumps import write_dump
    from vislang.curate.words import Rules, count_words

    dump = write_dump(tmp_path / "a.xml.bz2", ["sun sun moon", "sun [[moon]] x1"])
    count_words(dump, tmp_path / "words", Rules(minimum=2, digits="drop"), workers=1)
    done = search_images(tmp_path / "words", tmp_path / "images", endpoints=server.endpoints,
                         how=Searching(per_word=5))  # fmt: skip
    assert done["pictures"] == 10
    assert {row["word"] for row in pictures(tmp_path / "images")} == {"moon", "sun"}
    assert threading.active_count() < 20 and job_module.BLOCK == 20
