"""Dictionaries of RedCaps-like folders: sorted, relative to the root, what is missing counted."""

import json

import pytest

from layouts import add_files
from pictures import jpeg
from vislang.cli import main as cli
from vislang.curate import make_dictionary
from vislang.data.sources import open_source
from vislang.errors import UserError


@pytest.fixture
def root(tmp_path):
    files = {}
    for folder, ids in (("b_2020_000002", "ba"), ("a_2020_000001", "c"), ("a_2019_020201", "d")):
        for id_ in ids:
            files[f"train/{folder}/{id_}.jpg"] = jpeg(1, 20, 30)
            files[f"train/{folder}/{id_}.json"] = json.dumps({"caption": f"Größe {id_} "})
    files["train/b_2020_000002/noimage.json"] = '{"caption": "x"}'
    files["train/b_2020_000002/nonote.jpg"] = jpeg(2, 20, 30)
    files["train/b_2020_000002/empty.jpg"] = jpeg(2, 20, 30)
    files["train/b_2020_000002/empty.json"] = '{"caption": " "}'
    files["train/b_2020_000002/broken.jpg"] = jpeg(2, 20, 30)
    files["train/b_2020_000002/broken.json"] = '{"caption": '
    files["train/b_2020_000002/long.jpg"] = jpeg(2, 4, 90)
    files["train/b_2020_000002/long.json"] = '{"caption": "long"}'
    return add_files(tmp_path / "redcaps", files)


def test_the_originals_form_sorted_with_paths_that_lead_to_images(root, tmp_path):
    made = make_dictionary(root, tmp_path / "d.json", split="train", max_aspect=20)
    content = json.loads((tmp_path / "d.json").read_text())
    assert list(content) == ["a_2019_020201", "a_2020_000001", "b_2020_000002"]
    assert list(content["b_2020_000002"]) == ["a", "b"]
    path, caption = content["b_2020_000002"]["a"]
    assert (root / path).is_file() and caption == "Größe a"
    assert (made.folders, made.instances) == (3, 4)
    # An image without annotation has no caption; the original leaves it out without a word.
    assert made.skipped == {"annotation without image": 1, "no caption": 2,
                            "damaged record": 1, "image too long": 1}  # fmt: skip


def test_the_year_is_a_field_and_not_a_substring(root, tmp_path):
    made = make_dictionary(root, tmp_path / "d.json", split="train", year=2020)
    assert made.folders == 2  # a_2019_020201 holds the digits 2020 too
    with pytest.raises(UserError, match="of the year 1999"):
        make_dictionary(root, tmp_path / "e.json", split="train", year=1999)


def test_a_table_opens_as_a_source(root, tmp_path):
    make_dictionary(root, tmp_path / "d.parquet", split="train")
    source = open_source(str(tmp_path / "d.parquet"), images_root=str(root), id="id")
    assert len(source) == 5 and source[0].texts == ("Größe d",)
    assert source[0].id == "a_2019_020201/d" and source[0].image is not None


def test_the_command_counts_and_bad_input_is_named(root, tmp_path, capsys):
    out = str(tmp_path / "d.csv")
    arguments = ["curate", "dictionary", str(root), "--split", "train", "--out", out]
    assert cli.main([*arguments, "--max_bytes", "10000000"]) == 0
    said = capsys.readouterr().out
    assert "5 instances in 3 folders" in said and "skipped: 1 (damaged record)" in said
    assert cli.main([*arguments, "--caption", "titel"]) == 2
    assert "Not one instance" in capsys.readouterr().err
    assert (tmp_path / "d.csv").read_text().count("\n") == 6  # the good one stays
    with pytest.raises(UserError, match=r"must end in \.json"):
        make_dictionary(root, tmp_path / "d.txt")
    with pytest.raises(UserError, match="does not exist"):
        make_dictionary(root, tmp_path / "d.json", split="trian")
