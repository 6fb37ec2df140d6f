"""From a source to a table of pairs: rules, counts, bad input, the original's file, the page."""

import json
from pathlib import Path

import numpy as np
import pytest

from layouts import add_csv, add_files, picture
from towers_cases import VECTORS
from vislang.cli import main as cli
from vislang.curate import find_neighbours, read_original, write_original
from vislang.curate.duplicates import differing_bits, perceptual_hash
from vislang.data.decode import decode
from vislang.data.pairs import PairTable, check_made_for, read_pairs
from vislang.data.sources import open_source
from vislang.errors import UserError
from vislang.store import open_store

WORDS = f"words:{VECTORS}"
CAPTIONS = {
    "birds_2019_000001/a": "a red bird",
    "birds_2019_000001/b": "A  red bird",
    "birds_2020_000001/c": "the bird on a hill",
    "cats_2019_000001/d": "two cats",
    "cats_2020_000001/e": "two cats and a dog",
    "cats_2020_000001/f": "qwerty asdf",  # no known word
    "cats_2020_000001/g": " ",
    "dogs_2020_000001/h": "three dogs",
}


@pytest.fixture
def redcaps(tmp_path) -> Path:
    files = {}
    for number, (id_, caption) in enumerate(CAPTIONS.items()):
        shown = 0 if id_.endswith(("a", "c")) else number  # a and c show the same picture
        files |= {f"{id_}.jpg": picture(shown), f"{id_}.json": json.dumps({"caption": caption})}
    return add_files(tmp_path / "redcaps", files)


def pairs_of(table, source) -> dict[str, list[str]]:
    names = lambda i: source[int(i)].id.rpartition("/")[2]  # noqa: E731
    found: dict[str, list[str]] = {}
    for s, t in zip(table.source, table.target):
        found.setdefault(names(s), []).append(names(t))
    return found


def neighbours(root, folder, **rules):
    source = open_source(str(root))
    table = find_neighbours(source, WORDS, folder, device="cpu", precision="fp32", **rules)
    return pairs_of(table, source), table


def test_nearest_captions_are_found_and_what_is_left_out_is_counted(redcaps, tmp_path):
    found, table = neighbours(redcaps, tmp_path / "nn")
    assert found["a"] == ["b"] and found["b"] == ["a"]  # another sample with the same caption
    assert found["e"] == ["d"] and "f" not in found and "g" not in found
    assert table.about["dropped"] == {"no caption": 1, "zero embedding": 1}
    assert table.about["counts"]["samples"] == 6
    rows = open_store(tmp_path / "nn" / "embeddings").text
    x = np.asarray(rows) / np.maximum(np.linalg.norm(rows, axis=1), 1e-12)[:, None]
    assert table.similarity[0] == pytest.approx(float(x[0] @ x[1]), abs=1e-6)
    manifest = json.loads((tmp_path / "nn" / "manifest.json").read_text())
    assert manifest["source"]["fingerprint"] == open_source(str(redcaps)).fingerprint
    again = read_pairs(tmp_path / "nn")
    assert again.about["counts"] == table.about["counts"]
    assert (again.target == table.target).all() and again.rank.dtype == np.int16


def test_rules(redcaps, tmp_path):
    by = {
        "distinct_captions": neighbours(redcaps, tmp_path / "1", distinct_captions=True)[0],
        "hash": neighbours(redcaps, tmp_path / "2", hash_bits=6, k=5)[0],
        "year": neighbours(redcaps, tmp_path / "3", scope=("year",))[0],
        "both": neighbours(redcaps, tmp_path / "4", scope=("subreddit", "year")),
        "mutual": neighbours(redcaps, tmp_path / "5", mutual=True)[0],
        "k": neighbours(redcaps, tmp_path / "6", k=3)[0],
    }
    assert by["distinct_captions"]["a"] == ["d"]  # case and spaces aside, b says the same
    assert "c" not in by["hash"]["a"] and "b" in by["hash"]["a"]
    assert by["year"]["c"][0] in "eh"
    found, table = by["both"]
    assert found == {"a": ["b"], "b": ["a"]}
    assert table.about["dropped"]["alone in its scope"] == 4  # scopes of one member
    assert all(s in by["mutual"][t] for s, ts in by["mutual"].items() for t in ts)
    assert len(by["k"]["a"]) == 3


def test_authors_apart(redcaps, tmp_path):
    rows = [["id", "author"], *([id_, "xxyzzzzz"[i]] for i, id_ in enumerate(CAPTIONS))]
    table = str(add_csv(tmp_path / "authors.csv", rows))
    found, _ = neighbours(redcaps, tmp_path / "nn", apart=("author",), columns=table)
    assert found["a"] == ["d"]  # b has the same author


