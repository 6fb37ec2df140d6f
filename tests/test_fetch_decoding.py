"""Attacks on the downloader through what comes: pictures that are none, bombs, names, archives."""

import io
import json
import os
import signal
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hostile import serving
from pictures import encoded, jpeg, pixels
from vislang.curate.fetch import Caps, Fetching, Network, decoding, fetch_sample
from vislang.curate.fetch.decoding import DecodeWorkers
from vislang.curate.fetch.job import file_name
from vislang.curate.fetch.network import Refused
from vislang.curate.fetch.picture import Making, make_picture, sniff
from vislang.data.decode import Limits
from vislang.data.sources import open_source

HOW = Making(side=32, max_side=20_000, max_frames=20, decode_s=5)
LIMITS = Limits(max_pixels=20_000_000, max_bytes=5_000_000)


def png(width: int, height: int, *chunks: tuple[bytes, bytes], bits: int = 8) -> bytes:
    """A PNG whose header says what it likes; grey, no pixels unless given."""
    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    out = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", head), *chunks, (b"IEND", b"")):
        out += struct.pack(">I", len(data)) + kind + data
        out += struct.pack(">I", zlib.crc32(kind + data))
    return out


def frames(count: int, kind: str) -> bytes:
    images = [Image.fromarray(pixels(i, 40, 48)) for i in range(count)]
    out = io.BytesIO()
    images[0].save(out, kind, save_all=True, append_images=images[1:])
    return out.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(pixels(1, 40, 80), exif=exif)


def huge_jpeg() -> bytes:
    """The header of a JPEG of 60,000 x 60,000."""
    data = bytearray(jpeg(1))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 60_000, 60_000)
    return bytes(data)


