"""Tables in every spelling, and the exact words of their errors."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from layouts import add_csv, add_files, add_zip, message, picture, samples, verdict
from vislang.data import tables
from vislang.data.decode import decode_sample
from vislang.data.sample import BadSample
from vislang.data.sources import open_source


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