def test_pictures_that_a_model_finds_alike_are_left_out(redcaps, tmp_path):
    rules = {"image_model": "timm:test_vit?image_size=32", "image_cosine": 0.9999, "k": 5}
    with pytest.raises(UserError, match="go together"):
        neighbours(redcaps, tmp_path / "x", image_cosine=0.9)
    from vislang.config import ModelConfig, TowerConfig
    from vislang.models.build import build_model
    from vislang.models.pretrained import load_model, save_model

    options = {"image_size": 16, "patch": 8, "width": 16, "depth": 1, "heads": 2}
    config = ModelConfig(TowerConfig("scratch_vit", options), TowerConfig(name=""), 16)
    save_model(build_model(config), config, tmp_path / "model")
    assert load_model(tmp_path / "model").image is not None
    found, _ = neighbours(
        redcaps, tmp_path / "nn", **rules | {"image_model": str(tmp_path / "model")}
    )
    assert "c" not in found["a"] and "b" in found["a"]


def test_bad_input(redcaps, tmp_path):
    with pytest.raises(UserError, match="k must be at least 1"):
        neighbours(redcaps, tmp_path / "nn", k=0)
    with pytest.raises(UserError, match="threshold is a cosine"):
        neighbours(redcaps, tmp_path / "nn", threshold=1.5)
    with pytest.raises(UserError, match="by must be one of caption, image, features"):
        neighbours(redcaps, tmp_path / "nn", by="captoin")
    neighbours(redcaps, tmp_path / "nn")
    with pytest.raises(UserError, match=r"other settings: rules.k \(1 -> 2\)"):
        neighbours(redcaps, tmp_path / "nn", k=2)
    with pytest.raises(UserError, match=r"No pair is left of 6 samples.*alone in its scope: 6"):
        own = [["id", "own"], *([id_, id_] for id_ in CAPTIONS)]
        columns = str(add_csv(tmp_path / "c.csv", own))
        neighbours(redcaps, tmp_path / "one", scope=("folder", "own"), columns=columns)
    files = {"x_2019_000001/a.jpg": picture(0), "x_2019_000001/a.json": '{"caption": "a bird"}'}
    one = add_files(tmp_path / "one-scope", files)
    with pytest.raises(UserError, match="No pair is left of 1 samples"):
        neighbours(one, tmp_path / "nn1")


def test_mean_of_several_captions(tmp_path):
    rows = [["image", "caption"], ["1.jpg", "a bird"], ["1.jpg", "the dog"], ["2.jpg", "a bird"],
            ["3.jpg", "the dog"], ["3.jpg", "a bird"]]  # fmt: skip
    add_files(tmp_path / "images", {f"{i}.jpg": picture(i) for i in (1, 2, 3)})
    source = open_source(
        str(add_csv(tmp_path / "t.csv", rows)), images_root=str(tmp_path / "images")
    )
    first = find_neighbours(source, WORDS, tmp_path / "a", device="cpu", precision="fp32")
    mean = find_neighbours(
        source, WORDS, tmp_path / "b", device="cpu", precision="fp32", captions="mean"
    )
    assert pairs_of(first, source)["1.jpg"] == ["2.jpg"]
    assert pairs_of(mean, source)["1.jpg"] == ["3.jpg"]


def test_the_originals_file_there_and_back(redcaps, tmp_path):
    source = open_source(str(redcaps))
    _, table = neighbours(redcaps, tmp_path / "nn")
    write_original(table, source, tmp_path / "nn.json")
    entries = json.loads((tmp_path / "nn.json").read_text())
    assert entries[0][:2] == [["birds_2019_000001", "a"], ["birds_2019_000001", "b"]]
    assert len(entries) == 6 and isinstance(entries[0][2], float)
    back = read_original(tmp_path / "nn.json", source)
    for name in ("source", "target", "rank"):
        assert (getattr(back, name) == getattr(table, name)).all()
    np.testing.assert_allclose(back.similarity, table.similarity)
    entries.append([["no", "x"], ["no", "y"], 0.5])
    (tmp_path / "more.json").write_text(json.dumps(entries))
    assert read_original(tmp_path / "more.json", source).about["dropped"] == {
        "not in the source": 1
    }
    for text, said in (
        ("[[1, 2]]", "entry 0 is not"),
        ('[[["a", "b"], ["c", "d"], 1]]', "names no"),
    ):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(UserError, match=said):
            read_original(tmp_path / "bad.json", source)


