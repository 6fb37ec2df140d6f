"""Collections, shards, filters, streaming scores: bad input, engines, kills."""

import multiprocessing
import os
import signal
import threading
import time
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from curate_parts import add_part, embeddings
from loopback import running
from towers_cases import VECTORS
from vislang.cli import main as cli
from vislang.cli.curate.score import Pace
from vislang.curate.blocks import map_blocks
from vislang.curate.classifier import (
    DomainClassifier,
    load_classifier,
)
from vislang.curate.collections import open_collection
from vislang.curate.filters import Filters
from vislang.curate.score import Scoring, read_scoring, score_collection
from vislang.curate.shards import Pick, fetch_shards, pick_shards, share_out
from vislang.errors import UserError

SMALL = Scoring(k=20, block=64)


# -- collections, filters, shards -----------------------------------------------------------------


@pytest.fixture
def collection(tmp_path) -> Path:
    root = tmp_path / "collection"
    rows = embeddings(300)
    rows[40:60] = rows[40]  # equal scores
    rows[5], rows[6] = np.nan, 0
    add_part(root, "en", 0, rows, {"NSFW": ["UNLIKELY"] * 290 + ["NSFW"] * 5 + [None] * 5})
    add_part(root, "en", 3, embeddings(200, seed=1), {"caption": ["x"] * 199 + [" "]})
    add_part(root, "multi", 1, rows[:100])
    return root


def test_names_and_order_are_those_of_the_original(collection):
    found = open_collection(collection)
    assert [part.name for part in found.parts] == ["en-0000", "en-0003", "multi-0001"]
    assert len(found) == 600 and found.width == 16 and not found.bad
    keys = np.concatenate([found.keys(p, np.arange(p.shape[0])) for p in found.parts])
    assert (np.diff(keys) > 0).all()
    mixed = keys[[500, 3, 250, 4]]
    assert found.metadata(mixed, ["url"])["url"].to_pylist()[1].endswith("/3.jpg")
    np.testing.assert_array_equal(found.rows(mixed)[0], found.rows(keys)[500])


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda a: a.write_bytes(a.read_bytes()[:-7]), "is torn"),
        (lambda a: np.save(a, embeddings(200, 8)), "has width 8, but 16"),
        (lambda a: np.save(a, embeddings(150)), "150 rows, but metadata_0003.parquet has 200"),
        (lambda a: a.write_bytes(b"<html>404</html>"), "is not a .npy file"),
        (lambda a: np.save(a, np.array([{}], object), allow_pickle=True), "holds object"),
        (lambda a: np.save(a, np.zeros(200, np.float16)), "rows \\[n, D\\]"),
        (lambda a: a.unlink(), "no img_emb array"),
    ],
)
def test_a_bad_part_is_named_and_the_others_are_scored(collection, tmp_path, harm, reason):
    harm(collection / "en/img_emb/img_emb_0003.npy")
    found = open_collection(collection)
    assert list(found.bad) == ["en-0003"] and len(found.parts) == 2
    made = DomainClassifier("ab", 16).eval()
    with pytest.raises(UserError, match=f"1 parts cannot be used; all 2 others.*{reason}"):
        score_collection(found, made, tmp_path / "out", SMALL)
    done = score_collection(found, made, tmp_path / "out", SMALL, skip_bad=True)
    assert done["rows"] == 400 and list(done["left_out"]) == ["en-0003"]


def test_a_part_may_be_float32_and_its_table_torn(collection):
    np.save(collection / "multi/img_emb/img_emb_0001.npy", embeddings(100).astype(np.float32))
    table = collection / "en/en-metadata/metadata_0003.parquet"
    table.write_bytes(table.read_bytes()[:-9])
    found = open_collection(collection)
    assert "no whole Parquet file" in found.bad["en-0003"]
    assert [part.dtype for part in found.parts] == [np.float16, np.float32]


def test_no_collection(tmp_path):
    with pytest.raises(UserError, match=r"There is no folder s3://b/c[.] Fetch its shards first"):
        open_collection("s3://b/c")
    with pytest.raises(UserError, match="holds no img_emb_<number>"):
        open_collection(tmp_path)