TEXT_BOMB = (b"zTXt", b"k\0\0" + zlib.compress(bytes(200_000_000), 9))
PIXEL_BOMB = (b"IDAT", zlib.compress(bytes(100_000_000), 9))
# bytes -> status; "ok" where there is a picture after all
BODIES: dict[str, tuple[bytes, str]] = {
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>", "svg"),
    "xml": (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!DOCTYPE svg [<!ENTITY a 'x'>]><svg/>", "svg"),
    "html": (b"\n <!DOCTYPE html><title>404</title>", "not an image"),
    "wide": ("<html>".encode("utf-16"), "not an image"),
    "empty": (b"", "not an image"),
    "json": (b'{"error": 1}', "not an image"),
    "pdf": (b"%PDF-1.4", "not an image"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n(x) run", "not an image"),
    "zip": (b"PK\3\4" + bytes(99), "not an image"),
    "heic": (b"\0\0\0\x18ftypheic" + bytes(99), "not an image"),
    "tga": (bytes([0, 0, 2]) + bytes(9) + struct.pack("<HH", 8, 8) + b"\x18\0" + bytes(192),
            "not an image"),
    "noise": (bytes(range(256)) * 9, "not an image"),
    "truncated": (jpeg(1, 200, 200)[:3000], "truncated image"),
    "cut-png": (encoded(pixels(1), "PNG")[:2000], "truncated image"),
    "no-pixels": (png(64, 64), "cannot decode"),
    "50,000": (png(50_000, 100), "too many pixels"),
    "huge": (huge_jpeg(), "too many pixels"),
    "bomb": (png(15_000, 15_000, PIXEL_BOMB, bits=1), "too many pixels"),
    "more-data": (png(64, 64, PIXEL_BOMB), "ok"),  # what is beyond the picture is not inflated
    "text-bomb": (png(64, 64, TEXT_BOMB, (b"IDAT", zlib.compress(bytes(65 * 64)))),
                  "cannot decode"),
    "animated": (frames(3, "GIF"), "ok"),
    "moving": (frames(3, "WEBP"), "ok"),
    "many-frames": (frames(21, "GIF"), "too many frames"),
    "cmyk": (encoded(Image.fromarray(pixels(1)).convert("CMYK")), "ok"),
    "grey16": (encoded(Image.fromarray(np.full((40, 40), 40_000, np.uint16)), "PNG"), "ok"),
    "turned": (turned(), "ok"),
    "polyglot": (jpeg(1) + b"<html><script>alert(1)</script>PK\3\4", "ok"),
    "bmp": (encoded(pixels(1), "BMP"), "ok"),
    "tiff": (encoded(pixels(1), "TIFF"), "ok"),
    "jpeg2000": (encoded(pixels(1), "JPEG2000"), "ok"),
    "avif": (encoded(pixels(1), "AVIF"), "ok"),
}  # fmt: skip


@pytest.fixture(scope="module")
def made():
    """What became of all bodies, by way of one server: (status of each, folder)."""
    import tempfile

    with serving() as server, tempfile.TemporaryDirectory() as folder:
        server.bodies = {name.replace(",", ""): body for name, (body, _) in BODIES.items()}
        urls = [f"{server.base}/bytes/{name.replace(',', '')}" for name in BODIES]
        pq.write_table(pa.table({"url": urls}), Path(folder) / "s.parquet")
        how = Fetching(side=32, threads=4, per_host=4, robots=False, decode_workers=1,
                       limits=LIMITS, caps=Caps(max_bytes=5_000_000, seconds=60), max_frames=20,
                       max_side=20_000)  # fmt: skip
        network = Network((server.server_port,), allow_loopback=True)
        fetch_sample(Path(folder) / "s.parquet", Path(folder) / "out", how, network=network)
        yield pq.read_table(Path(folder) / "out/ledger.parquet").to_pylist(), Path(folder) / "out"


@pytest.mark.parametrize(("place", "name"), list(enumerate(BODIES)))
def test_what_comes_is_judged_by_its_bytes(made, place, name):
    row = made[0][place]
    assert row["status"] == BODIES[name][1], (row["status"], row["detail"])
    assert row["status"] == "ok" or row["detail"]


def test_frames_turns_and_formats_are_told(made):
    rows = dict(zip(BODIES, made[0]))
    assert rows["animated"]["frames"] == rows["moving"]["frames"] == 3
    assert (rows["turned"]["original_width"], rows["turned"]["original_height"]) == (40, 80)
    assert rows["cmyk"]["format"] == "JPEG" and rows["tiff"]["format"] == "TIFF"
    assert rows["cmyk"]["frames"] == 1


def test_what_is_written_holds_nothing_of_what_came(made):
    with tarfile.open(made[1] / "000-all/00000.tar") as tar:
        names = tar.getnames()
        files = [tar.extractfile(n).read() for n in names if n.endswith("jpg")]  # type: ignore[union-attr]
    assert len(files) == sum(status == "ok" for _, status in BODIES.values())
    for data in files:
        assert b"script" not in data and b"Exif" not in data
        assert simplejpeg.decode_jpeg(data).shape[2] == 3
    assert all(n[:9].isdigit() and n[9:] in (".jpg", ".txt", ".json") for n in names)


def test_animated_pictures_are_refused_where_that_is_asked_for():
    with pytest.raises(Refused, match="animated: 3 frames"):
        make_picture(frames(3, "GIF"), replace(HOW, animated="refuse"), LIMITS)
    assert (
        make_picture(encoded(pixels(1), "GIF"), replace(HOW, animated="refuse"), LIMITS).frames == 1
    )


@given(st.binary(max_size=300), st.sampled_from(["", *BODIES]), st.integers(0, 400))
@settings(max_examples=150)
def test_any_bytes_are_a_picture_or_refused(noise, name, at):
    """No other exception, no warning, whatever is put into whatever."""
    body = BODIES[name][0][:20_000] if name and "bomb" not in name else b""
    data = body[:at] + noise + body[at + len(noise) :]
    try:
        picture = make_picture(data, HOW, LIMITS)
    except Refused as refused:
        assert refused.kind in decoding.KINDS, refused
    else:
        assert min(picture.width, picture.height) == 32 and picture.format == sniff(data)


# -- the decoding process -------------------------------------------------------------------------

EVIL = (
    "import json, sys; given = json.loads(sys.argv[1]); sys.path[:] = given.pop('path');"
    "import vislang.curate.fetch.picture as picture; real = picture.make_picture\n"
    "def make(data, how, limits):\n"
    "    import ctypes, os, socket, sys, time\n"
    "    word = data[3:7]\n"
    "    if word == b'SEGV': ctypes.string_at(0)\n"
    "    if word == b'FULL': return bytearray(10**10) and None\n"
    "    if word == b'SPIN':\n"
    "        while True: pass\n"
    "    if word == b'HANG': time.sleep(60)\n"
    "    if word == b'LIES': os.write(4, b'x' * 999); os._exit(0)\n"
    "    if word == b'JUNK': return picture.Picture(b'no jpeg', 1, 1, 1, 1, 1, 'PNG')\n"
    "    if word == b'FILE': open('/etc/hostname')\n"
    "    if word == b'CALL': socket.create_connection(('127.0.0.1', int(data[7:12])), 2)\n"
    "    if word == b'ENVS': raise ValueError(repr(sorted(os.environ)))\n"
    "    return real(data, how, limits)\n"
    "picture.make_picture = make\n"
    "from vislang.curate.fetch.child import main; main(given)"
)


@pytest.fixture
def evil(monkeypatch):
    """DecodeWorkers whose process obeys the bytes that it gets: as if each decoder had a hole."""
    monkeypatch.setattr(decoding, "_START", EVIL)
    monkeypatch.setenv("SECRET_KEY", "x")
    monkeypatch.setattr(decoding, "_WALL", 3.0)
    made = DecodeWorkers(1, replace(HOW, decode_s=1.0), LIMITS)
    yield made
    made.close()


def test_a_decoder_that_dies_costs_one_row(evil):
    fates = {
        b"SEGV": "decoding crashed: SIGSEGV", b"FULL": "too much memory",
        b"SPIN": "decoding took too long", b"HANG": "decoding took too long",
        b"JUNK": "cannot decode: the decoding process", b"LIES": "c",
    }  # fmt: skip
    for word, fate in fates.items():
        with pytest.raises(Refused, match=fate):
            evil.make(b"\xff\xd8\xff" + word)
        assert evil.make(jpeg(1, 40, 60)).height == 32, word
    assert evil.crashes >= 4


def test_a_decoder_that_was_taken_over_can_do_little(evil):
    with serving() as server:
        with pytest.raises(Refused, match="Too many open files"):
            evil.make(b"\xff\xd8\xffFILE")
        with pytest.raises(Refused) as seen:
            evil.make(b"\xff\xd8\xffENVS")
        assert "SECRET" not in str(seen.value) and "PATH" in str(seen.value)
        with pytest.raises(Refused, match="cannot decode"):
            evil.make(b"\xff\xd8\xffCALL%05d" % server.server_port)
        assert not server.asked
        assert evil.make(jpeg(1, 40, 60)).height == 32  # it can do what it is for


def test_decoders_end_with_who_started_them():
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pictures import jpeg;"
        "from vislang.curate.fetch.decoding import DecodeWorkers;"
        "from vislang.curate.fetch.picture import Making; from vislang.data.decode import Limits;"
        "d = DecodeWorkers(1, Making(side=8), Limits()); d.make(jpeg(1));"
        "print(next(iter(d._all))._process.pid, flush=True); input()"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(Path(__file__).parent)],
                              stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)  # fmt: skip
    assert parent.stdout
    child = int(parent.stdout.readline())
    os.kill(child, 0)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{child}/stat").read_text().split(")")[1].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the decoding process lives on")


