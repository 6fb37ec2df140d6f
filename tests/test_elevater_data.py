"""ELEVATER's sets on disk: three kinds of index, archives in place, names, knowledge, status."""

import json
from pathlib import Path
from typing import Any

import pytest

from layouts import add_files, add_zip, picture, verdict
from vislang.cli import main as cli
from vislang.data.decode import decode_sample
from vislang.data.elevater_sets import ELEVATER, LEADERBOARD, chosen_sets, status_table
from vislang.data.elevater_words import in_order_of, set_words
from vislang.data.knowledge import Knowledge, read_knowledge, separate
from vislang.data.sources import open_source
from vislang.errors import UserError

GOLDEN = Path(__file__).parent / "golden" / "elevater_protocol.json"
NAMES = "red\ngreen\nblue\n"


def lay_out(home: Path, lines: list[str], labels: str = NAMES) -> Path:
    """A set of your own: an index of these lines, a zip with three pictures, class names."""
    add_zip(home / "test.zip", {f"cls/{name}.jpg": picture(1) for name in ("a", "b c", "d")})
    add_files(home, {"test.txt": "\n".join(lines) + "\n", "labels.txt": labels})
    return home


def opened(home: Path, **options) -> Any:
    return open_source(f"elevater:{home}", index="test.txt", **options)


def test_lines_name_entries_of_archives_and_labels_stand_behind_the_last_space(tmp_path):
    (tmp_path / "plain.jpg").write_bytes(picture(2))
    lines = ["test.zip@cls/a.jpg 2", "test.zip@cls/b c.jpg 0", "", "plain.jpg 1"]
    source = opened(lay_out(tmp_path, lines))
    assert [source[i].labels for i in range(3)] == [(2,), (0,), (1,)]
    assert source.classes == ("red", "green", "blue")
    assert source.ids[1] == "test.zip@cls/b c.jpg"
    assert source.targets().tolist() == [2, 0, 1]
    assert all(decode_sample(source[i]).pixels.shape[2] == 3 for i in range(3))


def test_a_picture_may_have_several_labels_or_none(tmp_path):
    lines = ["test.zip@cls/a.jpg 0,2", "test.zip@cls/b c.jpg ", "test.zip@cls/d.jpg 1"]
    source = opened(lay_out(tmp_path, lines), multi_label=True)
    assert source.label_rows == [(0, 2), (), (1,)]
    assert source.targets().tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert source.ids[1] == "test.zip@cls/b c.jpg"


def test_an_unpacked_archive_is_as_good(tmp_path):
    add_files(tmp_path, {"test/cls/a.jpg": picture(1), "test.txt": "test.zip@cls/a.jpg 0\n"})
    source = opened(tmp_path, labels="")
    assert decode_sample(source[0]).pixels.size and source.classes == ("0",)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["test.zip@cls/a.jpg 3"], r"entry 1 .*label 3 is out of range: labels.txt has 3 classes"),
        (["test.zip@cls/a.jpg"], r"line 1 has no label"),
        (["test.zip@cls/a.jpg 1", "test.zip@cls/b c.jpg"], r"line 2 has no label"),
        (["test.zip@cls/a.jpg 0,1"], r"line 1 has 2 labels.*multi_label=true"),
        (["test.zip@cls/gone.jpg 0"], r"Not one of the 1 entries"),
        (["other.zip@x.jpg 0"], r"archive .*other.zip does not exist"),
        (["", " "], r"names no picture"),
    ],
)
def test_a_broken_index_is_explained(tmp_path, lines, why):
    with pytest.raises(UserError, match=why):
        opened(lay_out(tmp_path, lines))


def test_a_missing_entry_is_a_rejected_sample(tmp_path):
    source = opened(lay_out(tmp_path, ["test.zip@cls/a.jpg 0", "test.zip@gone.jpg 1"]))
    assert verdict(source, 1) == "missing file: gone.jpg is not in test.zip"


def test_a_picture_that_is_named_twice_has_two_ids(tmp_path):
    source = opened(lay_out(tmp_path, ["test.zip@cls/a.jpg 0", "test.zip@cls/a.jpg 1"]))
    assert source.ids == ["test.zip@cls/a.jpg", "test.zip@cls/a.jpg#2"]


def test_a_class_that_is_named_twice_is_refused(tmp_path):
    with pytest.raises(UserError, match="'red' is named twice"):
        opened(lay_out(tmp_path, ["test.zip@cls/a.jpg 0"], "red\nred\n"))


