"""The downloader against a hostile web on loopback: one row each, and the rest goes on."""

import io
import json
import multiprocessing
import signal
import socket
import tarfile
import threading
import time
from dataclasses import replace
from email.message import Message
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hostile import Server, serving
from vislang.cli import main as cli
from vislang.curate.fetch import Caps, Fetching, Network, fetch_sample
from vislang.curate.fetch.client import get
from vislang.curate.fetch.manners import Hosts, check_headers
from vislang.curate.fetch.network import Refused
from vislang.curate.fetch.picture import Making, make_picture
from vislang.data.decode import Limits
from vislang.data.sources import open_source
from vislang.errors import UserError

CAPS = Caps(max_bytes=200_000, seconds=2.5)
HOW = Fetching(side=32, shard=4, threads=8, per_host=8, caps=CAPS, robots=False, decode_workers=1)


@pytest.fixture
def server():
    with serving() as made:
        yield made


def near(server: Server) -> Network:
    return Network(ports=(server.server_port,), allow_loopback=True)


def sample(path: Path, urls: list[str], **columns) -> Path:
    table = {"url": urls, "caption": [f"picture {i}" for i in range(len(urls))]}
    pq.write_table(pa.table(table | columns), path)
    return path


# -- where one may connect to ---------------------------------------------------------------------


@pytest.mark.parametrize("address", [
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "0.0.0.0", "255.255.255.255", "224.0.0.1", "240.0.0.1", "198.18.0.1", "192.0.2.1",
    "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1",
    "::7f00:1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:80ff:fffe",
])  # fmt: skip
def test_addresses_that_are_not_public(address):
    with pytest.raises(Refused, match="refused address"):
        Network().check(address)


def test_public_addresses_and_the_switch_for_tests():
    for address in ("93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::808:808"):
        Network().check(address)
    Network(allow_loopback=True).check("127.0.0.1")
    with pytest.raises(Refused):
        Network(allow_loopback=True).check("10.0.0.1")


@pytest.mark.parametrize(("url", "kind"), [
    ("file:///etc/passwd", "refused scheme"), ("ftp://a.org/b", "refused scheme"),
    ("gopher://a.org", "refused scheme"), ("data:image/png;base64,aa", "refused scheme"),
    ("//a.org/x", "refused scheme"), ("", "refused scheme"), ("http://", "bad URL"),
    ("http://user:word@a.org/", "bad URL"), ("http://a.org:22/", "refused port"),
    ("http://[::1", "bad URL"), ("http://a.org:99999/", "bad URL"),
    ("http://" + "a" * 300 + ".org/", "bad URL"), ("http://2130706433/", "bad URL"),
    ("http://0x7f.1/", "bad URL"), ("http://localhost/", "refused address"),
    ("http://[::ffff:127.0.0.1]/", "refused address"),
])  # fmt: skip
def test_urls_that_are_refused_before_anything_is_sent(url, kind):
    with pytest.raises(Refused) as refused:
        get(url, Network(), CAPS)
    assert refused.value.kind == kind


def test_a_name_with_one_private_address_is_refused_and_the_checked_one_is_used(
    server, monkeypatch
):
    answers = iter([["93.184.215.14", "10.0.0.1"], ["127.0.0.1"], ["10.0.0.1"]])
    entry = lambda a, port: (socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port))  # noqa: E731
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, port, **_: [entry(a, port) for a in next(answers)]
    )
    with pytest.raises(Refused, match="refused address: 10"):
        get("http://rebind.example/", Network(), CAPS)
    # Looked up once: a second answer, which would be private, is never asked for.
    answer = get(f"http://rebind.example:{server.server_port}/good/1.jpg", near(server), CAPS)
    assert answer.body[:2] == b"\xff\xd8" and next(answers) == ["10.0.0.1"]


# -- one row for each trick -----------------------------------------------------------------------

TRICKS = {
    "/good/1.jpg": "ok",
    "/optother/1.jpg": "ok",
    "/to/good": "ok",
    "/missing.jpg": "http 404",
    "/html.jpg": "not an image",
    "/optout/1.jpg": "opted out",
    "/reserved/1.jpg": "opted out",
    "/short.jpg": "truncated answer",
    "/promise.jpg": "too many bytes",
    "/endless.jpg": "too many bytes",
    "/bomb.jpg": "encoded answer",
    "/pixels.png": "too many pixels",
    "/hang.jpg": "timeout",
    "/drip.jpg": "timeout",
    "/header.jpg": "bad answer",
    "/garbage.jpg": "bad answer",
    "/loop.jpg": "too many redirects",
    "/to/file": "refused scheme",
    "/to/port": "refused port",
    "/to/private": "refused address",
    "/to/mapped": "refused address",
    "/closed/1.jpg": "robots.txt",
}


