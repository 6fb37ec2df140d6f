"""A page on a source: what is counted is what is there, and strangers' text stays text."""

import io
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hostile import serving
from pictures import encoded, pixels
from report_html import Page
from vislang.cli import main as cli
from vislang.curate.fetch import Fetching, Network, fetch_sample
from vislang.curate.inspect import drawn, inspect_source
from vislang.curate.validate import validate_pictures
from vislang.errors import UserError
from vislang.report.histogram import histogram
from vislang.report.inspected import write_inspected

CAPTIONS = [["a cat", "ein Kater"], ["кошка"], ["猫が好き"], ["<script>alert(1)</script>\u202e"],
            ["stock"], ["stock"], [], ["a dog"]]  # fmt: skip


def body(seed: int) -> bytes:
    return encoded(pixels(seed, 120, 150 + 10 * seed))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Eight rows: the last is a near copy of the first, the sixth no picture, the second unsafe."""
    folder = tmp_path_factory.mktemp("inspect")
    bodies = [body(i) for i in range(7)]
    first = np.array(Image.open(io.BytesIO(bodies[0])))
    bodies.append(encoded(first, quality=50))
    bodies[5] = b"no picture"
    nsfw = ["UNLIKELY", "NSFW", None, "UNLIKELY", "UNLIKELY", None, None, "false"]
    columns = {"image": pa.array(bodies, pa.binary()), "captions": CAPTIONS, "nsfw": nsfw,
               "id": [f"p{i}" for i in range(8)]}  # fmt: skip
    pq.write_table(pa.table(columns), folder / "t.parquet")
    return f"table:{folder / 't.parquet'}"


def test_what_is_counted_is_there(table):
    found = inspect_source(table, {"id": "id"})
    assert len(found.source) == len(found.rows) == 8
    assert found.sides == [120] * 7 and len(found.sizes) == 7
    assert found.captions == [2, 1, 1, 1, 1, 1, 0, 1] and len(found.characters) == 8
    assert found.scripts == {"Latin": 6, "Cyrillic": 1, "Japanese": 1}
    assert found.unreadable == {"not an image": 1} and found.tagged == 1
    assert found.repeated == [("stock", 2)] and found.copies == [(7, 0)]
    assert dict(found.frequent)["a"] == 2
    assert inspect_source(table, hash_bits=-1).copies == []


def test_some_samples_are_drawn_and_the_same_ones_again(table):
    found = inspect_source(table, most=3, seed=5)
    assert len(found.rows) == 3 and sorted(found.rows) == list(found.rows)
    assert inspect_source(table, most=3, seed=5).rows.tolist() == found.rows.tolist()
    assert set(drawn(found, 10)) == set(found.rows.tolist())
    with pytest.raises(UserError, match="most must be at least 0"):
        inspect_source(table, most=-1)


def test_the_page_is_whole_and_hides_what_is_tagged(table, tmp_path):
    found = inspect_source(table, {"id": "id"})
    text = write_inspected(found, tmp_path / "a.html").read_text()
    assert not Page.of(text).faults and "<script>alert" not in text and "⟨U+202E⟩" in text
    assert text.count("hidden (tagged unsafe)") == 1
    open_page = write_inspected(found, tmp_path / "b.html", nsfw=True).read_text()
    assert "hidden (tagged unsafe)" not in open_page
    for title in ("Summary", "Left out", "Pictures", "Captions", "Copies", "Random samples"):
        assert f"<h2>{title}</h2>" in text


def test_texts_alone_and_folders_of_fetching_have_their_pages(tmp_path, capsys):
    pq.write_table(pa.table({"caption": ["a", "b"]}), tmp_path / "t.parquet")
    page = write_inspected(inspect_source(f"table:{tmp_path}/t.parquet"), tmp_path / "t.html")
    assert "<h2>Pictures</h2>" not in page.read_text()
    with serving() as server:
        urls = [f"{server.base}/bytes/{i}" for i in range(4)] + [f"{server.base}/missing"]
        server.bodies = {str(i): body(i) for i in range(4)}
        nsfw = ["NSFW", None, None, None, None]
        columns = {"url": urls, "caption": list("abcde"), "nsfw": nsfw}
        pq.write_table(pa.table(columns), tmp_path / "s.parquet")
        for layout in ("tar", "folder"):
            how = Fetching(layout, side=128, robots=False, decode_workers=1)
            network = Network((server.server_port,), allow_loopback=True)
            fetch_sample(tmp_path / "s.parquet", tmp_path / layout, how, network=network)
    for layout in ("tar", "folder"):
        validate_pictures(tmp_path / layout, tmp_path / f"{layout}-valid")
        for folder in (layout, f"{layout}-valid"):
            out = tmp_path / f"{folder}.html"
            assert cli.main(["curate", "inspect", str(tmp_path / folder), "--out", str(out)]) == 0
            assert "4 samples, 4 looked at" in capsys.readouterr().out
            text = out.read_text()
            assert "http 404" in text and text.count("hidden (tagged unsafe)") == 1, folder


def test_histograms_hold_every_value():
    rng = np.random.default_rng(0)
    for values, log in (
        (rng.integers(1, 9, 50).tolist(), False),
        (rng.integers(1, 900, 50).tolist(), False),
        (rng.normal(size=50).tolist(), False),
        (np.exp(rng.normal(size=50) * 4).tolist(), True),
        ([0.0, 1e-12, 5e9], False),
    ):
        drawing = histogram("x", values, "px", log=log)
        counts = [
            int(c.replace(",", "")) for c in re.findall(r": ([\d,]+)</title></rect>", drawing)
        ]
        assert sum(counts) == len(values), values
        for place in re.findall(r' (?:x|y|width|height)="([^"]+)"', drawing):
            assert np.isfinite(float(place)) and float(place) >= -1
    assert "7 px, all of them" in histogram("x", [7, 7], "px") and histogram("x", [], "px") == ""