def coco(home: Path, **changes) -> Path:
    content = {
        "images": [{"id": 9, "file_name": "b.jpg", "zip_file": "i.zip"},
                   {"id": 3, "file_name": "a.jpg", "zip_file": "i.zip"}],
        "annotations": [{"image_id": 3, "category_id": 7}, {"image_id": 9, "category_id": 2}],
        "categories": [{"id": 7, "name": "dog"}, {"id": 2, "name": "cat"}],
    } | changes  # fmt: skip
    add_zip(home / "i.zip", {"a.jpg": picture(1), "b.jpg": picture(2)})
    add_files(home, {"test.json": json.dumps(content)})
    return home


def test_coco_is_in_the_order_of_its_ids(tmp_path):
    source: Any = open_source(f"elevater:{coco(tmp_path)}", index="test.json", labels="")
    assert source.ids == ["i.zip@a.jpg", "i.zip@b.jpg"]
    assert source.classes == ("cat", "dog") and source.label_rows == [(1,), (0,)]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"annotations": [{"image_id": 3, "category_id": 1}]}, "label out of range"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "have the same id"),
        ({"images": [{"file_name": "a.jpg"}]}, "is no COCO index"),
    ],
)
def test_a_broken_coco_index_is_explained(tmp_path, changes, why):
    with pytest.raises(UserError, match=why):
        open_source(f"elevater:{coco(tmp_path, **changes)}", index="test.json", labels="")


def test_a_known_set_must_have_its_number_of_classes(tmp_path):
    home = lay_out(tmp_path / "dtd_20211007", ["test.zip@cls/a.jpg 0"])
    with pytest.raises(UserError, match="names 3 classes, but dtd has 47"):
        open_source(str(home))


def test_the_table_is_the_leaderboards():
    assert len(LEADERBOARD) == 20 and len(ELEVATER) == 21
    assert sum(ELEVATER[name].classes for name in LEADERBOARD) == 1151
    assert [e.name for e in chosen_sets(["dtd", "cifar-10"])] == ["dtd", "cifar10"]
    with pytest.raises(UserError, match=r"no set 'cifr10'\. Did you mean 'cifar10'"):
        chosen_sets(["cifr10"])


def test_a_known_set_of_one_label_a_picture_has_no_more(tmp_path):
    home = coco(tmp_path / "hateful_memes_20211014", annotations=[
        {"image_id": 3, "category_id": 7}, {"image_id": 3, "category_id": 2}])  # fmt: skip
    (home / "test.json").rename(home / "test_meta.json")
    with pytest.raises(UserError, match="several labels, but hateful-memes is judged by roc_auc"):
        open_source(str(home))


def test_status_tells_what_is_there_and_what_is_missing(tmp_path, capsys):
    home = tmp_path / "classification" / "eurosat_clip_20210930"
    add_files(home, dict.fromkeys(("train.txt", "test.txt", "labels.txt", "2750.zip"), ""))
    add_files(tmp_path / "classification" / "dtd_20211007", {"test.txt": ""})
    rows = {row[0]: row for row in status_table(tmp_path)["rows"]}
    assert rows["eurosat-clip"][1] == "present"
    assert rows["dtd"][1] == "incomplete" and "train.zip" in rows["dtd"][5]
    assert rows["mnist"][1] == "absent"
    assert cli.main(["data", "elevater", "status", str(tmp_path)]) == 0
    assert "1 of 21 sets are whole" in capsys.readouterr().out
    assert cli.main(["data", "elevater", "statsu", str(tmp_path)]) == 2
    assert "Did you mean 'status'?" in capsys.readouterr().err
    assert cli.main(["data", "elevater", "status", str(tmp_path / "none")]) == 2


def test_a_registry_describes_sets_of_your_own(tmp_path):
    lay_out(tmp_path / "classification" / "toy_1", ["test.zip@cls/a.jpg 1"])
    record = {
        "name": "toy", "root_folder": "classification/toy_1", "labelmap": "labels.txt",
        "num_classes": 3, "metric": "mean-per-class",
        "test": {"index_path": "test.txt", "num_images": 1, "files_for_local_usage": ["test.zip"]},
    }  # fmt: skip
    registry = tmp_path / "registry.json"
    registry.write_text(json.dumps([record]))
    (entry,) = chosen_sets(["all"], registry)
    assert (entry.metric, entry.classes, entry.test) == ("mean-per-class", 3, 1)
    assert status_table(tmp_path, registry)["rows"][0][1] == "present"
    source = open_source(f"elevater:{tmp_path}/classification/toy_1", registry=str(registry))
    assert source.name == "toy-test" and source[0].labels == (1,)
    registry.write_text('[{"name": "toy"}]')
    with pytest.raises(UserError, match="a set needs name, root_folder"):
        chosen_sets(["all"], registry)


