"""What is particular to each layout, and the exact words of its errors."""

import gzip
import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from layouts import add_csv, add_files, add_tar, add_zip, picture
from vislang.data import tables
from vislang.data.decode import decode_sample
from vislang.data.sample import BadSample
from vislang.data.sources import open_source
from vislang.errors import UserError


def message(spec: str | Path, **options) -> str:
    with pytest.raises(UserError) as caught:
        open_source(spec, **options)
    return str(caught.value)


def samples(spec: str | Path, **options) -> list:
    source = open_source(spec, **options)
    return [source[i] for i in range(len(source))]


def verdict(source, index: int) -> str:
    with pytest.raises(BadSample) as caught:
        source[index]
    return caught.value.reason


# --- folder and zip ---------------------------------------------------------------------------


def test_class_folders_may_be_deep_and_below_a_shared_folder(tmp_path):
    files = {f"images/{c}/{part}/{c}.jpg": picture(0) for c in "ab" for part in ("x", "y")}
    add_files(tmp_path / "d", files)
    source = open_source(tmp_path / "d")
    assert source.classes == ("a", "b")
    assert [source[i].labels for i in range(4)] == [(0,), (0,), (1,), (1,)]
    assert source[0].id == "images/a/x/a.jpg"


def test_one_folder_of_images_has_no_classes(tmp_path):
    add_files(tmp_path, {"d/1.jpg": picture(1), "e/x/1.jpg": picture(1)})
    for folder in ("d", "e"):
        source = open_source(tmp_path / folder)
        assert source.gives == {"image"} and source.classes == () and source[0].labels == ()
    assert message(tmp_path / "d", template="a {}") == (
        "template needs class names, but d has no folders of classes."
    )


def test_splits_are_chosen_not_mistaken_for_classes(tmp_path):
    add_files(
        tmp_path / "d", {f"{s}/{c}/1.jpg": picture(1) for s in ("train", "val") for c in "ab"}
    )
    assert message(tmp_path / "d") == (
        f"{tmp_path / 'd'} holds the splits train, val: choose one with split, as in split=train."
    )
    assert message(tmp_path / "d", split="vall") == (
        f"{tmp_path / 'd'} has no split 'vall'. Did you mean 'val'? Folders there: train, val."
    )
    source = open_source(tmp_path / "d", split="val")
    assert len(source) == 2 and source.classes == ("a", "b") and source.name == "d-val"


def test_images_outside_of_classes_are_an_error(tmp_path):
    add_files(tmp_path / "d", {"a/1.jpg": picture(1), "b/1.jpg": picture(1), "2.jpg": picture(2)})
    assert message(tmp_path / "d") == (
        f"{tmp_path / 'd'} has images both in class folders and outside of them (2.jpg):"
        " move these into a folder, or open one folder at a time."
    )


def test_a_given_order_of_classes_holds_for_a_split_that_lacks_one(tmp_path):
    add_files(tmp_path / "d", {"a/1.jpg": picture(1), "c/1.jpg": picture(1)})
    (tmp_path / "classes.txt").write_text("c\nb\na\n")
    source = open_source(tmp_path / "d", classes=str(tmp_path / "classes.txt"))
    assert source.classes == ("c", "b", "a")
    assert [source[i].labels for i in range(2)] == [(2,), (0,)]
    assert message(tmp_path / "d", classes=["a", "b"]) == (
        "The folder 'c' is not among the 2 given classes."
    )


def test_names_of_classes_come_from_a_file(tmp_path):
    add_files(tmp_path / "d", {"k1/1.jpg": picture(1), "k2_x/1.jpg": picture(1)})
    (tmp_path / "names.tsv").write_text("k1\tgoldfish, Carassius auratus\n")
    source = open_source(tmp_path / "d", names=str(tmp_path / "names.tsv"), template="a {}.")
    assert source.classes == ("goldfish", "k2 x")
    assert source[0].texts == ("a goldfish.",)
    (tmp_path / "names.json").write_text('{"k1": ["carp"]}')
    assert open_source(tmp_path / "d", names=str(tmp_path / "names.json")).classes[0] == "carp"
    assert message(tmp_path / "d", template="no braces").startswith(
        "A template must have one {} for the class name, got 'no braces'."
    )