def test_a_table_for_another_revision_is_refused(redcaps, tmp_path):
    _, table = neighbours(redcaps, tmp_path / "nn")
    add_files(redcaps, {"birds_2019_000001/z.jpg": picture(3)})
    changed = open_source(str(redcaps))
    with pytest.raises(UserError, match="another revision of its source"):
        check_made_for(table, changed, "nn")
    with pytest.raises(UserError, match="another revision"):
        write_original(table, changed, tmp_path / "x.json")


def test_torn_foreign_and_missing_tables(tmp_path):
    with pytest.raises(UserError, match="There is no pair table"):
        read_pairs(tmp_path / "no.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(UserError, match="no whole Parquet file"):
        read_pairs(tmp_path / "torn.parquet")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"source": [1]}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match="is no pair table: its columns are source"):
        read_pairs(tmp_path / "other.parquet")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "settings.json").write_text("{}")
    with pytest.raises(UserError, match="was interrupted: repeat"):
        read_pairs(tmp_path / "cut")


def test_copies_of_pictures_have_near_hashes():
    from PIL import Image

    first, other = decode(picture(1)), decode(picture(4))
    shrunk = np.asarray(Image.fromarray(first).resize((24, 16)))
    copy, apart = perceptual_hash(shrunk), perceptual_hash(other)
    assert differing_bits([perceptual_hash(first)], [copy])[0] <= 8
    assert differing_bits([perceptual_hash(first)], [apart])[0] > 12


def test_the_command_writes_table_page_and_json(redcaps, tmp_path, capsys):
    out = tmp_path / "nn"
    command = ["curate", "neighbours", str(redcaps), "--out", str(out), "--model", WORDS,
               "--device", "cpu", "--precision", "fp32", "--workers", "0", "--shown", "8",
               "--scope", "year", "--to_json", str(tmp_path / "nn.json")]  # fmt: skip
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "without: 1 (zero embedding)" in said and "pairs:" in said
    page = (out / "report.html").read_text()
    assert page.count("<td><strong>") == 6 and "data:image" in page
    assert "a red bird" in page and "http" not in page.split("</style>")[1].split("<script>")[0]
    assert len(open_source(f"pairs:{out}")) == 6
    assert cli.main(["curate", "neighbours", str(redcaps), "--out", str(tmp_path / "b"),
                     "--from_json", str(tmp_path / "nn.json"), "--shown", "0"]) == 0  # fmt: skip
    assert len(read_pairs(tmp_path / "b")) == len(read_pairs(out))
    capsys.readouterr()
    assert cli.main(["curate", "neighbors", "x"]) == 2
    assert "Did you mean 'curate neighbours'" in capsys.readouterr().err
    assert cli.main(["curate"]) == 0 and "curate neighbours" in capsys.readouterr().out
    assert cli.main(["curate", "neighbours", str(redcaps), "--out", str(out)]) == 2
    assert "needs --model" in capsys.readouterr().err


@pytest.mark.parametrize("index", ["ivf", "hnsw"])
def test_the_command_says_what_an_approximate_search_is_worth(
    index, redcaps, tmp_path, capsys, monkeypatch
):
    from vislang.curate import search

    monkeypatch.setattr(search, "STRIPE", 2)
    command = ["curate", "neighbours", str(redcaps), "--model", WORDS, "--device", "cpu",
               "--precision", "fp32", "--shown", "0", "--index", index, "--out"]  # fmt: skip
    assert cli.main([*command, str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    assert f"index {index}: recall 1.0000 [0.6097, 1.0000] measured on 6 samples" in said
    assert ("so --index exact would be quicker" in said) == (index == "ivf")  # it is one list
    assert cli.main([*command, str(tmp_path / "b"), "--threshold", "1"]) == 0
    said = capsys.readouterr().out
    if index == "ivf":  # whose recall is that of pairs that are allowed
        assert "recall 1.0000 [0.3424, 1.0000] measured on 2 samples" in said


def test_hostile_captions_cannot_leave_the_page(tmp_path):
    from vislang.report.neighbours import write_neighbours

    rows = [["image", "caption"], *([f"{i}.jpg", f"<script>alert({i})</script>"] for i in range(3))]
    add_files(tmp_path / "images", {"0.jpg": picture(0), "1.jpg": b"no picture"})
    source = open_source(
        str(add_csv(tmp_path / "t.csv", rows)), images_root=str(tmp_path / "images")
    )
    table = PairTable.sorted([0, 1, 2], [1, 2, 0], [0.1, 0.5, 0.9], {})
    page = write_neighbours(source, table, tmp_path / "p.html").read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
