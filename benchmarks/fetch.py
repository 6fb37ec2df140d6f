"""Fetching real JPEGs from a loopback server, clean and with 10 % hostile answers.

    VISLANG_TEST_DATA=... python benchmarks/fetch.py [--pictures 10000]
    VISLANG_IMG2DATASET=/some/venv/bin/python ...     the peer, in an environment of its own

The server is that of tests/hostile.py, in a process of its own, with pictures of Flickr8k enlarged
to 640 pixels, as a search engine's small rendition is.  Good pictures a second, peak memory of the
whole tree of processes, share of the machine's cores that were busy, and violations: requests that
a hostile answer brought about at a second server that nobody may ask, which stands for the private
network.  Both write 224-pixel JPEGs into tars; the gate: every good picture is there.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

from memory import Peak, held_by_tree

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
BAD = ("missing.jpg", "html.jpg", "short.jpg", "endless.jpg", "bomb.jpg", "to/inside", "header.jpg",
       "promise.jpg", "loop.jpg", "pixels.png", "drip.jpg", "svg.jpg")  # fmt: skip
DISTINCT, SIDE, SECONDS, THREADS = 200, 640, 4, 32
PATIENCE_S = 900  # with one run of the peer
PEER = """
import json, sys, time
from img2dataset import download
given = json.loads(sys.argv[1])
began = time.perf_counter()
download(url_list=given["table"], input_format="parquet", url_col="url", caption_col="caption",
         output_folder=given["out"], output_format="webdataset", image_size=224,
         resize_mode="keep_ratio", encode_quality=95, number_sample_per_shard=500,
         processes_count=given["processes"], thread_count=given["threads"],
         timeout=given["seconds"], enable_wandb=False, compute_hash="sha256",
         disallowed_header_directives=["noai"])