def test_empty_folders_and_files_in_their_place(tmp_path):
    (tmp_path / "d").mkdir()
    assert message(tmp_path / "d") == (
        f"The source {tmp_path / 'd'} is empty: it has no images (files that end in .jpg, .png,"
        " .webp ...)."
    )
    (tmp_path / "f.jpg").write_bytes(picture(0))
    assert message(f"folder:{tmp_path / 'f.jpg'}") == (
        f"{tmp_path / 'f.jpg'} is a file, where a folder of images was expected."
    )


def test_a_zip_is_read_in_place_even_deflated(tmp_path):
    files = {f"data/{c}/{i}.jpg": picture(i) for c in "ab" for i in range(2)}
    files["__MACOSX/data/a/._0.jpg"] = b"junk"
    path = add_zip(tmp_path / "z.zip", files, zipfile.ZIP_DEFLATED)
    source = open_source(path)
    assert len(source) == 4 and source.classes == ("a", "b")
    folder = open_source(add_files(tmp_path / "z", files))
    for i in range(4):
        np.testing.assert_array_equal(
            decode_sample(source[i]).pixels, decode_sample(folder[i]).pixels
        )
        assert source[i].id == folder[i].id
    assert sorted(p.name for p in tmp_path.iterdir()) == ["z", "z.zip"]


# --- imagenet ---------------------------------------------------------------------------------


def test_imagenet_names_come_from_words_and_stay_distinct(tmp_path):
    ids = ["n00000003", "n00000001", "n00000002", "n00000004"]
    files = {f"train/{i}/{i}_{k}.JPEG": picture(k) for i in ids for k in range(2)}
    words = (
        "n00000001\tcrane, machine\nn00000002\tcrane, bird\nn00000003\ttench\nn00000009\tnever\n"
    )
    add_files(tmp_path / "in", files | {"words.txt": words})
    source = open_source(tmp_path / "in")
    assert source.classes == ("crane, machine", "crane, bird", "tench", "n00000004")
    assert source.wnids == tuple(sorted(ids))
    assert [source[2 * i].labels[0] for i in range(4)] == [0, 1, 2, 3]


def test_imagenet_validation_images_are_labelled_by_a_file(tmp_path):
    files = {f"val/images/val_{i}.JPEG": picture(i) for i in range(3)}
    notes = "val_0.JPEG\tn00000002\t0\t1\t2\t3\nval_1.JPEG\tn00000001\t0\t0\t1\t1\n"
    path = add_zip(tmp_path / "val.zip", files)
    add_files(
        tmp_path, {"val_annotations.txt": notes, "wnids.txt": "n00000003\nn00000002\nn00000001"}
    )
    source = open_source(f"imagenet:{path}")
    assert len(source.classes) == 3
    assert [source[i].labels for i in range(3)] == [(1,), (0,), ()]
    assert message(f"imagenet:{path}", words=str(tmp_path / "wrds.txt")).startswith(
        f"The words file {tmp_path / 'wrds.txt'} does not exist."
    )


def test_imagenet_without_ids_says_so(tmp_path):
    add_files(tmp_path / "d", {"a/1.jpg": picture(1), "b/1.jpg": picture(1)})
    assert message(f"imagenet:{tmp_path / 'd'}") == (
        f"No image in {tmp_path / 'd'} has a WordNet id (n + 8 digits) in its name or in an"
        " annotations file. Give annotations=FILE, or open it as a folder of classes."
    )


# --- table ------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path) -> Path:
    return add_files(tmp_path / "pictures", {f"{i}.jpg": picture(i) for i in range(4)})


@pytest.mark.parametrize(
    ("suffix", "mark"), [("csv", ","), ("csv", ";"), ("tsv", "\t"), ("csv", "|")]
)
def test_delimiters_are_detected_and_quotes_respected(tmp_path, pictures, suffix, mark):
    rows = [["image", "caption"], ["0.jpg", 'a "cat", sitting; or | not'], ["1.jpg", "two\nlines"]]
    path = add_csv(tmp_path / f"t.{suffix}", rows, mark)
    got = samples(path, images_root=str(pictures))
    assert [s.texts for s in got] == [('a "cat", sitting; or | not',), ("two\nlines",)]
    assert [s.id for s in got] == ["0.jpg", "1.jpg"]


