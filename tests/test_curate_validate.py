"""Fetched pictures to one table: decoded, without copies, clean captions, splits that stay."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostile import serving
from pictures import encoded, pixels
from vislang.cli import main as cli
from vislang.curate.captions import clean_caption
from vislang.curate.copies import bands, near_copies
from vislang.curate.duplicates import differing_bits
from vislang.curate.fetch import Fetching, Network, fetch_sample
from vislang.curate.splits import split_of
from vislang.curate.validate import Validation, validate_pictures
from vislang.data.decode import decode_sample
from vislang.data.sources import open_source
from vislang.errors import UserError

HOW = Validation(shares={"train": 0.5, "test": 0.5})


def body(seed: int, height: int = 120, width: int = 150, **options) -> bytes:
    return encoded(pixels(seed, height, width), **options)


def rows() -> dict[str, list]:
    """Pictures with all that can be wrong with them: (bytes, captions, word, id)."""
    again = pixels(2, 120, 150)
    table = [
        (body(1), ["a cat"], ["cat"], "p1"),
        (body(2), ["a dog\x00 runs", "  "], ["dog"], "p2"),
        (body(1), ["a cat", "an animal"], ["animal"], "p3"),  # the bytes of the first
        (encoded(again, quality=60), ["the dog again"], ["dog"], "p4"),  # nearly the second
        (body(5, 100, 400), ["small"], ["x"], "p5"),  # 100 pixels high
        (body(6), ["\u200e\u202e \n"], ["y"], "p6"),  # nothing that can be seen
        (body(7), [], ["z"], "p7"),
        (body(8), ["w " * 900], ["w"], "p1"),  # an id that is there
        (b"<html>", ["gone"], ["g"], "p9"),
        *((body(20 + i), [f"picture {i}"], ["many"], f"q{i}") for i in range(8)),
    ]
    return {name: [row[i] for row in table] for i, name in enumerate(
        ("body", "captions", "words", "id"))}  # fmt: skip


@pytest.fixture(scope="module", params=["tar", "folder"])
def fetched(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    data = rows()
    with serving() as server:
        server.bodies = {str(i): one for i, one in enumerate(data.pop("body"))}
        data |= {"url": [f"{server.base}/bytes/{i}" for i in range(len(data["id"]))]}
        data |= {"licence": ["by"] * len(data["id"])}
        pq.write_table(pa.table(data), folder / "s.parquet")
        how = Fetching(request.param, side=128, shard=6, robots=False, decode_workers=1)
        network = Network((server.server_port,), allow_loopback=True)
        fetch_sample(folder / "s.parquet", folder / "pictures", how, network=network)
    return folder


def test_one_table_of_what_can_be_used(fetched):
    out = fetched / "valid"
    done = validate_pictures(fetched / "pictures", out, HOW)
    assert done["fetched"] == 16 and done["not_fetched"] == {"not an image": 1}
    assert done["kept"] == 11
    assert done["rejected"] == {"same bytes": 1, "near copy": 1, "too small": 1, "no caption": 2}
    assert done["captions"] == {
        "kept": 12, "control characters": 2, "empty": 3, "cut": 1,
    } | {k: v for k, v in done["captions"].items() if k == "repeated"}  # fmt: skip
    kept = {row["id"]: row for row in pq.read_table(out / "pictures.parquet").to_pylist()}
    assert list(kept)[:3] == ["p1", "p2", "p1#2"]
    assert kept["p1"]["captions"] == ["a cat", "an animal"]  # those of its copy too
    assert kept["p1"]["words"] == ["cat", "animal"] and kept["p1"]["licence"] == "by"
    assert kept["p2"]["captions"] == ["a dog runs"]
    assert kept["p1#2"]["captions"] == [" ".join(["w"] * 500)]
    assert kept["p1"]["width"] == 160 and kept["p1"]["original_width"] == 150
    assert "key" not in kept["p1"] and "status" not in kept["p1"]
    rejected = {row["id"]: row for row in pq.read_table(out / "rejected.parquet").to_pylist()}
    assert rejected["p3"]["reason"] == "same bytes" and rejected["p3"]["copy_of"] == "p1"
    assert rejected["p4"]["reason"] == "near copy" and rejected["p4"]["copy_of"] == "p2"
    assert rejected["p5"]["detail"] == "shorter side 100"
    assert json.loads((out / "validated.json").read_text())["splits"] == done["splits"]


def test_it_opens_as_a_source_by_split(fetched):
    out = fetched / "valid"
    done = validate_pictures(fetched / "pictures", out, HOW)
    source = open_source(f"table:{out}/pictures.parquet")
    assert len(source) == 11 and source[0].id in ("p1", "../pictures/000-all/00000/000000000.jpg")
    assert source[0].texts == ("a cat", "an animal") and source.gives == {"image", "text"}
    assert [decode_sample(source[i]).pixels.shape[0] for i in range(11)] == [128] * 11
    parts = {s: open_source(out / "pictures.parquet", split=s) for s in ("train", "test")}
    assert {name: len(part) for name, part in parts.items()} == done["splits"]
    texts = [part[i].texts for part in parts.values() for i in range(len(part))]
    assert sorted(texts) == sorted(source[i].texts for i in range(11))
    assert len({source.fingerprint, *(part.fingerprint for part in parts.values())}) == 3
    with pytest.raises(UserError, match=r"no rows with split 'trian'\. Did you mean 'train'"):
        open_source(f"table:{out}/pictures.parquet", split="trian")


def test_only_what_is_new_is_checked_again_and_settings_are_kept(fetched):
    pictures, out = fetched / "pictures", fetched / "again"
    seen = []
    first = validate_pictures(pictures, out, HOW, on_done=lambda unit, note: seen.append(unit))
    assert len(seen) == 3
    again = validate_pictures(pictures, out, replace(HOW, min_side=50, hash_bits=-1),
                              on_done=lambda unit, note: seen.append(unit))  # fmt: skip
    assert len(seen) == 3 and again["kept"] == first["kept"] + 2
    with pytest.raises(UserError, match=r"max_caption \(1000 -> 5\)"):
        validate_pictures(pictures, out, replace(HOW, max_caption=5))


def test_a_picture_that_was_damaged_is_a_row(fetched, tmp_path):
    import shutil

    shutil.copytree(fetched / "pictures", tmp_path / "pictures")
    for path in (*tmp_path.rglob("00001.tar"), *tmp_path.rglob("00001/*06.jpg")):
        path.write_bytes(path.read_bytes()[:2000])
    for path in tmp_path.rglob("00001/*07.jpg"):
        path.unlink()
    done = validate_pictures(tmp_path / "pictures", tmp_path / "out", HOW)
    bad = {k: v for k, v in done["rejected"].items() if k in
           ("truncated image", "missing file", "truncated container")}  # fmt: skip
    assert sum(bad.values()) >= 2, done
    assert done["kept"] + sum(done["rejected"].values()) == 16


def test_the_command(fetched, capsys, tmp_path):
    argv = ["curate", "validate", str(fetched / "pictures"), "--out", str(tmp_path / "v")]
    assert cli.main([*argv, "--shares", '{"train": 0.5, "test": 0.5}', "--hash_bits", "0"]) == 0
    told = capsys.readouterr().out
    assert "Kept 12 of 16 pictures" in told and "rejected, same bytes: 1" in told
    for flags, message in (
        (["--shares", '{"train": 0.5}'], "shares must add up to 1"),
        (["--split_by", "url"], "split_by must be one of"),
        (["--min_side", "0"], "min_side must be at least 1"),
    ):
        assert cli.main([*argv, *flags]) == 2
        assert message in capsys.readouterr().err
    assert cli.main(["curate", "validate", str(tmp_path), "--out", str(tmp_path / "x")]) == 2
    assert "vislang curate fetch" in capsys.readouterr().err


# -- parts ----------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 2**64 - 1), max_size=30), st.integers(-1, 12), st.data())
def test_near_copies_are_those_of_comparing_all_pairs(base, bits, data):
    hashes = list(base)
    for _ in range(data.draw(st.integers(0, 30)) if base else 0):
        flips = data.draw(st.lists(st.integers(0, 63), max_size=14))
        value = data.draw(st.sampled_from(hashes))
        for bit in flips:
            value ^= 1 << bit
        hashes.append(value)
    hashes = np.array(data.draw(st.permutations(hashes)), np.uint64)
    expected: list[int] = []
    for at, value in enumerate(hashes):
        kept = [i for i in range(at) if expected[i] < 0]
        near = [i for i in kept if differing_bits(hashes[i : i + 1], value[None])[0] <= bits]
        expected.append(near[0] if near else -1)
    assert near_copies(hashes, bits).tolist() == expected
    ends = bands(max(bits, 0))
    assert sum(width for _, width in ends) == 64 and ends[0][0] == 0


def test_many_equal_pictures_do_not_cost_all_their_pairs():
    hashes = np.zeros(200_000, np.uint64)
    assert (near_copies(hashes, 4)[1:] == 0).all()


@given(st.text(max_size=60), st.integers(1, 40))
def test_captions_are_clean_whatever_they_were(text, most):
    cleaned, done = clean_caption(text, most)
    assert clean_caption(cleaned, most) == (cleaned, set())
    assert len(cleaned) <= most and cleaned == " ".join(cleaned.split())
    cleaned.encode()
    if not done and text.isascii():
        assert cleaned == " ".join(text.split())


def test_right_to_left_and_emoji_stay_as_they_are():
    for text in ("שלום עולם", "صورة قطة", "👩‍👩‍👧 family", "می‌خواهم", "a\u0301".encode().decode()):
        assert clean_caption(text)[1] == set()
    assert clean_caption("x" * 10**6, 1000) == ("x" * 1000, {"cut"})


@given(st.lists(st.text(max_size=8), unique=True, max_size=20), st.text(max_size=5))
def test_a_split_never_changes_as_data_grow(keys, more):
    shares = {"train": 0.8, "valid": 0.1, "test": 0.1}
    assert [split_of(k, shares) for k in keys] == [split_of(k, shares) for k in [*keys, more]][:-1]


def test_shares_are_kept():
    counts = Counter(split_of(str(i), {"a": 0.7, "b": 0.3, "c": 0.0}) for i in range(20_000))
    assert counts["c"] == 0 and abs(counts["a"] / 20_000 - 0.7) < 0.01


def test_places_of_a_table_are_checked(tmp_path):
    table = {"image": ["no.tar"], "image_offset": [0], "image_size": [9], "caption": ["x"]}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"has no 'no.tar', which the table names first"):
        open_source(f"table:{tmp_path}/t.parquet")
    assert Path(tmp_path).is_dir()