def test_filters_look_at_the_columns_that_there_are(tmp_path):
    blocked, hashes = tmp_path / "urls.txt", tmp_path / "hashes.txt"
    blocked.write_text("# mine\nBAD.org\nhttp://a.org/4\n".lower())
    hashes.write_text("aa\n")
    table = pa.table({
        "url": ["http://a.org/1", "http://bad.org:80/x", "http://a.org/3", "http://a.org/4", "z"],
        "TEXT": ["a", "b", None, "d", "e"],
        "punsafe": [0.1, 0.2, 0.3, 0.9, None],
        "similarity": [0.3, -0.1, 0.3, 0.3, 0.3],
        "WIDTH": [300, 300, 300, 300, 10], "HEIGHT": ["300", "x", "300", "300", "300"],
        "opt_out": [False, False, False, True, None],
        "LANGUAGE": ["en", "de", "en", "en", "en"], "md5": ["aa", "b", "c", "d", "e"],
    })  # fmt: skip
    keep, refused = Filters().mask(table)
    assert keep.tolist() == [True, False, False, False, False]
    assert refused == {"nsfw": 2, "opted out": 1, "no caption": 1, "similarity": 1}
    off = Filters(nsfw=False, opt_out=False, caption=False, min_similarity=-1)
    for changes, expected in (
        ({}, [1, 1, 1, 1, 1]),
        ({"min_side": 100}, [1, 0, 1, 1, 0]),
        ({"languages": ("en",)}, [1, 0, 1, 1, 1]),
        ({"blocked_urls": str(blocked)}, [1, 0, 1, 0, 1]),
        ({"blocked_hashes": str(hashes)}, [0, 1, 1, 1, 1]),
    ):
        assert replace(off, **changes).mask(table)[0].tolist() == [bool(x) for x in expected]
    with pytest.raises(UserError, match="cannot be read"):
        replace(off, blocked_urls=str(tmp_path / "none")).mask(table)
    assert set(Filters().needed()) & {"url", "md5", "LANGUAGE"} == set()


