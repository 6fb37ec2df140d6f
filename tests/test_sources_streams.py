"""Webdataset shards and the adapters, and the exact words of their errors."""

import json

import pytest

from layouts import add_files, add_tar, message, picture, verdict
from vislang.data.decode import decode_sample
from vislang.data.sample import BadSample
from vislang.data.sources import open_source

# --- webdataset -----------------------------------------------------------------------------------


def test_captions_and_labels_come_from_where_they_are_asked(tmp_path):
    notes = {"caption": "of json", "tags": ["t1", "", "t2"], "cls": 5}
    add_tar(tmp_path / "a.tar", {
        "x/1.jpg": picture(1), "x/1.txt": " of txt \n", "x/1.json": json.dumps(notes),
        "x/1.seg.png": b"mask", "x/2.png": picture(2), "x/3.json": "{torn", "x/3.jpg": picture(3),
    })  # fmt: skip
    path = tmp_path / "a.tar"
    plain = open_source(path)
    assert [plain[i].id for i in range(2)] == ["a/x/1", "a/x/2"]
    assert plain[0].texts == ("of txt",) and plain[1].texts == () and plain[0].labels == ()
    source = open_source(path, caption=["json:tags", "txt"], label="json:cls")
    assert source[0].texts == ("t1", "t2", "of txt") and source[0].labels == (5,)
    assert source[0].image.size == len(picture(1))
    assert verdict(source, 2).startswith("damaged record: .json is no JSON object")
    assert open_source(path, image="seg.png")[0].image.size == 4
    assert message(path, caption="text") == (
        f"No member of {path} ends in .text (caption). Did you mean 'txt'?"
        " Endings there: jpg, json, png, seg.png, txt."
    )


def test_a_shard_that_breaks_off_gives_what_is_whole(tmp_path):
    files = {
        f"{i}.{e}": picture(i) if e == "jpg" else f"t{i}" for i in range(3) for e in ("jpg", "txt")
    }
    path = add_tar(tmp_path / "a.tar", files)
    whole = open_source(path)
    place = whole[2].image
    path.write_bytes(path.read_bytes()[: place.offset + 100])
    cut = open_source(path)
    assert len(cut) == 3 and cut[1].texts == ("t1",)
    with pytest.raises(BadSample, match="truncated container"):
        decode_sample(cut[2])
    path.write_bytes(path.read_bytes()[: place.offset - 100])
    torn = open_source(path)
    assert len(torn) == 3 and torn.shards() == [range(2), range(2, 3)]
    assert verdict(torn, 2).startswith("damaged container: a header of ")


def test_shards_are_ranges_and_ids_differ_between_them(tmp_path):
    for name in "ab":
        add_tar(tmp_path / f"{name}.tar", {f"{i}.jpg": picture(i) for i in range(3)})
    source = open_source(tmp_path)
    assert source.shards() == [range(3), range(3, 6)]
    assert [source[i].id for i in (0, 3)] == ["a/0", "b/0"]
    (tmp_path / "none").mkdir()
    assert "has no .tar files" in message(f"webdataset:{tmp_path / 'none'}")
    add_tar(tmp_path / "none/e.tar", {})
    assert message(tmp_path / "none") == (
        f"The source {tmp_path / 'none'} is empty: its 1 tars hold no samples."
    )


def test_labels_out_of_range_are_rejected(tmp_path):
    add_tar(tmp_path / "a.tar", {"1.cls": "7", "1.jpg": picture(1), "2.cls": "x", "2.jpg": b""})
    source = open_source(tmp_path / "a.tar", classes=["a", "b"])
    assert verdict(source, 0) == "damaged record: label (7,), of 2 classes"
    assert verdict(source, 1) == "damaged record: the label 'x' is no number"


# --- adapters -------------------------------------------------------------------------------------


def test_torchvision_names_and_arguments(tmp_path):
    pytest.importorskip("torchvision")
    assert message("torchvision:CIFAR1O").startswith(
        "torchvision has no dataset 'CIFAR1O'. Did you mean 'CIFAR10'?"
    )
    assert message("torchvision:CIFAR10") == "torchvision's CIFAR10 needs the option 'root'."
    assert message("torchvision:CIFAR10", root=str(tmp_path)).startswith(
        "torchvision's CIFAR10 cannot be opened: Dataset not found"
    )
    source = open_source("torchvision:FakeData", size=4, image_size=(3, 8, 9), num_classes=3)
    assert source.gives == {"image", "label"}
    assert decode_sample(source[1]).pixels.shape == (8, 9, 3)


def test_torchvision_captions(tmp_path):
    pytest.importorskip("torchvision")
    add_files(tmp_path, {"d/a.jpg": picture(0)})
    (tmp_path / "ann.txt").write_text("a.jpg#0\tone\na.jpg#1\ttwo\n")
    source = open_source(
        "torchvision:Flickr30k", root=str(tmp_path / "d"), ann_file=str(tmp_path / "ann.txt")
    )
    assert source.gives == {"image", "text"} and source[0].texts == ("one", "two")


def test_hugging_face_columns_and_splits(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    rows = {"pic": [str(tmp_path / "1.jpg")], "sentences": [["a", "b"]], "kind": ["z"]}
    add_files(tmp_path, {"1.jpg": picture(1)})
    data = datasets.Dataset.from_dict(rows).cast_column("pic", datasets.Image())
    path = tmp_path / "hf"
    datasets.DatasetDict({"train": data, "test": data}).save_to_disk(str(path))
    assert message(path) == f"The dataset {path} has several splits. Choose one: train, test."
    assert message(path, split="tset") == (
        f"The dataset {path} has no split 'tset'. Did you mean 'test'? Choose one: train, test."
    )
    source = open_source(path, split="test", label="kind")
    assert source.classes == ("z",) and source[0].labels == (0,)
    assert source[0].texts == ("a", "b") and source.name == "hf-test"
    assert decode_sample(source[0]).pixels.shape == (21, 30, 3)
    assert "has no column 'kinds' (label). Did you mean 'kind'?" in message(
        path, split="test", label="kinds"
    )