# -- names and archives ---------------------------------------------------------------------------

TRICKS = ["../../evil", "/etc/evil", "..", ".", "a\0b", "a\nb", "C:\\evil", "x" * 300, "\u202egpj",
          "~/evil", "$(evil)", "-rf", "a/../../../evil", "con"]  # fmt: skip


@given(st.text(max_size=120) | st.sampled_from(TRICKS))
def test_a_domain_makes_a_name_that_stays_where_it_is(domain):
    name = f"000-{file_name(domain)}"
    assert Path(name).name == name and name not in (".", "..") and "\0" not in name
    assert len(name.encode()) <= 255


def test_nothing_from_outside_is_a_file_name(tmp_path):
    out = tmp_path / "deep/er/out"
    with serving() as server:
        names = [name.replace("\0", "") for name in TRICKS]
        table = {"url": [f"{server.base}/good/{i}.jpg" for i in range(len(names))],
                 "id": names, "domain": names, "caption": names, "file": names}  # fmt: skip
        pq.write_table(pa.table(table), tmp_path / "s.parquet")
        network = Network((server.server_port,), allow_loopback=True)
        for layout in ("tar", "folder"):
            how = Fetching(layout, side=8, robots=False, decode_workers=1)
            done = fetch_sample(tmp_path / "s.parquet", out / layout, how, network=network)
            assert done["status"] == {"ok": len(names)}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "s.parquet"]
    for path in out.rglob("*.tar"):
        with tarfile.open(path) as tar:
            assert [m.name[9:] for m in tar] == [".jpg", ".txt", ".json"]
            tar.extractall(tmp_path / "whole", filter="data")  # what others do with it
    ledger = pq.read_table(out / "tar/ledger.parquet").to_pylist()
    assert sorted(row["id"] for row in ledger) == sorted(names)


def test_readers_follow_no_tricks_of_archives(tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(jpeg(9))
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name in ("../up.jpg", "/abs.jpg", "good.jpg"):
            info = tarfile.TarInfo(name)
            info.size = len(jpeg(1))
            tar.addfile(info, io.BytesIO(jpeg(1)))
        for name, kind in (("link.jpg", tarfile.SYMTYPE), ("hard.jpg", tarfile.LNKTYPE),
                           ("fifo.jpg", tarfile.FIFOTYPE), ("d.jpg", tarfile.CHRTYPE)):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(secret)
            tar.addfile(info)
    source = open_source(f"webdataset:{tmp_path}/t.tar")
    assert [source[i].id.rpartition("/")[2] for i in range(len(source))] == ["up", "abs", "good"]
    assert all(source[i].image.path == tmp_path / "t.tar" for i in range(3))  # type: ignore[union-attr]
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("a/../../up.jpg", jpeg(1))
        link = zipfile.ZipInfo("a/link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, str(secret))
    before = sorted(p.name for p in tmp_path.rglob("*") if "vislang" not in p.name)
    zipped = open_source(f"zip:{tmp_path}/z.zip")
    assert all(zipped[i].image.path == tmp_path / "z.zip" for i in range(len(zipped)))  # type: ignore[union-attr]
    assert sorted(p.name for p in tmp_path.rglob("*") if "vislang" not in p.name) == before
    assert json.dumps([zipped[i].id for i in range(len(zipped))])