class Broken(SimpleHTTPRequestHandler):
    """A file server that breaks off each large answer once, half-way, and knows ranges."""

    def __init__(self, *args, seen: set, **kwargs):
        self.seen = seen
        super().__init__(*args, **kwargs)

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            return self.send_error(404)
        data = path.read_bytes()
        start = int((self.headers.get("Range") or "bytes=0-")[6:].rstrip("-"))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        first = self.path not in self.seen
        self.seen.add(self.path)
        self.wfile.write(data[start : start + (len(data) // 2 if first else len(data))])
        return None

    def log_message(self, *args):
        pass


@pytest.fixture
def server(collection):
    seen: set = set()
    made = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Broken, seen=seen, directory=str(collection))
    )
    made.daemon_threads = True
    with running(made):
        yield f"http://127.0.0.1:{made.server_port}"


def test_shards_are_fetched_over_broken_connections(collection, server, tmp_path):
    picks = [Pick("en", 0), Pick("en", 3), Pick("multi", 1)]
    notes = fetch_shards(server, picks, tmp_path / "here", wait_s=0)
    assert [note["rows"] for note in notes.values()] == [300, 200, 100]
    here, there = open_collection(tmp_path / "here"), open_collection(collection)
    assert here.fingerprint_of() == there.fingerprint_of()
    for one, other in zip(here.parts, there.parts):
        assert one.array.read_bytes() == other.array.read_bytes()
    local = fetch_shards(str(collection), picks[:1], tmp_path / "local")
    assert local["en-0000"]["array"]["sha256"] == notes["en-0000"]["array"]["sha256"]
    with pytest.raises(UserError, match="made with other settings"):
        fetch_shards(server, picks, tmp_path / "local")
    with pytest.raises(UserError, match="answers 404"):
        fetch_shards(server, [Pick("en", 9)], tmp_path / "none")
    with pytest.raises(UserError, match="does not exist"):
        fetch_shards(str(collection), [Pick("en", 9)], tmp_path / "no")
    sums = {"en/img_emb/img_emb_0000.npy": "0" * 64}
    with pytest.raises(UserError, match="has the checksum"):
        fetch_shards(str(collection), picks[:1], tmp_path / "sum", checksums=sums)


def test_a_fetched_pair_that_does_not_join_is_fetched_again(collection, tmp_path):
    np.save(collection / "en/img_emb/img_emb_0003.npy", embeddings(150))
    with pytest.raises(UserError, match="not of the same part"):
        fetch_shards(str(collection), [Pick("en", 3)], tmp_path / "here")
    assert not list((tmp_path / "here").rglob("*.npy"))


def test_shares_of_groups_follow_their_sizes():
    groups = share_out({"en": 2314, "multi": 2267, "nolang": 1273}, 250)
    assert sum(take for _, take, _ in groups.values()) == 250
    with pytest.raises(UserError, match="5 of 3 files"):
        pick_shards({"a": (3, 5, 0)})
    with pytest.raises(UserError, match="Did you mean 'laion5b'"):
        fetch_shards("x", [], "y", pattern="laion5B")


# -- scoring --------------------------------------------------------------------------------------


def expected(collection, made, how) -> dict[str, list[str]]:
    """The best images by name, with everything in memory and the original's rule for ties."""
    names, scores, allowed = [], [], []
    for part in collection.parts:
        with torch.no_grad():
            x = torch.from_numpy(np.load(part.array).astype(np.float32))
            scores.append(made.log_probs(x).numpy())
        names += [part.row_id(row) for row in range(part.shape[0])]
        allowed.append(how.filters.mask(part.columns())[0])
    scores, allowed = np.concatenate(scores), np.concatenate(allowed)
    good = np.flatnonzero(allowed & np.isfinite(scores).all(1))
    return {
        domain: [name for _, name in sorted(
            ((scores[i, c], names[i]) for i in good), reverse=True)[: how.k]]
        for c, domain in enumerate(made.names)
    }  # fmt: skip


def best_names(out: Path) -> dict[str, list[str]]:
    table = pq.read_table(out / "top.parquet").to_pylist()
    found: dict[str, list[str]] = {}
    for row in table:
        assert row["rank"] == len(found.setdefault(row["domain"], []))
        found[row["domain"]].append(f"{row['part']}-{row['row']:09d}.jpg")
    return found


@pytest.mark.parametrize("k", [1, 30, 10_000])
def test_scores_ties_filters_and_nan(collection, tmp_path, k):
    found, made = open_collection(collection), DomainClassifier("abc", 16).eval()
    # Rows are scored one at a time, so that equal rows have equal scores in both ways.
    how = Scoring(k=k, block=50, full="float32")
    done = score_collection(found, made, tmp_path / "out", how)
    assert done["rows"] == 600 and done["refused"] == 4
    assert done["filtered"] == {"nsfw": 10, "no caption": 1}
    assert best_names(tmp_path / "out") == expected(found, made, how)
    full = np.load(tmp_path / "out/log_probs/en-0003.npy")
    assert full.shape == (200, 3) and full.dtype == np.float32
    assert np.isnan(np.load(tmp_path / "out/log_probs/en-0000.npy")[5]).all()
    assert read_scoring(tmp_path / "out") == done


def test_engines_and_resuming_give_the_same_bytes(collection, tmp_path):
    found, made = open_collection(collection), DomainClassifier("ab", 16).eval()
    score_collection(found, made, tmp_path / "serial", SMALL)
    score_collection(found, made, tmp_path / "two", SMALL, engine="processes", workers=2)
    want = (tmp_path / "serial/top.parquet").read_bytes()
    assert (tmp_path / "two/top.parquet").read_bytes() == want
    (tmp_path / "two/units/multi-0001.json").unlink()
    (tmp_path / "two/top.parquet").unlink()
    rows = []
    score_collection(found, made, tmp_path / "two", SMALL, on_rows=lambda n, b: rows.append(n))
    assert (tmp_path / "two/top.parquet").read_bytes() == want and sum(rows) == 100
    with pytest.raises(UserError, match=r"other settings: how\.k"):
        score_collection(found, made, tmp_path / "two", replace(SMALL, k=5))


def test_scoring_refuses_what_does_not_fit(collection, tmp_path):
    found = open_collection(collection)
    with pytest.raises(UserError, match="width 16, the classifier reads 8"):
        score_collection(found, DomainClassifier("ab", 8), tmp_path, SMALL)
    with pytest.raises(UserError, match="full must be"):
        score_collection(found, DomainClassifier("ab", 16), tmp_path, replace(SMALL, full="int8"))
    with pytest.raises(UserError, match="no finished scoring"):
        read_scoring(tmp_path)


@pytest.mark.parametrize("how", ["cached", "past the cache", "cannot"])
def test_blocks_are_the_file(how, tmp_path, monkeypatch):
    """Also where the file system has no reads past its cache."""
    if how == "cannot":
        monkeypatch.delattr(os, "O_DIRECT")
    rows, past = embeddings(1003, 8), {"past_cache": how != "cached"}
    np.save(tmp_path / "a.npy", rows)
    whole = lambda tiles: np.concatenate([tile.copy() for tile in tiles])  # noqa: E731

    def first_is_slowest(tiles):
        found = whole(tiles)
        time.sleep(0.02 if (found[0] == rows[0]).all() else 0)
        return found

    for threads, tile in ((1, 100), (3, 40), (2, 1)):
        how = {"tile": tile, "threads": threads, **past}
        read = list(map_blocks(tmp_path / "a.npy", first_is_slowest, 100, **how))
        assert [first for first, _ in read] == list(range(0, 1003, 100))
        np.testing.assert_array_equal(np.concatenate([block for _, block in read]), rows)
        for _ in map_blocks(tmp_path / "a.npy", whole, 100, **how):
            break  # the threads end with the loop
        with pytest.raises(ZeroDivisionError):
            list(map_blocks(tmp_path / "a.npy", lambda tiles: 1 / 0, 100, **how))
        threads_left = [t.name for t in threading.enumerate()]
        assert not [name for name in threads_left if name.startswith(("blocks", "reading"))]
    blocks = map_blocks(tmp_path / "a.npy", whole, 10, **past)
    next(blocks)
    with (tmp_path / "a.npy").open("r+b") as file:
        file.truncate(12_345)
    with pytest.raises(UserError, match="it ended early"):
        list(blocks)
    np.save(tmp_path / "b.npy", rows[:0])
    assert not list(map_blocks(tmp_path / "b.npy", whole, **past))


def _score_slowly(root: Path, classifier: Path, out: Path) -> None:
    slow = lambda rows, size: time.sleep(0.004)  # noqa: E731
    how = Scoring(k=20, block=16, full="float32")
    score_collection(open_collection(root), load_classifier(classifier), out, how, on_rows=slow)


def test_killed_20_times_at_random_moments_the_result_is_the_same(collection, tmp_path):
    made = DomainClassifier("ab", 16).eval()
    made.save(tmp_path / "classifier")
    how = Scoring(k=20, block=16, full="float32")
    score_collection(open_collection(collection), made, tmp_path / "whole", how)
    rng, fork, killed = np.random.default_rng(0), multiprocessing.get_context("fork"), 0
    for turn in range(20):
        out = tmp_path / f"cut-{turn // 5}"  # five kills each, at any stage of the work
        child = fork.Process(target=_score_slowly, args=(collection, tmp_path / "classifier", out))
        child.start()
        child.join(rng.uniform(0.0, 0.2))
        child.kill()
        child.join()
        killed += child.exitcode == -signal.SIGKILL
    assert killed >= 10
    for turn in range(4):
        _score_slowly(collection, tmp_path / "classifier", tmp_path / f"cut-{turn}")
        for name in ("top.parquet", "log_probs/en-0003.npy", "scoring.json"):
            cut, whole = tmp_path / f"cut-{turn}" / name, tmp_path / "whole" / name
            assert cut.read_bytes() == whole.read_bytes()


def test_pace_says_rows_bytes_and_time_left():
    pace = Pace(1000)
    pace.rows, pace.bytes = 250, 5_000_000_000
    assert pace.line(5.0) == "250 of 1,000 rows, 50 rows/s, 1.00 GB/s, 15 s left"


def test_the_commands_from_sentences_to_the_best_rows(collection, tmp_path, capsys):
    words = tmp_path / "words.txt"
    words.write_text("red bird\ntwo cats\nthree dogs\nhill\n")
    out = str(tmp_path / "classifier")
    argv = ["curate", "classifier", f"words:{VECTORS}", "--out", out, "--words", str(words),
            "--domains", "blur,foggy,dim", "--epochs", "2"]  # fmt: skip
    assert cli.main(argv) == 0
    said = capsys.readouterr()
    assert "blur and foggy share all" in said.err and "4 domains" in said.out
    assert "Domain classifier" in (tmp_path / "classifier/report.html").read_text()
    width = load_classifier(out).width
    root = tmp_path / "fitting"
    add_part(root, "en", 0, embeddings(50, width))
    argv = ["curate", "score", str(root), "--classifier", out, "--out", str(tmp_path / "s"),
            "--k", "5"]  # fmt: skip
    assert cli.main(argv) == 0
    assert "Scored 50 rows in 1 parts" in capsys.readouterr().out
    assert cli.main(["curate", "shards", "http://x", "--out", "y", "--only_list", "true"]) == 0
    assert "laion2B-en-1577" in capsys.readouterr().out
