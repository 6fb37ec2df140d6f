"""Attacks on the downloader through addresses, names and answers: nothing is let through.

A fake resolver stands for hostile name servers; `connected` holds every address that was asked for
a connection. Real servers on loopback answer with malice.
"""

import ipaddress
import socket
import ssl
import subprocess
import threading
import time
from dataclasses import replace
from itertools import count
from shutil import which

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostile import serving
from pictures import jpeg
from vislang.curate.fetch import Caps, Fetching, Network, fetch_sample
from vislang.curate.fetch.client import get
from vislang.curate.fetch.names import Names
from vislang.curate.fetch.network import Refused

CAPS = Caps(max_bytes=200_000, seconds=2.0)
PRIVATE = ["127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.0.1", "172.31.255.255",
           "100.64.0.1", "0.0.0.0", "100.100.100.200", "192.0.0.192", "168.63.129.16",
           "224.0.0.1", "255.255.255.255"]  # fmt: skip


@pytest.fixture
def server():
    with serving() as made:
        yield made


@pytest.fixture
def connected(monkeypatch):
    """Addresses that a socket was asked to connect to; a connection itself fails."""
    asked = []

    def connect(self, address):
        asked.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", connect)
    return asked


# The same list serves all examples of a property; each example clears it.
one_fixture = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def answers(*addresses):
    """A resolver that gives these for any name."""
    return lambda host, port: list(addresses)


# -- spellings ------------------------------------------------------------------------------------


def _number(value: int, how: str) -> str:
    return {"decimal": str(value), "octal": f"0{value:o}", "hex": f"{value:#x}",
            "padded": f"{value:04d}", "capital": f"0X{value:X}"}[how]  # fmt: skip


HOWS = ["decimal", "octal", "hex", "padded", "capital"]
DOTS = [".", "\u3002", "\uff0e", "\uff61"]
WIDE = str.maketrans("0123456789abcdefx", "０１２３４５６７８９ａｂｃｄｅｆｘ")


@st.composite
def spellings(draw) -> str:
    """A private IPv4 address as some program or other would read it."""
    value = int(ipaddress.IPv4Address(draw(st.sampled_from(PRIVATE))))
    parts = draw(st.integers(1, 4))  # 127.0.0.1, 127.0.1, 127.1, 2130706433
    numbers = [value >> (8 * (3 - i)) & 255 for i in range(parts - 1)]
    numbers.append(value & ((1 << (8 * (5 - parts))) - 1))
    text = draw(st.sampled_from(DOTS)).join(
        _number(n, draw(st.sampled_from(HOWS))) for n in numbers
    )
    disguise = draw(st.sampled_from(["", "wide", "percent", "dot", "user", "backslash", "name"]))
    if disguise == "wide":
        text = text.translate(WIDE)
    elif disguise == "percent":
        text = "".join(f"%{ord(c):02x}" if c.isascii() else c for c in text)
    elif disguise == "dot":
        text += "."
    elif disguise == "user":
        text = f"example.org@{text}"
    elif disguise == "backslash":
        text = f"{text}\\@example.org"
    return text


@one_fixture
@given(spellings(), st.sampled_from(["http", "HTTP", "https"]))
def test_a_private_address_is_reached_by_no_spelling(connected, host, scheme):
    connected.clear()
    # Should a spelling pass as a name, the resolver gives what the spelling may mean.
    with pytest.raises(Refused) as refused:
        get(f"{scheme}://{host}/x", Network(resolver=answers("10.0.0.1")), CAPS)
    assert not connected
    assert refused.value.kind in ("bad URL", "refused address", "refused port"), refused.value


@one_fixture
@given(st.sampled_from(PRIVATE), st.integers(0, 6), st.integers(0, 2**64 - 1))
def test_a_private_address_is_reached_through_no_ipv6_address(connected, address, how, more):
    connected.clear()
    v4 = int(ipaddress.IPv4Address(address))
    v6 = ipaddress.IPv6Address([
        (0xFFFF << 32) | v4,  # ::ffff:a.b.c.d
        v4,  # ::a.b.c.d
        (0xFFFF << 48) | v4,  # ::ffff:0:a.b.c.d
        (0x64FF9B << 96) | v4,  # 64:ff9b::a.b.c.d
        (0x2002 << 112) | (v4 << 80) | more,  # 2002:a.b.c.d::
        (0x20010000 << 96) | (more << 32) | (v4 ^ 0xFFFFFFFF),  # Teredo
        (0x26078888 << 96) | (0x5EFE << 32) | v4,  # ISATAP
    ][how])  # fmt: skip
    for host in (f"[{v6}]", f"[{v6.exploded}]", "named.example"):
        with pytest.raises(Refused) as refused:
            get(f"http://{host}/", Network(resolver=answers(str(v6))), CAPS)
        assert refused.value.kind == "refused address"
    assert not connected


