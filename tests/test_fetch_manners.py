"""What sites ask for, how fast we go, what is asked again, and a disk that fills."""

import random
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostile import serving
from vislang.curate.fetch import Caps, Fetching, Network, fetch_sample
from vislang.curate.fetch.manners import Hosts
from vislang.curate.fetch.network import Refused
from vislang.curate.fetch.pace import LEAST, Pace
from vislang.curate.fetch.robots import read_rules, same_spelling
from vislang.data.sources import open_source
from vislang.errors import UserError

HOW = Fetching(side=16, shard=4, threads=8, per_host=8, caps=Caps(seconds=5), robots=False,
               decode_workers=1)  # fmt: skip


@pytest.fixture
def server():
    with serving() as made:
        yield made


def network(server) -> Network:
    return Network((server.server_port,), allow_loopback=True)


def sample(path: Path, urls, **columns) -> Path:
    pq.write_table(pa.table({"url": list(urls)} | columns), path)
    return path


# -- robots.txt, RFC 9309 -------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "path", "opened"), [
    ("User-agent: *\nDisallow: /", "/a.jpg", False),
    ("User-agent: *\nDisallow: /", "/robots.txt", True),
    ("User-agent: *\nDisallow:", "/a.jpg", True),
    ("User-agent: other\nDisallow: /", "/a.jpg", True),
    ("User-agent: VisLang/2.0\nDisallow: /", "/a.jpg", False),
    ("User-agent: vislangs\nDisallow: /", "/a.jpg", True),
    ("User-agent: *\nDisallow: /\n\nUser-agent: vislang\nAllow: /", "/a.jpg", True),  # ours alone
    ("User-agent: vislang\nDisallow: /a\nUser-agent: *\nDisallow: /\nUser-agent: vislang\n"
     "Disallow: /b", "/b", False),  # groups of one name are one
    ("User-agent: x\nUser-agent: vislang\nDisallow: /", "/a.jpg", False),  # several names
    ("User-agent: vislang\nSitemap: /s\nUser-agent: y\nDisallow: /", "/a", False),
    ("User-agent: *\nDisallow: /a\nAllow: /a/b", "/a/b/c", True),  # the longest counts
    ("User-agent: *\nAllow: /a\nDisallow: /a", "/a", True),  # of equal ones the one that opens
    ("User-agent: *\nDisallow: /*.jpg$", "/x/a.jpg", False),
    ("User-agent: *\nDisallow: /*.jpg$", "/x/a.jpg?b", True),
    ("User-agent: *\nDisallow: /*?", "/x/a.jpg?b", False),
    ("User-agent: *\nDisallow: /a*b*c", "/a-c-b-c", False),
    ("User-agent: *\nDisallow: /a*b*c$", "/a-b-c-", True),
    ("User-agent: *\nDisallow: /%61b", "/ab", False),
    ("User-agent: *\nDisallow: /ü", "/%c3%bc", False),
    ("User-agent: *\nDisallow: /a%2fb", "/a/b", True),
    ("user-agent:*\r\ndisallow : /a # all of it\r\n", "/a/b", False),
    ("\ufeffUser-agent: *\nDisallow: /", "/a", False),
    ("Disallow: /", "/a", True),  # of no group
    ("<html>404</html>", "/a", True),
])  # fmt: skip
def test_robots(text, path, opened):
    assert read_rules(text, "vislang/1.0 (+https://example.org)").open_to(path) == opened


@given(st.text("/ab*$", max_size=12), st.text("/ab", max_size=12))
def test_robots_patterns_are_those_of_regular_expressions(pattern, path):
    import re

    written = re.escape("/" + pattern.removesuffix("$")).replace(r"\*", ".*")
    whole = re.compile(written + (r"\Z" if pattern.endswith("$") else ""))
    rules = read_rules(f"User-agent: *\nDisallow: /{pattern}", "us")
    assert rules.open_to(f"/{path}") == (whole.match(f"/{path}") is None)
    assert same_spelling(same_spelling(pattern)) == same_spelling(pattern)


def test_robots_that_would_cost_time_do_not():
    hostile = "User-agent: *\n" + "Disallow: /" + "*a" * 1000 + "b\n"
    began = time.perf_counter()
    assert read_rules(hostile * 500, "us").open_to("/" + "a" * 8000)
    assert read_rules("User-agent: *\nCrawl-delay: 1e9", "us").delay_s == 0
    assert read_rules("User-agent: *\nCrawl-delay: 86400", "us").delay_s == 10
    assert time.perf_counter() - began < 5


