"""Pictures side by side: packing, hidden tiles, bad input."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hostile import serving
from vislang.cli import main as cli
from vislang.curate.collage import GAP, HEIGHT, WIDTH, Collage, draw_collages, pack
from vislang.curate.fetch import Fetching, Network, fetch_sample
from vislang.errors import UserError


@pytest.fixture(scope="module", params=["tar", "folder"])
def fetched(request, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("fetched")
    with serving() as server:
        table = {
            "url": [f"{server.base}/good/{i}.jpg" for i in range(5)],
            "caption": [f"picture {i} \u2603" for i in range(5)],
            "nsfw": ["UNLIKELY", "NSFW", None, "UNLIKELY", "UNSURE"],
            "domain": ["dim"] * 3 + ["cifar/fog/4"] * 2,
        }
        pq.write_table(pa.table(table), root / "s.parquet")
        how = Fetching(layout=request.param, side=32, shard=2, threads=2, robots=False)
        network = Network(ports=(server.server_port,), allow_loopback=True)
        fetch_sample(root / "s.parquet", root / "out", how, network=network)
    return root / "out"


def grey(path: Path) -> float:
    with Image.open(path) as image:
        assert image.width == WIDTH
        return float((np.asarray(image) == 190).all(axis=2).mean())


def test_a_collage_a_domain_hides_what_is_tagged(fetched, tmp_path):
    made = draw_collages(fetched, tmp_path)
    assert {name: path.name for name, path in made.items()} == {
        "cifar/fog/4": "cifar-fog-4.png", "dim": "dim.png"}  # fmt: skip
    hidden = grey(made["dim"])
    shown = draw_collages(fetched, tmp_path / "all", Collage(nsfw=True), "dim")
    assert list(shown) == ["dim"] and hidden > 0.1 > grey(shown["dim"])


def test_packing_breaks_lines_and_stops():
    tiles = [Image.new("RGB", (500, HEIGHT), "red") for _ in range(20)]
    assert pack(tiles, 2).size == (WIDTH, 2 * HEIGHT + GAP)
    assert pack(tiles[:3], 8).size == (WIDTH, HEIGHT)
    assert pack([], 8).size == (WIDTH, HEIGHT)


def test_the_command_and_bad_input(fetched, tmp_path, capsys):
    argv = ["curate", "collage", str(fetched), "--out", str(tmp_path / "c")]
    assert cli.main(argv) == 0
    page = (tmp_path / "c/report.html").read_text()
    assert page.count("data:image/jpeg;base64") == 2 and "What became of the URLs" in page
    assert cli.main([*argv, "--domain", "dimm"]) == 2
    assert "Did you mean 'dim'" in capsys.readouterr().err
    with pytest.raises(UserError, match="no fetched pictures"):
        draw_collages(tmp_path / "none", tmp_path)