# --- names and knowledge ----------------------------------------------------------------------


def test_names_follow_the_order_of_the_labels(tmp_path):
    entry = ELEVATER["voc2007classification"]
    file = tmp_path / "words.json"
    told = {"classes": ["green tea", ["red", "crimson"]], "templates": ["a {}."]}
    file.write_text(json.dumps({entry.registered: told}))
    words = set_words(entry, ["Red", "Green_Tea"], str(file))
    assert words.names == ("red", "green tea") and words.templates == ("a {}.",)
    with pytest.raises(UserError, match="'blue' is not among them"):
        set_words(entry, ["red", "blue"], str(file))
    with pytest.raises(UserError, match="2 names for 1 labels"):
        set_words(entry, ["red"], str(file))
    assert set_words(entry, ["a_b", "c"], "labels").names == ("a b", "c")
    with pytest.raises(UserError, match="the labels are numbers"):
        set_words(entry, ["0", "1"], "labels")
    with pytest.raises(UserError, match="says nothing of 'dtd'"):
        set_words(ELEVATER["dtd"], ["red"], str(file))
    assert in_order_of(["x"], {"x": "a thing"}, "s", "f") == ["a thing"]


def test_names_of_an_installed_package_are_put_into_the_labels_order():
    pytest.importorskip("clip_benchmark")
    labels = ["river", "pasture land"]
    with pytest.raises(UserError, match="are not those of its labels"):
        set_words(ELEVATER["eurosat-clip"], labels)
    plain = set_words(ELEVATER["cifar10"], ["truck", "cat"])
    assert plain.names == ("truck", "cat") and len(plain.templates) == 18
    turned = set_words(ELEVATER["mnist"], [str(k) for k in range(10)])
    assert turned.names == tuple(str(k) for k in range(10))


GIVEN = {
    "none": ((), 1, True), "wiki": (("wiki",), 1, True), "wordnet_def": (("wordnet",), 1, True),
    "wordnet_path": (("hierarchy",), 1, True), "gpt3_1": (("gpt3",), 1, True),
    "gpt3_3": (("gpt3",), 3, True), "wiki_and_gpt3_2": (("wiki", "gpt3"), 2, True),
    "wiki_then_gpt3_2": (("wiki", "gpt3"), 2, False),
    "wiki_plus_path_last_wins": (("wiki", "hierarchy"), 1, True), "gpt3_0": (("gpt3",), 0, True),
}  # fmt: skip


@pytest.mark.parametrize("case", GIVEN)
def test_knowledge_is_told_as_the_original_tells_it(case):
    golden = json.loads(GOLDEN.read_text())["knowledge"]
    kinds, items, together = GIVEN[case]
    dictionary = {row["classname"]: row for row in golden["wiki"]}
    gpt3 = {row["classname"]: row["gpt3"] for row in golden["gpt3"]}
    known = Knowledge(kinds, dictionary, gpt3, items, together)
    names = [name if isinstance(name, str) else name[0] for name in golden["classes"]]
    found = [known.prompts(name, golden["templates"]) for name in names]
    assert found == golden["cases"][case]


def test_knowledge_that_is_not_there_is_explained(tmp_path):
    with pytest.raises(UserError, match=r"no knowledge 'wikipedia'\. Did you mean 'wiki'"):
        read_knowledge(["wikipedia"])
    with pytest.raises(UserError, match="no file of knowledge"):
        read_knowledge(["wiki"], tmp_path / "none.tsv")
    (tmp_path / "x.tsv").write_text('[{"classname": "a"}]')
    with pytest.raises(UserError, match="classname and gpt3"):
        read_knowledge(["gpt3"], gpt3=tmp_path / "x.tsv")
    assert read_knowledge(["wiki"], tmp_path / "x.tsv").pieces("a") == [None]


def test_words_and_marks_are_separated():
    assert separate('say "no", it\'s 3.5%.') == [
        "say", "``", "no", "''", ",", "it", "'s", "3.5", "%", "."
    ]  # fmt: skip