print("seconds", time.perf_counter() - began)
"""


def pictures(count: int) -> list[bytes]:
    """JPEGs of Flickr8k, enlarged."""
    from PIL import Image

    root = os.environ.get("VISLANG_TEST_DATA")
    if not root:
        raise SystemExit("set VISLANG_TEST_DATA to the folder with flickr8k")
    made = []
    with zipfile.ZipFile(Path(root) / "flickr8k" / "images_224_sample.zip") as archive:
        for name in [n for n in archive.namelist() if n.endswith(".jpg")][:count]:
            with Image.open(io.BytesIO(archive.read(name))) as image:
                height = round(SIDE * image.height / image.width)
                out = io.BytesIO()
                image.resize((SIDE, height), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
                made.append(out.getvalue())
    return made


def serve(pipe: Any, data: list[bytes]) -> None:
    """Both servers, until something is said; then how often the inner one was asked."""
    import hostile  # pyright: ignore[reportMissingImports]

    def good(self: Any) -> None:
        number = int("".join(c for c in self.path if c.isdigit()) or 0)
        self.send(data[number % len(data)])

    hostile.Hostile.do_good = good  # type: ignore[method-assign]
    with hostile.serving() as server, hostile.serving() as inside:
        server.targets["inside"] = f"{inside.base}/private/1.jpg"
        pipe.send((server.server_port, inside.server_port))
        while pipe.recv() is not None:
            pipe.send(sum(inside.asked.values()))
            inside.asked.clear()


class Watch:
    """Peak memory of this process's tree and the share of the machine's cores that were busy."""

    def __init__(self, left_out: int) -> None:
        self._memory = Peak(partial(held_by_tree, left_out), every=0.2)

    def __enter__(self) -> "Watch":
        self._busy, self._began = _busy(), time.perf_counter()
        self._memory.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._began
        self.busy = (_busy() - self._busy) / self.seconds / len(os.sched_getaffinity(0))
        self._memory.__exit__()
        self.peak = self._memory.bytes


def _busy() -> float:
    """Seconds that all cores were busy, by this and by everything else."""
    fields = list(map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:]))
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def ours(table: Path, out: Path, ports: tuple[int, int]) -> None:
    """Fetch as a user would; only the address is one that a user could not ask for."""
    from vislang.curate.fetch import Caps, Fetching, Network, fetch_sample

    how = Fetching(shard=500, per_host=THREADS, threads=THREADS, caps=Caps(seconds=SECONDS))
    # The port of the second server is not among those allowed, as a private host would be.
    fetch_sample(table, out, how, network=Network(ports=ports[:1], allow_loopback=True))


def theirs(table: Path, out: Path, peer: str) -> float | None:
    """img2dataset in a process of its own; seconds of its work, without its imports."""
    given = {"table": str(table), "out": str(out), "processes": len(os.sched_getaffinity(0)),
             "threads": THREADS, "seconds": SECONDS}  # fmt: skip
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen([peer, "-c", PEER, json.dumps(given)], stdout=said, stderr=said,
                                 start_new_session=True)  # fmt: skip
        try:
            child.wait(PATIENCE_S)  # what it has by then counts, and the time that it took
        except subprocess.TimeoutExpired:
            print(f"img2dataset was stopped after {PATIENCE_S} s")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        said.seek(0)
        text = said.read().decode("utf-8", "replace")
        if child.returncode > 0:
            raise SystemExit(text[-2000:])
        found = re.findall(r"^seconds ([0-9.]+)$", text, re.M)
        return float(found[-1]) if found else None


def good_in(out: Path) -> int:
    """Pictures in the tars below a folder."""
    count = 0
    for path in out.rglob("*.tar"):
        with tarfile.open(path) as tar:
            count += sum(name.endswith(".jpg") for name in tar.getnames())
    return count


def measured(run: Any, table: Path, out: Path, server: Any, pipe: Any, *more: Any) -> dict:
    """One run: good pictures, seconds, memory, share of busy cores, violations."""
    shutil.rmtree(out, ignore_errors=True)
    before = sum(os.times()[:4])  # of this process and of children that have ended
    with Watch(server.pid) as watch:
        seconds = run(table, out, *more)
    pipe.send("asked")
    used = sum(os.times()[:4]) - before
    return {"good": good_in(out), "cpu": used, "seconds": seconds or watch.seconds,
            "peak": watch.peak / 2**20,
            "busy": watch.busy, "violations": pipe.recv()}  # fmt: skip


def main() -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=1, help="runs of each, in turn")
    given = parser.parse_args()
    import pyarrow as pa
    import pyarrow.parquet as pq

    import vislang.curate.fetch.job  # noqa: F401  imports are not part of what is measured

    data = pictures(DISTINCT)
    pipe, other = multiprocessing.Pipe()
    server = multiprocessing.get_context("fork").Process(
        target=serve, args=(other, data), daemon=True
    )
    server.start()
    ports = pipe.recv()
    peer = os.environ.get("VISLANG_IMG2DATASET")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, every in (("clean", 0), ("10 % hostile", 10)):
            urls = [
                f"http://127.0.0.1:{ports[0]}/" + (BAD[i // every % len(BAD)] if every
                and i % every == 7 else f"good/{i}.jpg")
                for i in range(given.pictures)
            ]  # fmt: skip
            table = Path(folder) / "sample.parquet"
            pq.write_table(pa.table({"url": urls, "caption": ["x"] * len(urls)}), table)
            expected = sum("/good/" in url for url in urls)
            out = Path(folder) / "out"
            runs: dict[str, list[dict]] = {"ours": [], "theirs": []}
            for _ in range(given.repeats):
                runs["ours"].append(measured(ours, table, out, server, pipe, ports))
                assert runs["ours"][-1]["good"] == expected, runs["ours"]
                if peer:
                    runs["theirs"].append(measured(theirs, table, out, server, pipe, peer))
            rows += lines(f"{given.pictures:,} URLs, {name}", runs)
    pipe.send(None)
    server.join(5)
    return rows


def lines(case: str, runs: dict[str, list[dict]]) -> list[dict[str, Any]]:
    """Rows of the table; of several runs the middle one by speed."""
    rate = lambda run: run["good"] / run["seconds"]  # noqa: E731
    mine = sorted(runs["ours"], key=rate)[len(runs["ours"]) // 2]
    peer = sorted(runs["theirs"], key=rate)[len(runs["theirs"]) // 2] if runs["theirs"] else None
    about = {"reference_is": "img2dataset"} if peer else {}
    speed: dict[str, Any] = {"case": case, "value": round(rate(mine), 1), "unit": "good images/s"}
    memory: dict[str, Any] = {"case": f"{case}: memory", "value": round(mine["peak"]),
                              "unit": "MiB"}  # fmt: skip
    wrong = {"case": f"{case}: what nobody may ask", "value": mine["violations"],
             "unit": "requests", "target": "0", "met": mine["violations"] == 0}  # fmt: skip
    cost = lambda run: round(1000 * run["cpu"] / max(1, run["good"]), 2)  # noqa: E731
    cpu: dict[str, Any] = {"case": f"{case}: computing", "value": cost(mine),
                           "unit": "CPU seconds a 1,000 good images"}  # fmt: skip
    busy = {"case": f"{case}: cores busy, server included", "value": round(mine["busy"], 3),
            "unit": "share", "target": ">= 0.9", "met": mine["busy"] >= 0.9}  # fmt: skip
    if peer:
        ratio = rate(mine) / rate(peer)
        speed |= {"reference": round(rate(peer), 1), "ratio": round(ratio, 3), "target": ">= 1.0"}
        speed |= {"met": ratio >= 1, "good": mine["good"], "reference_good": peer["good"]}
        cpu |= {"reference": cost(peer), "ratio": round(cost(peer) / cost(mine), 3)}
        memory |= {"reference": round(peer["peak"])}
        wrong |= {"reference": peer["violations"]}
        busy |= {"reference": round(peer["busy"], 3)}
    return [row | about for row in (speed, cpu, memory, wrong, busy)]


if __name__ == "__main__":
    for row in main():
        print(row)