def test_every_trick_is_a_row_and_the_rest_goes_on(server, tmp_path):
    port = server.server_port
    server.targets |= {
        "good": "/good/2.jpg", "file": "file:///etc/passwd", "port": "http://127.0.0.1:1/x",
        "private": f"http://192.168.0.1:{port}/x", "mapped": f"http://[::ffff:10.0.0.1]:{port}/",
    }  # fmt: skip
    urls = [f"{server.base}{path}" for path in TRICKS] + ["nonsense", None]
    path = sample(tmp_path / "s.parquet", urls)
    how = replace(
        HOW,
        robots=True,
        shard=100,
        limits=Limits(10**8),
        threads=32,
        per_host=32,
        caps=replace(CAPS, seconds=4.0),  # a busy machine answers late
    )
    began = time.monotonic()
    done = fetch_sample(path, tmp_path / "out", how, network=near(server))
    assert time.monotonic() - began < 40
    ledger = pq.read_table(tmp_path / "out/ledger.parquet").to_pylist()
    found = [row["status"] for row in ledger]
    assert dict(zip(TRICKS, found)) == TRICKS
    assert found[len(TRICKS) :] == ["refused scheme"] * 2
    assert done["status"]["ok"] == 3 and done["rows"] == len(urls)
    assert server.asked["/private/1.jpg"] == 0
    source = open_source(f"webdataset:{tmp_path}/out/000-all")
    assert [sample.texts for sample in (source[i] for i in range(3))] == [
        ("picture 0",), ("picture 1",), ("picture 2",)
    ]  # fmt: skip


def test_loopback_is_refused_unless_a_test_says_so(server, tmp_path):
    path = sample(tmp_path / "s.parquet", [f"{server.base}/good/1.jpg"])
    network = Network(ports=(server.server_port,))
    done = fetch_sample(path, tmp_path / "out", HOW, network=network)
    assert done["status"] == {"refused address": 1} and not server.asked


# -- pictures, layouts, ledger --------------------------------------------------------------------


def test_pictures_are_scaled_and_their_ledger_tells_where_they_came_from(server, tmp_path):
    urls = [f"{server.base}/good/{i}.jpg" for i in range(6)]
    domains = ["dim"] * 4 + ["blur"] * 2
    path = sample(tmp_path / "s.parquet", urls, domain=domains, rank=[0, 1, 2, 3, 0, 1])
    done = fetch_sample(path, tmp_path / "out", HOW, network=near(server))
    assert done["domains"] == {"000-blur": {"ok": 2}, "001-dim": {"ok": 4}}
    with tarfile.open(tmp_path / "out/001-dim/00000.tar") as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    assert sorted(members)[:3] == ["000000000.jpg", "000000000.json", "000000000.txt"]
    about = json.loads(members["000000003.json"])
    assert about["rank"] == 3 and about["original_width"] == 60 and about["domain"] == "dim"
    with Image.open(io.BytesIO(members["000000003.jpg"])) as image:
        assert image.size == (about["width"], about["height"]) and min(image.size) == 32
    row = pq.read_table(tmp_path / "out/ledger.parquet").to_pylist()[-1]
    assert row["sha256"] == about["sha256"] and len(row["sha256"]) == 64
    folder = replace(HOW, layout="folder")
    fetch_sample(path, tmp_path / "folder", folder, network=near(server))
    table = open_source(
        f"table:{tmp_path}/folder/pictures.parquet", images_root=str(tmp_path / "folder")
    )
    assert len(table) == 6 and table[0].texts == ("picture 4",)


def test_a_strip_would_become_too_large():
    out = io.BytesIO()
    Image.new("RGB", (30_000, 1)).save(out, "PNG")
    with pytest.raises(Refused, match="too many pixels"):
        make_picture(out.getvalue(), Making(), Limits())


def test_only_failures_that_may_pass_are_asked_for_again(server, tmp_path):
    paths = ("good/0.jpg", "flaky/1.jpg", "missing.jpg", "good/3.jpg")
    urls = [f"{server.base}/{p}" for p in paths]
    path = sample(tmp_path / "s.parquet", urls)
    first = fetch_sample(path, tmp_path / "out", HOW, network=near(server))
    assert first["status"] == {"ok": 2, "http 503": 1, "http 404": 1}
    again = fetch_sample(path, tmp_path / "out", HOW, network=near(server), retry_failed="passing")
    assert again["status"] == {"ok": 3, "http 404": 1}
    assert server.asked["/good/0.jpg"] == 1 and server.asked["/missing.jpg"] == 1
    assert len(open_source(f"webdataset:{tmp_path}/out/000-all")) == 3
    with pytest.raises(UserError, match="other settings"):
        fetch_sample(path, tmp_path / "out", replace(HOW, side=16), network=near(server))


