"""Caption collections: Flickr, COCO, RedCaps, and the exact words of their errors."""

import gzip
import json
from pathlib import Path

import pytest

from layouts import add_csv, add_files, add_zip, message, picture, samples, verdict
from vislang.data.sample import BadSample
from vislang.data.sources import open_source


@pytest.fixture
def pictures(tmp_path) -> Path:
    return add_files(tmp_path / "pictures", {f"{i}.jpg": picture(i) for i in range(4)})


# --- flickr ---------------------------------------------------------------------------------------


def test_every_spelling_of_flickr_is_the_same_source(tmp_path, pictures):
    pairs = [(f"{i}.jpg", k, f"text {i} {k}") for i in (2, 0, 1) for k in range(2)]
    add_csv(tmp_path / "a.csv", [["image", "caption_id", "caption"], *map(list, pairs)])
    add_files(tmp_path, {"Flickr8k.token.txt": "".join(f"{n}#{k}\t{t}\n" for n, k, t in pairs)})
    bars = "image_name| comment_number| comment\n" + "".join(
        f'{n}| {k}| {t}\n' for n, k, t in pairs
    )  # fmt: skip
    add_files(tmp_path, {"results.csv": bars})
    expected = [(f"{i}.jpg", (f"text {i} 0", f"text {i} 1")) for i in range(3)]
    for name in ("a.csv", "Flickr8k.token.txt", "results.csv"):
        source = open_source(tmp_path / name, images=str(pictures))
        assert type(source).__name__ == "FlickrCaptions"
        assert [(source[i].id, source[i].texts) for i in range(3)] == expected, name


def test_the_famous_broken_row_of_flickr30k_is_rejected_alone(tmp_path, pictures):
    lines = [
        "image_name| comment_number| comment",
        "0.jpg| 0| one",
        "0.jpg| 1   two",
        "0.jpg| 2| 3",
    ]
    (tmp_path / "results.csv").write_text("\n".join(lines))
    source = open_source(tmp_path / "results.csv", images=str(pictures))
    assert len(source) == 2 and source[0].texts == ("one", "3")
    assert verdict(source, 1) == "damaged row: 2 columns, not 3"


def test_splits_by_column_or_by_list(tmp_path, pictures):
    rows = [["image", "caption_id", "caption", "split"]]
    rows += [[f"{i}.jpg", 0, f"t{i}", "dev" if i == 1 else "train"] for i in range(4)]
    path = add_csv(tmp_path / "c.csv", rows)
    assert [s.id for s in samples(path, images=str(pictures), split="dev")] == ["1.jpg"]
    (tmp_path / "devImages.txt").write_text("0.jpg\n3.jpg\n")
    got = samples(path, images=str(pictures), split=str(tmp_path / "devImages.txt"))
    assert [s.id for s in got] == ["0.jpg", "3.jpg"]
    assert message(path, split="devv") == (
        f"{path} has no split 'devv'. Did you mean 'dev'? Splits: dev, train."
    )


def test_images_are_found_beside_or_asked_for(tmp_path):
    names = {f"{i}.jpg": picture(i) for i in range(4)}
    rows = [["image", "caption_id", "caption"], *[[n, 0, "x"] for n in names]]
    path = add_csv(tmp_path / "c.csv", rows)
    assert message(path) == (
        f"The images that {path} names, such as '0.jpg', were not found near it."
        " Give their folder or zip archive as images."
    )
    add_zip(tmp_path / "few.zip", {"0.jpg": picture(0)})
    add_zip(tmp_path / "all.zip", {f"all/{n}": b for n, b in names.items()})
    assert samples(path)[3].image.path == tmp_path / "all.zip"
    add_zip(tmp_path / "other.zip", names)
    assert message(path) == (
        "Several archives beside c.csv hold its images: all.zip, other.zip. Choose one with images."
    )
    assert message(f"flickr:{add_csv(tmp_path / 'd.csv', [['picture', 'caption']])}").startswith(
        f"{tmp_path / 'd.csv'} has no column 'image'."
    )


# --- coco -----------------------------------------------------------------------------------------