def test_a_delimiter_can_be_set_and_named(tmp_path):
    (tmp_path / "t.csv").write_text("text,more\tlabel\nhello, you\tx\n")
    assert samples(tmp_path / "t.csv", delimiter="tab", caption="text,more")[0].texts == (
        "hello, you",
    )
    assert message(tmp_path / "t.csv", delimiter="tabb") == (
        "delimiter must be one character or one of comma, tab, semicolon, bar, got 'tabb'."
    )


def test_a_file_without_header_gets_names(tmp_path, pictures):
    path = add_csv(tmp_path / "t.csv", [[f"{i}.jpg", f"text {i}"] for i in range(4)])
    got = samples(path, columns=["image", "caption"], images_root=str(pictures))
    assert [s.texts for s in got] == [(f"text {i}",) for i in range(4)]


def test_identifiers_and_the_word_na_stay_text(tmp_path):
    (tmp_path / "t.csv").write_text("id,caption\n007,NA\n008,null\n009,1e5\n")
    got = samples(tmp_path / "t.csv", id="id")
    assert [(s.id, s.texts) for s in got] == [
        ("007", ("NA",)), ("008", ("null",)), ("009", ("1e5",)),
    ]  # fmt: skip


def test_several_rows_columns_and_lists_are_captions_of_one_image(tmp_path, pictures):
    rows = [["image", "one", "two"], ["1.jpg", "a", "b"], ["0.jpg", "c", ""], ["1.jpg", "d", "e"]]
    path = add_csv(tmp_path / "t.csv", rows)
    got = samples(path, caption=["one", "two"], images_root=str(pictures))
    assert [(s.id, s.texts) for s in got] == [("1.jpg", ("a", "b", "d", "e")), ("0.jpg", ("c",))]
    table = pa.table({"image": ["0.jpg", "1.jpg"], "texts": [["x", " ", None, "y"], []]})
    pq.write_table(table, tmp_path / "t.parquet")
    got = samples(tmp_path / "t.parquet", images_root=str(pictures))
    assert [s.texts for s in got] == [("x", "y"), ()]


def test_labels_are_names_or_indices(tmp_path, pictures):
    rows = [["image", "label"], ["0.jpg", "dog"], ["1.jpg", "cat"], ["2.jpg", ""]]
    source = open_source(add_csv(tmp_path / "t.csv", rows), images_root=str(pictures))
    assert source.classes == ("cat", "dog") and source.gives == {"image", "label"}
    assert [source[i].labels for i in range(3)] == [(1,), (0,), ()]
    numbered = add_csv(tmp_path / "n.csv", [["image", "label"], ["0.jpg", "2"], ["1.jpg", "0"]])
    source = open_source(numbered, images_root=str(pictures))
    assert source.classes == ("0", "1", "2") and source[0].labels == (2,)
    source = open_source(numbered, images_root=str(pictures), classes=["a", "b", "c"])
    assert source.classes == ("a", "b", "c") and source[0].labels == (2,)
    assert message(tmp_path / "t.csv", images_root=str(pictures), classes=["cat", "dogs"]) == (
        "The label 'dog' is not among the 2 given classes. Did you mean 'dogs'?"
    )


def test_images_of_a_table_may_lie_in_a_zip(tmp_path):
    archive = add_zip(tmp_path / "p.zip", {f"deep/{i}.jpg": picture(i) for i in range(3)})
    path = add_csv(tmp_path / "t.csv", [["file", "text"], *[[f"{i}.jpg", "x"] for i in range(4)]])
    source = open_source(path, images_root=str(archive))
    np.testing.assert_array_equal(
        decode_sample(source[2]).pixels, decode_sample(open_source(archive)[2]).pixels
    )
    assert verdict(source, 3) == "missing file: 3.jpg is not in p.zip"


def parquet_of_bytes(path: Path, shape: str) -> Path:
    raw = [picture(i) for i in range(4)]
    column = raw if shape == "bytes" else [{"bytes": b, "path": None} for b in raw]
    table = pa.table({"jpg": column, "caption": [f"t{i}" for i in range(4)]})
    pq.write_table(table, path, row_group_size=2)
    return path