# -- turns and pace -------------------------------------------------------------------------------


def test_a_redirect_waits_for_its_turn_at_the_other_host():
    hosts = Hosts(["http://a/1", "http://b/1", "http://a/2"], at_once=1)
    assert [hosts.take()[1], hosts.take()[1]] == ["a", "b"]  # type: ignore[index]
    with pytest.raises(Refused, match="waiting for a turn at b"):
        hosts.move("a", "b", 0.05)
    hosts.done("b", True)  # of the row that was led there
    done = []
    thread = threading.Thread(target=lambda: done.append(hosts.move("a", "b", 5)), daemon=True)
    assert hosts.take() == (2, "a", False)
    thread.start()
    thread.join(0.05)
    assert thread.is_alive() and not done
    hosts.done("b", True)
    thread.join(2)
    assert done == [None]


def test_a_host_may_ask_for_longer_pauses_and_for_rest():
    hosts = Hosts(["http://a/"] * 3, at_once=3)
    hosts.take()
    hosts.slower("a", 0.1)
    began = time.monotonic()
    hosts.take()
    hosts.rest("a", 0.2)
    hosts.take()
    assert time.monotonic() - began >= 0.25


def test_what_asks_for_rest_gets_it(server, tmp_path):
    urls = [f"{server.base}/busy/1.jpg", f"{server.base}/good/1.jpg"]
    how = Fetching(side=16, threads=1, per_host=1, robots=False, decode_workers=1)
    began = time.monotonic()
    fetch_sample(sample(tmp_path / "s", urls), tmp_path / "o", how, network=network(server))
    assert time.monotonic() - began >= 1.0
    ledger = pq.read_table(tmp_path / "o/ledger.parquet").to_pylist()
    assert [(row["status"], row["detail"]) for row in ledger] == [
        ("http 429", "retry after 1"), ("ok", None)
    ]  # fmt: skip


@pytest.mark.parametrize("knee", [6, 20, 60, 1000])
def test_the_pace_climbs_to_what_a_server_can_do_and_stays_near(knee):
    """A server that answers each of `knee` requests in 0.1 s and makes more of them wait."""
    now, rng = [0.0], random.Random(1)
    pace = Pace(64, lambda: now[0])
    limits = []
    for _ in range(20_000):
        rate = min(pace.limit, knee) / 0.1
        now[0] += rng.uniform(0.98, 1.02) / rate
        pace.enter()
        pace.leave(True)
        limits.append(pace.limit)
    late = sum(limits[10_000:]) / 10_000
    assert min(limits) >= LEAST and max(limits) <= 64
    assert 0.6 * min(knee, 64) <= late
    if knee == 1000:
        assert late > 40


def test_the_pace_falls_when_nothing_answers():
    now = [0.0]
    pace = Pace(64, lambda: now[0])
    for answered in [True] * 1000 + [False] * 600:
        now[0] += 1 / pace.limit
        pace.enter()
        pace.leave(answered)
    assert pace.limit == LEAST


# -- what is asked again --------------------------------------------------------------------------


def test_what_may_pass_and_all_are_asked_again(server, tmp_path):
    paths = ("good/0.jpg", "flaky/1.jpg", "missing.jpg", "good/3.jpg")
    path = sample(tmp_path / "s.parquet", [f"{server.base}/{p}" for p in paths])

    def again(which):
        how = {"network": network(server), "retry_failed": which}
        return fetch_sample(path, tmp_path / "out", HOW, **how)["status"]

    assert again("no") == {"ok": 2, "http 503": 1, "http 404": 1}
    assert again("no") == {"ok": 2, "http 503": 1, "http 404": 1}
    assert sum(server.asked.values()) == 4  # finished units are not asked again
    assert again("passing") == {"ok": 3, "http 404": 1}
    assert server.asked["/missing.jpg"] == 1
    assert again("all") == {"ok": 3, "http 404": 1}
    assert server.asked["/missing.jpg"] == 2 and server.asked["/good/0.jpg"] == 1
    with pytest.raises(UserError, match="one of no, passing, all, got 'pasing'"):
        again("pasing")
    other = Fetching(**{**HOW.__dict__, "threads": 3, "pause_s": 0.001})  # how fast may change
    fetch_sample(path, tmp_path / "out", other, network=network(server))


