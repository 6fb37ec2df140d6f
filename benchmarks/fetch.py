"""Fetching 2,000 real JPEGs from a loopback server of which 5 % of the answers are hostile.

    VISLANG_TEST_DATA=... python benchmarks/fetch.py [--pictures 2000]

The server is that of tests/hostile.py with pictures of Flickr8k.  Good pictures a second, peak
memory, and violations: connections that a hostile answer brought about elsewhere (a second server
that nobody may ask stands for the private network).  Reference: img2dataset, where it is installed,
in a child process on the same list.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
BAD = ("missing.jpg", "html.jpg", "short.jpg", "endless.jpg", "bomb.jpg", "to/inside", "header.jpg",
       "promise.jpg", "loop.jpg", "pixels.png")  # fmt: skip


def pictures(count: int) -> list[bytes]:
    """JPEGs of Flickr8k."""
    root = os.environ.get("VISLANG_TEST_DATA")
    if not root:
        raise SystemExit("set VISLANG_TEST_DATA to the folder with flickr8k")
    with zipfile.ZipFile(Path(root) / "flickr8k" / "images_224_sample.zip") as archive:
        names = [n for n in archive.namelist() if n.endswith(".jpg")]
        return [archive.read(names[i % len(names)]) for i in range(min(count, len(names)))]


def theirs(table: Path, out: Path) -> float | None:
    """Good pictures a second of img2dataset, or None."""
    from vislang.curate.fetch.img2dataset import fetch_with_img2dataset
    from vislang.curate.fetch.job import Fetching
    from vislang.errors import UserError

    began = time.perf_counter()
    try:
        fetch_with_img2dataset(table, out, Fetching())
    except UserError:
        return None
    import tarfile

    good = 0
    for path in out.rglob("*.tar"):
        with tarfile.open(path) as tar:
            good += sum(name.endswith(".jpg") for name in tar.getnames())
    return good / (time.perf_counter() - began)


def main() -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=2000)
    given = parser.parse_args()
    import pyarrow as pa
    import pyarrow.parquet as pq

    import hostile
    from vislang.curate.fetch import Caps, Fetching, Network, fetch_sample

    data = pictures(given.pictures)

    def good(self: Any) -> None:
        number = int("".join(c for c in self.path if c.isdigit()) or 0)
        self.send(data[number % len(data)])

    hostile.Hostile.do_good = good  # type: ignore[method-assign]
    with (
        hostile.serving() as server,
        hostile.serving() as inside,
        tempfile.TemporaryDirectory() as t,
    ):
        server.targets["inside"] = f"{inside.base}/private/1.jpg"
        urls = [
            f"{server.base}/{BAD[i // 20 % len(BAD)]}" if i % 20 == 7
            else f"{server.base}/good/{i}.jpg"
            for i in range(given.pictures)
        ]  # fmt: skip
        table = Path(t) / "sample.parquet"
        pq.write_table(pa.table({"url": urls, "caption": ["x"] * len(urls)}), table)
        how = Fetching(shard=500, per_host=32, caps=Caps(seconds=5))
        # The port of the second server is not among those allowed, as a private host would be.
        network = Network(ports=(server.server_port,), allow_loopback=True)
        began = time.perf_counter()
        done = fetch_sample(table, Path(t) / "ours", how, network=network)
        seconds = time.perf_counter() - began
        violations = sum(inside.asked.values())
        expected = sum("/good/" in url for url in urls)
        assert done["status"]["ok"] == expected, done["status"]
        reference = theirs(table, Path(t) / "theirs")
    rate = expected / seconds
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    row = {"case": f"{given.pictures:,} URLs, 5 % hostile", "value": rate, "unit": "good images/s",
           "peak_mib": round(peak), "violations": violations}  # fmt: skip
    if reference:
        row |= {"reference": reference, "reference_is": "img2dataset", "ratio": rate / reference}
    return [
        row,
        {"case": "connections to what nobody may ask", "value": violations, "unit": "requests",
         "target": "0", "met": violations == 0},
    ]  # fmt: skip


if __name__ == "__main__":
    for row in main():
        print(row)