def coco_file(path: Path, images: list, notes: list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": notes}))
    return path


def test_coco_sorts_images_and_captions_by_id(tmp_path):
    add_files(tmp_path / "images/val2017", {"a.jpg": picture(0), "b.jpg": picture(1)})
    images = [{"id": 7, "file_name": "a.jpg"}, {"id": 3, "file_name": "b.jpg"}]
    notes = [
        {"id": 9, "image_id": 7, "caption": "second "},
        {"id": 2, "image_id": 7, "caption": "first"},
        {"id": 1, "image_id": 7, "bbox": [0, 0, 1, 1]},
    ]  # fmt: skip
    path = coco_file(tmp_path / "annotations/captions_val2017.json", images, notes)
    got = samples(path)
    assert [(s.id, s.texts) for s in got] == [("3", ()), ("7", ("first", "second"))]
    packed = tmp_path / "captions.json.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    source = open_source(packed, images="none")
    assert source.gives == {"text"} and source[1].texts == ("first", "second")


def test_foreign_json_is_explained(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("[1, 2")
    assert message(path).startswith(f"{path} is not a COCO captions file (")
    path.write_text('{"images": []}')
    assert message(path).startswith(f"{path} is not a COCO captions file (it has no 'annotations')")
    coco_file(path, [{"id": 1, "file_name": "a"}], [{"image_id": 1, "bbox": []}])
    assert message(path) == f"{path} has no captions: are these boxes or keypoints?"


# --- redcaps --------------------------------------------------------------------------------------


def test_redcaps_is_sorted_and_leaves_nothing_out(tmp_path):
    files: dict[str, bytes | str] = {}
    for folder in ("cats_2020_000001", "birds_2017_000002", "birds_2020_000001"):
        for stem in ("b", "a-1", "a"):
            note = {"caption": f"{folder} {stem} "}
            files |= {f"{folder}/{stem}.jpg": picture(1), f"{folder}/{stem}.json": json.dumps(note)}
    files["cats_2020_000001/only.jpg"] = picture(2)
    files["cats_2020_000001/note.json"] = json.dumps({"caption": "no image"})
    files["birds_2017_000002/torn.json"] = '{"caption": "x'
    files["birds_2017_000002/torn.jpg"] = picture(3)
    files["birds_2017_000002/none.json"] = json.dumps({"caption": None, "raw": "raw words"})
    files["birds_2017_000002/none.png"] = picture(3)
    root = add_files(tmp_path / "rc", files)
    source = open_source(root)
    assert type(source).__name__ == "RedCaps"
    ids = []
    for i in range(len(source)):
        try:
            ids.append(source[i].id)
        except BadSample as bad:
            ids.append(f"{bad.id}: {bad.reason.split(':')[0]}")
    assert ids == [
        "birds_2017_000002/a", "birds_2017_000002/a-1", "birds_2017_000002/b",
        "birds_2017_000002/none", "birds_2017_000002/torn: damaged record",
        "birds_2020_000001/a", "birds_2020_000001/a-1", "birds_2020_000001/b",
        "cats_2020_000001/a", "cats_2020_000001/a-1", "cats_2020_000001/b",
        "cats_2020_000001/note", "cats_2020_000001/only",
    ]  # fmt: skip
    assert source.shards() == [range(5), range(5, 8), range(8, 13)]
    assert source[0].texts == ("birds_2017_000002 a",) and source[3].texts == ()
    assert source[11].image is None and source[12].texts == ()
    of_2020 = open_source(root, year=2020)
    assert len(of_2020) == 8 and of_2020.name == "rc-2020"
    raw = open_source(root, caption="raw")
    assert raw[3].texts == ("raw words",)
    assert verdict(raw, 0).startswith("no caption: no key 'raw' in its JSON.")
    assert message(root, year=1999) == (
        f"The source {root} is empty: it has no <id>.json or images of the year 1999."
    )


def test_redcaps_in_a_zip_and_below_a_split(tmp_path):
    files = {f"train/s/{i}.jpg": picture(i) for i in range(2)}
    files |= {f"train/s/{i}.json": json.dumps({"caption": [f"x{i}", "y"]}) for i in range(2)}
    folder = open_source(f"redcaps:{add_files(tmp_path / 'd', files)}", split="train")
    packed = open_source(f"redcaps:{add_zip(tmp_path / 'd.zip', files)}")
    assert folder[1].texts == packed[1].texts == ("x1", "y")
    assert folder[1].id == "s/1" and packed[1].id == "train/s/1"
    only = add_files(tmp_path / "e", {"s/1.jpg": picture(1)})
    assert message(f"redcaps:{only}") == (
        f"{only} has images but not one .json beside them: is it a folder?"
    )


# --- karpathy -------------------------------------------------------------------------------------


def test_karpathy_splits_join_and_are_named(tmp_path):
    from layouts import karpathy

    path, _ = karpathy(tmp_path)
    assert [s.id for s in samples(path, split="train", images="none")] == ["val2014/lost.jpg"]
    assert len(open_source(path, split="train+test", images=str(tmp_path))) == 7
    assert message(path, split="tests") == (
        f"{path} has no split 'tests'. Did you mean 'test'? Splits: test, train."
    )
    broken = tmp_path / "dataset_flickr30k.json"
    broken.write_text('{"images": [{"split": "test", "filename": "a.jpg"}]}')
    assert "entry 1 of the split has no file name or sentences" in message(broken)
    broken.write_text('{"annotations": []}')
    assert "is not one of Karpathy's files" in message(broken)
