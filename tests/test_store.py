"""The store: what is written is read, from any row or id, and nothing torn or foreign passes."""

import json
import resource
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vislang.errors import UserError
from vislang.store import StoreWriter, open_store
from vislang.store.rows import Rows

SIZES = (3, 0, 4)  # a part whose samples were all rejected is an empty part


def write(folder, sizes=SIZES, dtype="float32", finish=True):
    rng = np.random.default_rng(0)
    writer = StoreWriter(folder, dtype)
    notes, at = [], 0
    for number, n in enumerate(sizes):
        captions = [(i, f"text {at + i}.{j}") for i in range(n) for j in range(1 + (at + i) % 2)]
        notes.append(
            writer.write_part(
                f"{number:04d}",
                {"id": [f"id-{at + i}" for i in range(n)], "label": np.arange(at, at + n)},
                {
                    "text": [text for _, text in captions],
                    "image_row": np.array([row for row, _ in captions], np.int64),
                },
                image=rng.standard_normal((n, 5)),
                features=rng.standard_normal((n, 7)),
                text=rng.standard_normal((len(captions), 5)),
            )
        )
        at += n
    if finish:
        writer.finish(notes, {"model": "m"}, [("bad", "truncated", "a.tar:3")])
    return folder


def test_what_is_written_is_read(tmp_path):
    store = open_store(write(tmp_path / "s"))
    assert len(store) == 7
    assert store.width == 5
    assert store.image.shape == (7, 5)
    assert store.features.shape == (7, 7)
    assert len(store.text) == 7 + 3
    assert store.metadata["label"].to_pylist() == list(range(7))
    assert store.settings == {"model": "m"}
    assert store.rejected == [("bad", "truncated", "a.tar:3")]
    # image_row counts within a part on disk and over the whole store when read.
    rows = store.text_metadata["image_row"].to_pylist()
    texts = store.text_metadata["text"].to_pylist()
    assert [int(text.split()[1].split(".")[0]) for text in texts] == rows
    store.verify()


def test_rows_by_number_and_by_id(tmp_path):
    store = open_store(write(tmp_path / "s"))
    whole = np.asarray(store.image)
    assert (store.image[4] == whole[4]).all()
    assert (store.image[-1] == whole[6]).all()
    assert (store.image[1:6] == whole[1:6]).all()
    assert (store.image[::-2] == whole[::-2]).all()
    assert (store.image[[6, 0, 6]] == whole[[6, 0, 6]]).all()
    assert (store.image[whole[:, 0] > 0] == whole[whole[:, 0] > 0]).all()
    assert store.row_of(["id-5", "id-0"]).tolist() == [5, 0]
    assert store.row_of("id-3").tolist() == [3]
    blocks = [(first, rows.copy()) for first, rows in store.image.blocks(2)]
    assert [first for first, _ in blocks] == [0, 2, 3, 5]
    assert (np.concatenate([rows for _, rows in blocks]) == whole).all()
    with pytest.raises(TypeError, match="by row alone"):
        store.image[:, 0]
    with pytest.raises(IndexError, match=r"-7\.\.6"):
        store.image[7]
    with pytest.raises(UserError, match="no row with the id 'id-9'"):
        store.row_of(["id-1", "id-9"])


@given(st.data())
def test_rows_index_like_numpy(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("rows")
    sizes = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
    whole = np.arange(sum(sizes) * 2, dtype=np.float32).reshape(-1, 2)
    paths, at = [], 0
    for number, n in enumerate(sizes):
        paths.append(folder / f"{number}.npy")
        np.save(paths[-1], whole[at : at + n])
        at += n
    rows = Rows(paths)
    piece = data.draw(st.slices(len(whole)))
    assert (rows[piece] == whole[piece]).all()
    if len(whole):
        index = data.draw(st.lists(st.integers(-len(whole), len(whole) - 1), max_size=6))
        assert (rows[np.array(index, int)] == whole[np.array(index, int)]).all()


def test_half_precision_is_kept_and_overflow_refused(tmp_path):
    store = open_store(write(tmp_path / "s", dtype="float16"))
    assert store.image.dtype == np.float16
    writer = StoreWriter(tmp_path / "t", "float16")
    with pytest.raises(UserError, match=r"1 of 2 embeddings.*not finite.*float16.*fp32"):
        writer.write_part("0000", {"id": ["a", "b"]}, image=np.array([[1e6], [1.0]]))
    assert not (tmp_path / "t" / "img_emb").exists() or not list(
        (tmp_path / "t" / "img_emb").glob("*.npy")
    )


def test_many_parts_do_not_hold_many_files(tmp_path, monkeypatch):
    write(tmp_path / "s", sizes=(1,) * 60)
    monkeypatch.setattr("vislang.store.rows._OPEN", 8)
    open_now = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc").exists() else 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 25, hard))
    try:
        store = open_store(tmp_path / "s")
        assert np.asarray(store.image).shape == (60, 5)
        assert store.image[np.arange(59, -1, -1)].shape == (60, 5)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -- what must be refused ---------------------------------------------------------------------


def test_an_unfinished_store_says_how_to_go_on(tmp_path):
    write(tmp_path / "s", finish=False)
    (tmp_path / "s" / "settings.json").write_text("{}")
    with pytest.raises(UserError, match=r"interrupted.*same command again"):
        open_store(tmp_path / "s")


def test_a_torn_file_is_refused(tmp_path):
    write(tmp_path / "s")
    path = tmp_path / "s" / "img_emb" / "img_emb_0002.npy"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"img_emb_0002\.npy is torn"):
        open_store(tmp_path / "s")