def test_columns_of_the_table_go_on(server, tmp_path):
    more = {"word": ["sea", "sky"], "photo_id": ["p1", "p2"], "license": ["by", None],
            "author": ["Ann", "Bö"], "captions": [["a sea"], ["b", "c"]], "width": [9, 8],
            "page": ["http://x/1", "http://x/2"], "id": [7, 8], "score": [0.5, 1.5],
            "embedding": [[0.1, 0.2]] * 2}  # fmt: skip
    path = sample(tmp_path / "s.parquet", [f"{server.base}/good/{i}.jpg" for i in range(2)], **more)
    for layout in ("tar", "folder"):
        how = Fetching(layout, side=16, robots=False, decode_workers=1)
        fetch_sample(path, tmp_path / layout, how, network=network(server))
        row = pq.read_table(tmp_path / layout / "ledger.parquet").to_pylist()[1]
        assert row["word"] == "sky" and row["author"] == "Bö" and row["captions"] == ["b", "c"]
        assert row["source_width"] == 8 and row["width"] == 23 and row["license"] is None
        assert row["id"] == "8" and row["caption"] == "b" and "embedding" not in row
    listed = pq.read_table(tmp_path / "folder/pictures.parquet").to_pylist()
    assert listed[0]["photo_id"] == "p1" and listed[0]["page"] == "http://x/1"
    source = open_source(f"webdataset:{tmp_path}/tar/000-all")
    assert [source[i].texts for i in range(2)] == [("a sea",), ("b",)]


def test_a_disk_that_fills_keeps_what_is_finished(server, tmp_path):
    """No file above 24 kB can be written in the child, as on a full disk."""
    urls = [f"{server.base}/good/{i}.jpg" for i in range(2)]
    urls += [f"{server.base}/good/{i}.jpg" for i in range(40)] + urls
    domains = ["a"] * 2 + ["b"] * 40 + ["c"] * 2
    path = sample(tmp_path / "s.parquet", urls, domain=domains)
    program = (
        "import resource, sys; sys.path.insert(0, sys.argv[1]); import test_fetch_manners as t;"
        "from vislang.errors import UserError;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (24_000, 24_000))\n"
        "from vislang.curate.fetch import Fetching, Network, fetch_sample\n"
        "n = Network((int(sys.argv[2]),), allow_loopback=True)\n"
        "how = Fetching(side=32, shard=40, robots=False, decode_workers=1)\n"
        "try: fetch_sample(sys.argv[3], sys.argv[4], how, network=n)\n"
        "except UserError as error: print(error)"
    )
    arguments = [str(Path(__file__).parent), str(server.server_port), str(path)]
    told = subprocess.run([sys.executable, "-c", program, *arguments, str(tmp_path / "o")],
                          capture_output=True, text=True, timeout=120)  # fmt: skip
    assert "The disk is full: could not write" in told.stdout, told
    assert "repeat the same command" in told.stdout
    assert {p.stem for p in (tmp_path / "o/units").iterdir()} == {"000-a-00000"}
    assert not list((tmp_path / "o").rglob("*.tmp")) and not server.asked["/good/40.jpg"]
    asked = dict(server.asked)
    how = Fetching(side=32, shard=40, robots=False, decode_workers=1)
    done = fetch_sample(path, tmp_path / "o", how, network=network(server))
    assert done["status"] == {"ok": 44}
    assert sum(server.asked.values()) - sum(asked.values()) == 42  # a is not asked for again
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_several_processes_leave_the_same_files(server, tmp_path):
    urls = [f"{server.base}/{'good' if i % 5 else 'missing'}/{i}.jpg" for i in range(10)]
    path = sample(tmp_path / "s.parquet", urls)
    for engine in ("serial", "processes"):
        out = tmp_path / engine
        fetch_sample(path, out, HOW, network=network(server), engine=engine, workers=2)
    names = [p.relative_to(out) for p in out.rglob("*") if p.is_file()]
    assert len(names) >= 9
    assert all((out / n).read_bytes() == (tmp_path / "serial" / n).read_bytes() for n in names)