@pytest.mark.parametrize("url", [
    "http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[::1]/", "http://[::]/",
    "http://[fd00:ec2::254]/", "http://[ff02::1]/", "http://[fec0::1]/", "http://[v1.fe80::1]/",
    "http://[::ffff:7f00:1]/", "http://[0:0:0:0:0:ffff:127.0.0.1]/", "http://[::1", "http://::1/",
    "http://[127.0.0.1]/",
    "http://[2606:2800::1]@[::1]/", "http://[2606:2800::1]x/",
    "http://127.0.0.1:80:80/", "http://127.0.0.1#@example.org/", "http://example.org:80@10.0.0.1/",
    "http://①②⑦.⓪.⓪.①/", "http://127.0.0.1\t.example.org/", "http://exa\rmple.org/",
    "http://example.org\r\nHost: 10.0.0.1/", "http://example.org/\r\n\r\nGET /x", "http://a\0.org/",
    "http://example.org\\.evil.org/", "http:\\\\127.0.0.1/", "http:///127.0.0.1/",
    "http:/127.0.0.1",
    "http://exa mple.org/", "http://ex%61mple.org/", "http://a..org/", "http://.org/",
    "http://localhost/", "http://LOCALHOST./", "http://ⓛocalhost/", "http://127.0.0.1.:80/",
    "http://-a.org/", "http://a.org:-80/", "http://a.org:0x50/", "http://a.org:٨٠/", "http://1/",
    "http://0/", "http://0x/", "http://127.1/", "http://1.2.3.4.5/", "http://256.1.1.1/",
    "http://999999999999/", "http://08.8.8.8/", "http://a.0x7f/", "http://*/", "http://$(id)/",
    "http://a.org/\ud800", "jar:http://a.org!/", "http+unix://%2Fvar%2Frun/", "unix:/x", "HTTP:a",
    "http://a.org:70000/", "http://a.org:0/", "http://a.org:443/", "https://a.org:80/",
    "dict://a.org:11211/stat", "http://" + "a." * 200 + "org/", "http://a.org/" + "x" * 9000,
])  # fmt: skip
def test_odd_urls_are_refused_and_nothing_is_sent(connected, url):
    connected.clear()
    network = Network(
        resolver=lambda host, port: ["127.0.0.1"] if "local" in host else ["10.1.1.1"]
    )
    with pytest.raises(Refused) as refused:
        get(url, network, CAPS)
    assert not connected
    assert refused.value.kind in ("bad URL", "refused address", "refused port", "refused scheme")


def test_honest_urls_are_not_refused(connected):
    network = Network(resolver=answers("93.184.215.14", "2606:2800:21f:cb07::1"))
    for url in ("http://example.org/", "https://EXAMPLE.org./a b?q=é#x", "http://bücher.example/x",
                "http://93.184.215.14/", "http://[2606:2800:21f:cb07::1]/", " http://a_b.example ",
                "http://xn--bcher-kva.example/", "http://3com.com:80/"):  # fmt: skip
        connected.clear()
        with pytest.raises(Refused, match="cannot connect"):
            get(url, network, CAPS)
        assert connected and all(entry[1] in (80, 443) for entry in connected), url


# -- names ----------------------------------------------------------------------------------------


@one_fixture
@given(st.sampled_from(PRIVATE), st.integers(0, 7))
def test_one_private_address_among_many_condemns_a_name(connected, private, place):
    connected.clear()
    addresses = [f"93.184.215.{i}" for i in range(1, 8)]
    addresses.insert(place, private)
    with pytest.raises(Refused, match="refused address"):
        get("http://many.example/", Network(resolver=answers(*addresses)), CAPS)
    assert not connected


@pytest.mark.parametrize("answer", ["localhost", "1.2.3", "", "::1%lo", "0x7f.0.0.1", "1.2.3.4/8"])
def test_a_resolver_that_answers_nonsense(connected, answer):
    connected.clear()
    with pytest.raises(Refused, match="refused address"):
        get("http://odd.example/", Network(resolver=answers(answer)), CAPS)
    assert not connected


def test_a_name_that_changes_between_check_and_use_is_asked_once(server):
    asked = count()

    def rebinding(host, port):  # first harmless, then inside
        return ["127.0.0.1"] if next(asked) == 0 else ["10.0.0.1"]

    network = Network((server.server_port,), allow_loopback=True, resolver=rebinding)
    url = f"http://rebinding.example:{server.server_port}/good/1.jpg"
    assert get(url, network, CAPS).body == jpeg(1, 41, 60)
    assert next(asked) == 1


