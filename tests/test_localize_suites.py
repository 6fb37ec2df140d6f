"""Grounding and GRIT from files to numbers; runs that are killed; the command."""

# ruff: noqa: F811  pytest's fixtures are arguments

import json

import numpy as np
import pytest
from PIL import Image

from localize_cases import NUMBERS, SAMPLE, photos, samples_file, small_model  # noqa: F401  a fixture
from vislang.cli import main as cli
from vislang.errors import UserError
from vislang.localize.baselines import centre
from vislang.localize.draw import draw, edges, sheet
from vislang.localize.grit import judge_answers, run_grit
from vislang.localize.grit_format import write_submission
from vislang.localize.grit_samples import read_samples
from vislang.localize.grounding import ground, judge, run_grounding
from vislang.localize.phrases import (
    Grounded,
    Images,
    coco_phrases,
    flickr_entities,
    read_phrases,
    refcoco_json,
    zsg_csv,
)
from vislang.localize.protocol import Located
from vislang.report.boxes import write_boxes


def test_the_readers_read_what_the_original_reads(tmp_path, photos):
    readers = NUMBERS["zsg"]["readers"]
    file = tmp_path / "flickr.csv"
    file.write_text(readers["flickr_csv"])
    found = zsg_csv(file)
    assert [p.image for p in found] == readers["flickr"]["image_paths"]
    assert [p.text for p in found] == [q[0] for q in readers["flickr"]["phrases"]]
    assert found[0].boxes == (tuple(readers["flickr"]["item0"]["bbox"]),)
    file.write_text(readers["vg_csv"])
    assert zsg_csv(file)[0] == Grounded("0", "VG_100K/7.jpg", "white dog", ((3, 4, 9, 11),))
    for part in ("Sentences", "Annotations"):
        (tmp_path / part).mkdir()
    (tmp_path / "Sentences/123.txt").write_text(readers["sentence"])
    boxes = "".join(
        f"<object><name>{k}</name><bndbox><xmin>{k}</xmin><ymin>0</ymin><xmax>9</xmax>"
        "<ymax>9</ymax></bndbox></object>" for k in (1, 3, 3)
    )  # fmt: skip
    xml = f"<a><size><width>60</width><height>40</height></size>{boxes}</a>"
    (tmp_path / "Annotations/123.xml").write_text(xml)
    found = flickr_entities(tmp_path, Images(photos))
    expected = {k: v for k, v in readers["phrase_types"].items() if k != "a hat"}  # has no box
    assert {p.text: p.kind for p in found} == expected
    assert len(found[1].boxes) == 2 and found[0].size == (40, 60)
    record = ground(centre(), Images(photos), found)[0]
    assert record["truth"] == [[0.5, 0.0, 4.5, 4.5]]  # in the smaller picture
    kept = flickr_entities(tmp_path, Images(photos), ["vehicles"])
    assert [p.text for p in kept] == ["a red car"]


def test_refcoco_and_coco(tmp_path):
    file = tmp_path / "r.json"
    refs = [{"ref_id": 1, "ann_id": 5, "file_name": "a.jpg", "split": "val",
             "sentences": [{"sent": "left man"}, "man"]}]  # fmt: skip
    file.write_text(json.dumps({"refs": refs, "annotations": [{"id": 5, "bbox": [1, 2, 3, 4]}]}))
    assert [p.text for p in refcoco_json(file)] == ["left man", "man"]
    assert refcoco_json(file)[0].boxes == ((1, 2, 4, 6),)
    with pytest.raises(UserError, match="no phrase"):
        refcoco_json(file, "test")
    body = {"images": [{"id": 1, "file_name": "a.jpg", "caption": "a man"}],
            "annotations": [{"image_id": 1, "category_id": 2, "bbox": [0, 0, 2, 2]},
                            {"image_id": 1, "category_id": 2, "bbox": [0, 0, 9, 9], "iscrowd": 1}],
            "categories": [{"id": 2, "name": "person"}]}  # fmt: skip
    file.write_text(json.dumps(body))
    assert len(refcoco_json(file)[0].boxes) == 2
    assert coco_phrases(file)[0] == Grounded("1/2", "a.jpg", "person", ((0, 0, 2, 2),), "person")


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("zsg", "img_id,bbox,query\n1,nowhere,a\n", "row 2"),
        ("zsg", "a,b\n1,2\n", "columns"),
        ("zsg", "img_id,bbox,query\n", "no phrase"),
        ("coco", "{}", "COCO"),
        ("coco", "{", "not JSON"),
        ("votes", "{}", "refcoco"),
    ],
)
def test_bad_annotations_are_named(tmp_path, photos, kind, text, words):
    file = tmp_path / "bad"
    file.write_text(text)
    with pytest.raises(UserError, match=words):
        read_phrases(kind, file, Images(photos))