@pytest.mark.parametrize("shape", ["bytes", "struct"])
@pytest.mark.parametrize("mapped", [False, True])
def test_bytes_in_parquet_are_read_at_random(tmp_path, monkeypatch, shape, mapped):
    import pickle

    if mapped:
        monkeypatch.setattr(tables, "IN_MEMORY", 10)
    source = open_source(parquet_of_bytes(tmp_path / "t.parquet", shape))
    assert source.gives == {"image", "text"}
    assert [source[i].image for i in (3, 0, 2)] == [picture(i) for i in (3, 0, 2)]
    assert source[3].id == "000000003" and source[3].texts == ("t3",)
    block = pickle.dumps(source)
    assert pickle.loads(block)[1].image == picture(1)
    assert (len(block) < 2500) == mapped  # only the path of the mapped file travels
    assert len(list(tmp_path.glob(".t.jpg.*.vislang-column"))) == mapped


def test_a_folder_of_parquet_is_one_table(tmp_path):
    for part in range(2):
        pq.write_table(
            pa.table({"TEXT": [f"{part}{i}" for i in range(2)]}), tmp_path / f"{part}.parquet"
        )
    assert [s.texts[0] for s in samples(tmp_path)] == ["00", "01", "10", "11"]
    assert [s.texts[0] for s in samples(f"{tmp_path}/*.parquet")] == ["00", "01", "10", "11"]


def test_a_table_without_the_named_column_shows_what_it_has(tmp_path, pictures):
    path = add_csv(tmp_path / "t.csv", [["image", "caption"], ["0.jpg", "x"]])
    assert message(path, caption="captoin") == (
        f"The table {path} has no column 'captoin' (caption). Did you mean 'caption'?"
        " Columns: image, caption."
    )
    assert message(path, label="label").endswith(
        "has no column 'label' (label). Columns: image, caption."
    )
    other = add_csv(tmp_path / "o.csv", [["a", "b"], ["1", "2"]])
    assert message(other) == (
        f"The table {other} has no column with a usual name for images or captions."
        " Say which: image=COLUMN, caption=COLUMN. Columns: a, b."
    )


def test_empty_and_unreadable_tables(tmp_path):
    (tmp_path / "e.csv").write_text("")
    assert message(tmp_path / "e.csv") == (
        f"The table {tmp_path / 'e.csv'} is empty: its first line should name the columns."
    )
    (tmp_path / "h.csv").write_text("image,caption\n")
    assert "is empty" in message(tmp_path / "h.csv", images_root=str(tmp_path))
    (tmp_path / "p.parquet").write_bytes(b"PAR0")
    assert message(tmp_path / "p.parquet").startswith(f"{tmp_path / 'p.parquet'} is not a Parquet")
    (tmp_path / "l.csv").write_bytes("caption\ncafé\n".encode("latin-1"))
    assert "Set delimiter or encoding." in message(tmp_path / "l.csv")
    assert samples(tmp_path / "l.csv", encoding="latin-1")[0].texts == ("café",)


def test_rows_that_do_not_fit_are_rejected_one_by_one(tmp_path):
    lines = ["caption,label", *[f"text {i},a" for i in range(20)]]
    lines[5] = "an, unquoted comma,a"
    (tmp_path / "t.csv").write_text("\n".join(lines))
    source = open_source(tmp_path / "t.csv")
    assert len(source) == 20
    assert verdict(source, 19) == "damaged row: 3 columns, not 2"
    (tmp_path / "w.csv").write_text("caption\n" + "a,b\n" * 30)
    assert message(tmp_path / "w.csv").startswith("30 of 30 rows of ")


def test_images_that_are_nowhere_are_an_error_but_a_few_missing_are_rows(tmp_path, pictures):
    rows = [["image", "caption"], *[[f"{i}.jpg", "x"] for i in range(6)]]
    path = add_csv(tmp_path / "t.csv", rows)
    assert message(path) == (
        f"None of the images is in {tmp_path}, for example '0.jpg'. Give the folder or zip archive"
        " from which the names count as images."
    )
    source = open_source(path, images_root=str(pictures))
    with pytest.raises(BadSample) as caught:
        decode_sample(source[5])
    assert caught.value.reason == f"missing file: {pictures / '5.jpg'}"
    assert message(path, images_root=str(tmp_path / "picture")) == (
        f"The folder of images {tmp_path / 'picture'} does not exist. Did you mean 'pictures'?"
    )


# --- flickr -----------------------------------------------------------------------------------


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


# --- coco -------------------------------------------------------------------------------------


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


# --- redcaps ----------------------------------------------------------------------------------


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


# --- webdataset -------------------------------------------------------------------------------


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


# --- adapters ---------------------------------------------------------------------------------


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