def test_a_changed_file_is_found_by_verify(tmp_path):
    write(tmp_path / "s")
    path = tmp_path / "s" / "text_emb" / "text_emb_0000.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"text_emb_0000.npy.*checksum differs"):
        open_store(tmp_path / "s").verify()


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda f: (f / "metadata" / "metadata_0000.parquet").unlink(), "missing"),
        (lambda f: (f / "manifest.json").write_text("{"), "not JSON"),
        (lambda f: (f / "manifest.json").write_text('{"format": "other 3"}'), "'other 3'"),
        (lambda f: (f / "manifest.json").write_text("[]"), "list"),
    ],
)
def test_other_damage_is_named(tmp_path, spoil, match):
    spoil(write(tmp_path / "s"))
    with pytest.raises(UserError, match=match):
        open_store(tmp_path / "s")


def test_no_store_at_all(tmp_path):
    with pytest.raises(UserError, match="no store folder"):
        open_store(tmp_path / "none")
    with pytest.raises(UserError, match="LAION"):
        open_store(tmp_path)


def test_rows_that_do_not_join_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="does not join 2 rows"):
        StoreWriter(tmp_path).write_part("0000", {"id": ["a", "b"]}, image=np.ones((3, 2)))


# -- LAION's and clip-retrieval's folders -----------------------------------------------------


def laion(folder, numbers=("0", "2", "10"), texts=True, nested=True):
    at = 0
    for number in numbers:
        n = 2 + at % 3
        places = {
            "img_emb": folder / "img_emb" if nested else folder,
            "text_emb": folder / "text_emb" if nested else folder,
            "metadata": folder / "metadata" if nested else folder,
        }
        for place in places.values():
            place.mkdir(parents=True, exist_ok=True)
        rows = np.arange(at, at + n, dtype=np.float16)[:, None].repeat(4, 1)
        np.save(places["img_emb"] / f"img_emb_{number}.npy", rows)
        if texts:
            np.save(places["text_emb"] / f"text_emb_{number}.npy", -rows)
        table = pa.table({"image_path": [f"p{i}" for i in range(at, at + n)],
                          "caption": [f"c{i}" for i in range(at, at + n)]})  # fmt: skip
        pq.write_table(table, places["metadata"] / f"metadata_{number}.parquet")
        at += n
    return folder, at


@pytest.mark.parametrize("nested", [True, False])
def test_a_laion_folder_opens_as_it_is(tmp_path, nested):
    folder, n = laion(tmp_path / "laion", nested=nested)
    store = open_store(folder)
    assert len(store) == n
    assert np.asarray(store.image)[:, 0].tolist() == list(range(n))  # part 2 before part 10
    assert store.row_of("p3").tolist() == [3]
    assert store.text_metadata["text"].to_pylist() == [f"c{i}" for i in range(n)]
    assert store.text_metadata["image_row"].to_pylist() == list(range(n))
    with pytest.raises(UserError, match="no checksums"):
        store.verify()


def test_a_laion_folder_with_a_part_missing_or_of_other_rows(tmp_path):
    folder, _ = laion(tmp_path / "a")
    (folder / "metadata" / "metadata_2.parquet").unlink()
    with pytest.raises(UserError, match=r"\[2\] have no metadata"):
        open_store(folder)
    folder, _ = laion(tmp_path / "b")
    np.save(folder / "img_emb" / "img_emb_2.npy", np.ones((9, 4), np.float16))
    with pytest.raises(UserError, match="9 rows, but its metadata has"):
        open_store(folder)
    folder, _ = laion(tmp_path / "c")
    np.save(folder / "img_emb" / "img_emb_2.npy", np.ones((9, 3), np.float16))
    with pytest.raises(UserError, match="does not continue"):
        open_store(folder)
    folder, _ = laion(tmp_path / "d")
    (folder / "metadata" / "metadata_2.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(UserError, match="no whole Parquet"):
        open_store(folder)


def test_a_torn_file_of_a_laion_folder(tmp_path):
    folder, _ = laion(tmp_path / "a")
    path = folder / "text_emb" / "text_emb_10.npy"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(UserError, match=r"text_emb_10\.npy is torn"):
        open_store(folder)


def test_pickles_are_never_read(tmp_path):
    folder, _ = laion(tmp_path / "a")
    np.save(folder / "img_emb" / "img_emb_2.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(UserError, match="embeddings are rows of float"):
        open_store(folder)


def test_the_manifest_is_plain_json_with_rows_and_checksums(tmp_path):
    manifest = json.loads((write(tmp_path / "s") / "manifest.json").read_text())
    assert manifest["rows"]["image"] == 7
    assert manifest["rejected"]["rows"] == 1
    assert len(manifest["parts"][0]["files"]["image"]["sha256"]) == 64