def test_xml_bombs_and_missing_pictures(tmp_path, photos):
    for part in ("Sentences", "Annotations"):
        (tmp_path / part).mkdir()
    (tmp_path / "Sentences/123.txt").write_text("[/EN#1/people A man]")
    (tmp_path / "Annotations/123.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><a/>')
    with pytest.raises(UserError, match="entities"):
        flickr_entities(tmp_path, Images(photos))
    with pytest.raises(UserError, match="neither"):
        Images(tmp_path / "nowhere")


def test_every_picture_gets_a_row_or_a_reason(photos):
    names = ["123.jpg", "124.jpg", "125.jpg", "126.png", "127.jpg", "128.jpg", "123.jpg"]
    box = ((0.0, 0.0, 10.0, 10.0),)
    phrases = [Grounded(str(k), n, "a cup", box) for k, n in enumerate(names)]
    phrases.append(Grounded("empty", "123.jpg", " ", box))
    records = ground(centre(), Images(photos), phrases)
    assert [r["id"] for r in records] == [p.id for p in phrases]
    assert [bool(r["reason"]) for r in records] == [False] * 4 + [True, True, False, True]
    assert records[2]["size"] == [30, 20]  # turned upright
    scores = judge(records)
    assert scores.values["accuracy_iou50"].n == len(set(names))
    assert scores.values["accuracy_iou50"].value == scores.values["centre_accuracy_iou50"].value
    assert len(scores.notes) == 3
    with pytest.raises(UserError, match="no phrase"):
        judge([])


def test_thresholds_are_strict_or_inclusive_and_boxes_join():
    def record(boxes, truth, image):
        return {"id": image, "image": image, "text": "a", "kind": "k", "size": [100, 100],
                "truth": truth, "boxes": boxes, "point": [1, 1], "reason": None}  # fmt: skip

    half = [record([[0, 0, 2, 1]], [[0, 0, 1, 1]], "a"), record([], [[0, 0, 1, 1]], "b")]
    values = judge(half).values
    assert values["accuracy_iou50"].value == 0
    assert values["accuracy_iou50_inclusive"].value == 0.5
    assert values["pointing"].value == 1.0
    two = [record([[0, 0, 10, 10]], [[0, 0, 10, 10], [10, 0, 20, 10]], "a")] * 2
    assert judge(two, several="union").values["mean_iou"].value == pytest.approx(0.5)
    assert judge(two, several="any").values["mean_iou"].value == pytest.approx(1.0)
    assert judge(two).tables["per_kind"]["rows"][0][:2] == ["k", 2]


def test_a_run_goes_on_and_the_page_is_made(tmp_path, photos):
    from vislang.localize.dense import Dense

    box = ((3.0, 3.0, 20.0, 18.0),)
    phrases = [
        Grounded(str(k), n, "a <b>cup</b>", box, "things")
        for k, n in enumerate(["123.jpg", "124.jpg", "126.png"])
    ]
    localizer = Dense(small_model(), "naclip")
    images = Images(photos)
    scores = run_grounding(localizer, images, phrases, tmp_path / "run", shard=1)
    stamp = (tmp_path / "run/part-00000.json").stat().st_mtime_ns
    again = run_grounding(localizer, images, phrases, tmp_path / "run", shard=1)
    assert again.values == scores.values
    assert (tmp_path / "run/part-00000.json").stat().st_mtime_ns == stamp
    with pytest.raises(UserError, match="other settings"):
        run_grounding(centre(), images, phrases, tmp_path / "run", shard=1)
    records = json.loads((tmp_path / "run/records.json").read_text())

    def drawn(record):
        image = images.read(record["image"])
        return draw(image, localizer([image], [[record["text"]]])[0][0], record["truth"])

    page = write_boxes(scores.as_json(), records, drawn, tmp_path / "boxes.html").read_text()
    assert page.count("data:image/") >= 9 and "<b>cup</b>" not in page
    assert "centre_" in page.replace("<wbr>", "") and "things" in page


def test_drawings():
    image = np.full((40, 60, 3), 90, np.uint8)
    heat = np.linspace(0, 1, 24).reshape(4, 6).astype(np.float32)
    found = Located(
        np.float32([[5, 5, 30, 30], [-9, -9, 900, 900], [8, 8, 8, 8]]), np.ones(3, np.float32), heat
    )
    shown = np.asarray(draw(image, found, [[10, 10, 50, 35]]))
    assert (shown[5, 10] == (214, 39, 40)).all() and (shown[34, 40] == (31, 90, 200)).all()
    assert edges(image, np.arange(24).reshape(4, 6)).max() == 255
    assert sheet(image, ["a", "b" * 200], [found, found]).width > 100


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> str:
    from vislang.models.saved import save_model

    model = small_model()
    return str(save_model(model, model.config, tmp_path_factory.mktemp("model") / "m"))


def test_the_command_draws(tmp_path, photos, saved, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = ["localize", saved, str(photos / "123.jpg"), "a cup", "a spoon", "--device", "cpu"]
    assert cli.main([*run, "--options.levels", "[5, 9]", "--options.boxes", "2"]) == 0
    told = capsys.readouterr().out
    assert "'a cup':" in told and "123-boxes.png" in told
    with Image.open("123-boxes.png") as drawn:
        assert drawn.width > 100
    for wrong, words in (
        (["localize", saved, str(photos / "127.jpg"), "a"], "not an image"),
        (["localize", saved, str(photos / "128.jpg"), "a"], "128.jpg"),
        (["localize", saved, str(photos / "123.jpg")], "Say what"),
        (["localize", saved, str(photos / "123.jpg"), ""], "empty"),
        ([*run, "--method", "slickvit"], "Did you mean 'slicvit'"),
        ([*run, "--suite", "grit"], "--images"),
        ([*run, "--suite", "imagenet"], "grounding, detection, grit"),
    ):
        assert cli.main(wrong) == 2
        assert words in capsys.readouterr().err


def test_the_command_judges(tmp_path, photos, saved, capsys):
    file = tmp_path / "f.csv"
    file.write_text('img_id,bbox,query\n123,"[1, 2, 20, 15]",a cup\n124,"[1, 2, 9, 9]",a cup\n')
    common = ["--images", str(photos), "--device", "cpu", "--method", "maskclip"]
    run = ["localize", saved, str(file), "--suite", "grounding", "--format", "zsg", *common]
    assert cli.main([*run, "--out", str(tmp_path / "g")]) == 0
    assert "centre_accuracy_iou50" in capsys.readouterr().out
    body = json.loads((tmp_path / "g/grounding.json").read_text())
    assert body["n"] == 2 and (tmp_path / "g/boxes.html").stat().st_size > 10_000
    samples = samples_file(tmp_path, [SAMPLE, SAMPLE | {"example_id": "b", "image_id": "no.jpg"}])
    run = ["localize", saved, str(samples), "--suite", "grit", *common]
    assert cli.main([*run, "--out", str(tmp_path / "h")]) == 0
    told = capsys.readouterr().out
    assert "no answer to b" in told and "valid submission, 2 answers" in told
    assert (tmp_path / "h/ablation.zip").exists()
    assert cli.main([*run, "--tasks", "vqa", "--out", str(tmp_path / "h")]) == 2


def test_real_pictures_and_examples(test_data, tmp_path, saved):
    """Flickr30k Entities, GRIT's examples and COCO through every evaluator."""
    images = Images(test_data / "flickr8k/images_224_sample.zip")
    archive = test_data / "flickr8k/flickr30k_entities.tar.gz"
    phrases = flickr_entities(archive, images)[:25]
    assert {"people"} <= {p.kind for p in phrases}
    scores = judge(ground(centre(), images, phrases))
    assert scores.values["accuracy_iou30"].value > 0.1
    examples = test_data / "grit-examples"
    samples = read_samples(examples / "samples.json", ("localization", "refexp"))
    answers = run_grit(centre(), samples, examples, tmp_path / "run")
    judged = judge_answers(answers, samples)
    assert len(judged) == 4 and all(0 <= j.metric <= 1 for j in judged)
    validate = write_submission(tmp_path / "ablation.zip", answers, samples, 0)
    assert validate.exists()
    coco = coco_phrases(test_data / "coco-mini/annotations_320/instances_val2017.json")[:20]
    pictures = Images(test_data / "coco-mini/images_320_val2017.zip")
    assert not [r for r in ground(centre(), pictures, coco) if r["reason"]]