def _fetch(path, out, port):
    fetch_sample(path, out, HOW, network=Network(ports=(port,), allow_loopback=True))


def test_killed_20_times_at_random_moments_the_result_is_the_same(server, tmp_path):
    urls = [f"{server.base}/{'good' if i % 7 else 'missing'}/{i}.jpg" for i in range(40)]
    path = sample(tmp_path / "s.parquet", urls, domain=["dim"] * 25 + ["blur"] * 15)
    began = time.monotonic()
    _fetch(path, tmp_path / "whole", server.server_port)
    server.wait_s = 0.02
    most = 0.6 * (time.monotonic() - began)  # of what a whole fetch takes here and now
    rng, killed = np.random.default_rng(1), 0
    # spawn would import everything anew; the server's threads hold no lock that a child takes
    for turn in range(20):
        out = tmp_path / f"cut-{turn // 5}"
        child = multiprocessing.get_context("fork").Process(
            target=_fetch, args=(path, out, server.server_port)
        )
        child.start()
        child.join(rng.uniform(0.0, most))
        child.kill()
        child.join()
        killed += child.exitcode == -signal.SIGKILL
    assert killed >= 8
    server.wait_s = 0.0
    whole = tmp_path / "whole"
    names = [p.relative_to(whole) for p in whole.rglob("*") if p.is_file()]
    assert len(names) > 20
    for turn in range(4):
        _fetch(path, tmp_path / f"cut-{turn}", server.server_port)
        for name in names:
            cut = tmp_path / f"cut-{turn}" / name
            assert cut.read_bytes() == (whole / name).read_bytes(), name


# -- manners --------------------------------------------------------------------------------------


def test_a_host_gets_few_requests_at_a_time():
    hosts = Hosts(["http://a/1", "http://A/2", "http://a/3", "http://b/1"], at_once=1)
    first, second = hosts.take(), hosts.take()
    assert first == (0, "a", False) and second == (3, "b", False)
    got: list = []
    thread = threading.Thread(target=lambda: got.append(hosts.take()), daemon=True)
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()  # a is busy, b has no more
    hosts.done("a", True)
    thread.join(2)
    assert got == [(1, "a", False)]
    hosts.done("a", True)
    assert hosts.take() == (2, "a", False) and hosts.take() is None


def test_a_host_that_never_answers_is_given_up_and_pauses_are_kept():
    hosts = Hosts(["http://a/"] * 4, pause_s=0.05, give_up=2)
    began = time.monotonic()
    for place in range(4):
        taken = hosts.take()
        assert taken == (place, "a", place >= 2)
        hosts.done("a", False)
    assert time.monotonic() - began >= 0.15


@pytest.mark.parametrize(("value", "refused"), [
    ("noai", True), ("index, NOIMAGEAI", True), ("vislang: noindex", True), ("none", True),
    ("otherbot: noai", False), ("index, follow", False), ("max-image-preview: large", False),
    ("noindex, unavailable_after: 25 Jun 2030", True),
])  # fmt: skip
def test_opt_out_headers(value, refused):
    headers = Message()
    headers["X-Robots-Tag"] = value
    if refused:
        with pytest.raises(Refused, match="opted out"):
            check_headers(headers, "vislang")  # type: ignore[arg-type]
    else:
        check_headers(headers, "vislang")  # type: ignore[arg-type]


def test_bad_input_of_fetching(tmp_path, capsys):
    path = sample(tmp_path / "s.parquet", ["http://127.0.0.1/x.jpg"])
    with pytest.raises(UserError, match="Did you mean 'folder'"):
        fetch_sample(path, tmp_path / "o", replace(HOW, layout="folders"))
    with pytest.raises(UserError, match="There is no"):
        fetch_sample(tmp_path / "none", tmp_path / "o", HOW)
    pq.write_table(pa.table({"link": ["x"]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"no column url\. It has: link"):
        fetch_sample(tmp_path / "t.parquet", tmp_path / "o", HOW)
    argv = ["curate", "fetch", str(path), "--out", str(tmp_path / "cli")]
    assert cli.main(argv) == 0
    assert "refused address: 1" in capsys.readouterr().out
    assert cli.main([*argv, "--engine", "img2dataset"]) == 2
    assert "pip install img2dataset" in capsys.readouterr().err