def test_a_redirect_to_a_name_that_leads_inside(server):
    port = server.server_port
    inside = {"start.example": "127.0.0.1", "inner.example": "169.254.169.254"}
    network = Network((port,), allow_loopback=True, resolver=lambda host, _: [inside[host]])
    for at, place in enumerate(
        (f"http://inner.example:{port}/latest/meta-data/", f"//inner.example:{port}/",
         f"http://[::ffff:a9fe:a9fe]:{port}/", f"http://0xa9fea9fe:{port}/", "http://2852039166/",
         f"http://start.example:{port}@inner.example/", "ftp://start.example/", "file:///etc/passwd",
         "http://inner.example:22/", "gopher://inner.example:11211/x")
    ):  # fmt: skip
        server.targets["x"] = place
        with pytest.raises(Refused) as refused:
            get(f"http://start.example:{port}/to/x", network, CAPS)
        kinds = ("refused address", "bad URL", "refused scheme", "refused port", "http 404")
        assert refused.value.kind in kinds, (at, place, refused.value)


def test_a_name_server_that_never_answers_costs_its_time_and_no_more_threads():
    release = threading.Event()

    def hangs(host, port):
        release.wait(20)
        return ["93.184.215.14"]

    names = Names(threads=3)
    began = time.monotonic()
    for number in range(8):
        with pytest.raises(TimeoutError):
            names.find(hangs, f"{number}.example", 80, 0.05)
    with pytest.raises(Refused, match="timeout: looking up"):
        get("http://slow.example/", Network(resolver=hangs), replace(CAPS, seconds=0.2))
    assert time.monotonic() - began < 3
    assert sum(thread.name == "names" for thread in threading.enumerate()) <= 3 + 1
    release.set()
    assert names.find(hangs, "later.example", 80, 5) == ["93.184.215.14"]


def test_proxies_and_credentials_of_the_environment_are_not_used(server, monkeypatch, tmp_path):
    with serving() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.base)
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login a password b\n")
        monkeypatch.setenv("NETRC", str(netrc))
        network = Network((server.server_port,), allow_loopback=True)
        assert get(f"{server.base}/good/1.jpg", network, CAPS).hops == 0
        assert not proxy.asked and server.asked


# -- answers --------------------------------------------------------------------------------------

ANSWERS = {
    "headers": "bad answer",
    "many": "bad answer",
    "continue": "bad answer",
    "extensions": "bad answer",
    "trailers": "bad answer",
    "negative": "ok",
    "longer": "ok",
    "nine": "bad answer",
    "nowhere": "bad answer",
    "dripped": "timeout",
    "twice": "encoded answer",
    "bomb": "encoded answer",
    "busy": "http 429",
    "promise": "too many bytes",
    "endless": "too many bytes",
    "short": "truncated answer",
}


def test_hostile_answers_cost_a_row_each(server, tmp_path):
    table = {"url": [f"{server.base}/{kind}/{i}.jpg" for i, kind in enumerate(ANSWERS)]}
    pq.write_table(pa.table(table), tmp_path / "s.parquet")
    how = Fetching(side=32, threads=16, per_host=16, caps=replace(CAPS, seconds=4.0), robots=False,
                   decode_workers=1)  # fmt: skip
    network = Network((server.server_port,), allow_loopback=True)
    fetch_sample(tmp_path / "s.parquet", tmp_path / "out", how, network=network)
    ledger = pq.read_table(tmp_path / "out/ledger.parquet").to_pylist()
    assert dict(zip(ANSWERS, (row["status"] for row in ledger))) == ANSWERS
    assert all(row["detail"] is not None for row in ledger if row["status"] != "ok")


# -- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A key and a certificate of its own for named.example."""
    if not which("openssl"):
        pytest.skip("needs the command openssl")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", "key",
         "-out", "cert", "-subj", "/CN=x", "-addext", "subjectAltName=DNS:named.example"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder


def test_a_certificate_is_for_the_name_though_the_address_is_pinned(server, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert", certificate / "key")
    told: list[str | None] = []
    context.sni_callback = lambda sock, name, _: told.append(name)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    port = server.server_port
    network = Network(
        (port,),
        allow_loopback=True,
        resolver=answers("127.0.0.1"),
        certificates=str(certificate / "cert"),
    )
    assert get(f"https://named.example:{port}/good/1.jpg", network, CAPS).body == jpeg(1, 41, 60)
    assert told == ["named.example"]
    for host, with_ours in (("other.example", network), ("127.0.0.1", network),
                            ("named.example", replace(network, certificates=""))):  # fmt: skip
        with pytest.raises(Refused, match="bad certificate"):
            get(f"https://{host}:{port}/good/1.jpg", with_ours, CAPS)


def test_a_handshake_that_never_ends():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        network = Network((port,), allow_loopback=True)
        began = time.monotonic()
        with pytest.raises(Refused, match="timeout"):
            get(f"https://127.0.0.1:{port}/", network, replace(CAPS, seconds=0.3))
        assert time.monotonic() - began < 5
