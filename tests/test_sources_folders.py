"""What is particular to folders, zips and ImageNet, and the exact words of their errors."""

import zipfile

import numpy as np

from layouts import add_files, add_zip, message, picture
from vislang.data.decode import decode_sample
from vislang.data.sources import open_source

# --- folder and zip -------------------------------------------------------------------------------


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


# --- imagenet -------------------------------------------------------------------------------------


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
