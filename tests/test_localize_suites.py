"""Grounding and GRIT from files to numbers; runs that are killed; the command."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from localize_cases import GOLDEN, NUMBERS, picture, small_model
from vislang.cli import main as cli
from vislang.errors import UserError
from vislang.localize.baselines import centre, random
from vislang.localize.draw import draw, edges, sheet
from vislang.localize.grit import (
    Confidence,
    distort,
    judge_answers,
    make_distorted,
    read_samples,
    run_grit,
    validate_submission,
    write_submission,
)
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


@pytest.fixture
def photos(tmp_path) -> Path:
    """Pictures of 30 x 20: plain, greyscale, turned by EXIF, one pixel high, not a picture."""
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.ascontiguousarray(picture("coffee_wide")[::20, ::20])
    Image.fromarray(pixels).save(folder / "123.jpg")
    Image.fromarray(pixels).convert("L").save(folder / "124_abc.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels).save(folder / "125.jpg", exif=turned)
    Image.fromarray(pixels[:1]).save(folder / "126.png")
    (folder / "127.jpg").write_bytes(b"no picture")
    return folder


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


SAMPLE = {"example_id": "a", "image_id": "123.jpg", "task_name": "localization",
          "task_query": "cup", "task_bbox": None, "output_options": None}  # fmt: skip


def samples_file(folder: Path, rows) -> Path:
    file = folder / "samples.json"
    file.write_text(json.dumps(rows))
    return file


def test_distortions_are_the_golden():
    numbers = np.load(GOLDEN / "localize_methods.npz")
    image = numbers["distortion.a"]
    for kind in ("int16_inrange", "int16_overflow", "float32", "int8_wrap"):
        found = distort(image, numbers[f"distortion.delta_{kind}"])
        np.testing.assert_array_equal(found, numbers[f"distortion.result_{kind}"], err_msg=kind)
    delta = numbers["distortion.delta_int16_overflow"]
    clipped = distort(image, delta, "clip").astype(int)
    np.testing.assert_array_equal(clipped, np.clip(image.astype(int) + delta, 0, 255))
    with pytest.raises(UserError, match="delta is"):
        distort(image, delta[:3])


def test_distorted_pictures_are_made_once(tmp_path, photos):
    h5py = pytest.importorskip("h5py")
    root = tmp_path / "GRIT"
    (root / "images").mkdir(parents=True)
    Image.fromarray(np.full((4, 5, 3), 250, np.uint8)).save(root / "images/p.png")
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        file["a"] = np.full((4, 5, 3), 10, np.int16)
    row = SAMPLE | {"example_id": "a_dist", "image_id": "distorted/localization/p.png"}
    samples = read_samples(samples_file(tmp_path, [row]))
    assert make_distorted(root, samples, tmp_path / "d.hdf5") == 1
    assert make_distorted(root, samples, tmp_path / "d.hdf5") == 0
    with Image.open(root / "images/distorted/localization/p.png") as file:
        made = np.asarray(file)
    assert (made == 4).all()  # 260 wraps
    with pytest.raises(UserError, match="no delta"):
        other = read_samples(
            samples_file(
                tmp_path,
                [row | {"example_id": "b_dist", "image_id": "distorted/localization/q.png"}],
            )
        )
        make_distorted(root, other, tmp_path / "d.hdf5")


def test_samples_are_checked(tmp_path):
    other = SAMPLE | {"example_id": "b", "task_name": "vqa"}
    assert [s.id for s in read_samples(samples_file(tmp_path, [SAMPLE, other]))] == ["a"]
    for rows, words in (
        ([SAMPLE, SAMPLE], "twice"),
        ([{"example_id": "a"}], "task_name"),
        ([SAMPLE | {"task_name": "sing"}], "Known"),
        ([other], "no sample"),
    ):
        with pytest.raises(UserError, match=words):
            read_samples(samples_file(tmp_path, rows))


def test_a_submission_is_whole_and_valid(tmp_path, photos):
    names = ["123.jpg", "127.jpg", "nowhere.jpg", "../../etc/passwd", "123.jpg"]
    rows = [SAMPLE | {"example_id": str(k), "image_id": n} for k, n in enumerate(names)]
    rows[4]["task_query"] = ""
    samples = read_samples(samples_file(tmp_path, rows))
    answers = run_grit(random(), samples, photos, tmp_path / "run", shard=2)
    entries = answers["localization"]
    assert [e["example_id"] for e in entries] == ["0", "1", "2", "3", "4"]
    assert entries[0]["bboxes"] and all(e["confidence"] == 0 for e in entries[1:])
    assert all(not e["bboxes"] and e["reason"] for e in entries[1:])
    file = write_submission(tmp_path / "ablation.zip", answers, samples, 151)
    with zipfile.ZipFile(file) as made:
        assert sorted(made.namelist()) == ["ablation/localization.json", "ablation/params.json"]
        body = json.loads(made.read("ablation/localization.json"))
    assert set(body[0]) == {"example_id", "confidence", "bboxes"}
    assert validate_submission(file, "ablation", samples) == {"localization": 5}
    with pytest.raises(UserError, match="missing"):
        write_submission(tmp_path / "test.zip", {"localization": entries[1:]}, samples, 1)
    assert not (tmp_path / "test.zip").exists()
    for change, words in (
        ({"confidence": 2}, "confidence"),
        ({"confidence": float("nan")}, "confidence"),
        ({"bboxes": [[1, 2, 3]]}, "4 finite"),
        ({"bboxes": [[1, 2, 3, float("nan")]]}, "4 finite"),
        ({"bboxes": None}, "list"),
        ({"example_id": 7}, "example_id"),
    ):
        bad = {"localization": [entries[0] | change, *entries[1:]]}
        with pytest.raises(UserError, match=words):
            write_submission(tmp_path / "test.zip", bad, samples, 1)
    with pytest.raises(UserError, match="called"):
        write_submission(tmp_path / "mine.zip", answers, samples, 1)


@pytest.mark.parametrize(
    ("task", "good", "bad"),
    [
        ("vqa", {"words": "two"}, {"words": ["two"]}),
        ("keypoint", {"points": [[0] * 51]}, {"points": [[0] * 50]}),
        ("segmentation", {"masks": [{"size": [2, 2], "counts": "04"}]}, {"masks": [{"size": [2]}]}),
        ("normal", {"normal": "1.png"}, {"normal": None}),
    ],
)
def test_all_result_formats(task, good, bad):
    def packed(entry) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as made:
            made.writestr("test/params.json", '{"params_in_millions": 1}')
            row = {"example_id": "a", "confidence": 0.5} | entry
            made.writestr(f"test/{task}.json", json.dumps([row]))
        return buffer.getvalue()

    assert validate_submission(packed(good), "test", []) == {task: 1}
    with pytest.raises(UserError, match=task):
        validate_submission(packed(bad), "test", [])


def test_confidence_is_calibrated():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=4000)
    right = rng.random(4000) < 1 / (1 + np.exp(-(2 * scores - 1)))
    found = Confidence.fit(scores, right)
    assert found.a == pytest.approx(2, abs=0.25) and found.b == pytest.approx(-1, abs=0.15)
    assert found(float("nan")) == 0.5 and 0 <= found(1e9) <= 1


def test_a_killed_run_goes_on(tmp_path, photos, child_environment):
    """A toy GRIT tree from samples to a valid zip, killed twice in the middle."""
    rows = [SAMPLE | {"example_id": f"s{k:02d}", "image_id": "123.jpg"} for k in range(12)]
    file = samples_file(tmp_path, rows)
    program = """
import sys, time
from vislang.localize.baselines import random
from vislang.localize.grit import read_samples, run_grit, write_submission
plain = random()
def slow(images, phrases):
    time.sleep(0.25)
    return plain(images, phrases)
slow.name, slow.settings = plain.name, plain.settings
samples = read_samples(sys.argv[1])
answers = run_grit(slow, samples, sys.argv[2], sys.argv[3], shard=1)
write_submission(sys.argv[3] + '/test.zip', answers, samples, 1)
"""
    out = tmp_path / "run"
    command = [sys.executable, "-c", program, str(file), str(photos), str(out)]
    for at_least in (2, 5):
        child = subprocess.Popen(command, env=child_environment)
        wait = time.monotonic() + 120
        while len(list(out.glob("units/*.json"))) < at_least and time.monotonic() < wait:
            time.sleep(0.02)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert not (out / "test.zip").exists()
    kept = {p: p.stat().st_mtime_ns for p in out.glob("localization-*.json")}
    assert len(kept) >= 5
    subprocess.run(command, env=child_environment, check=True)
    whole = [p for p, stamp in kept.items() if p.stat().st_mtime_ns == stamp]
    assert len(whole) >= len(kept) - 1  # at most one was written without its note
    samples = read_samples(file)
    assert validate_submission(out / "test.zip", "test", samples) == {"localization": 12}
    plain = run_grit(random(), samples, photos, tmp_path / "other", shard=1)
    with zipfile.ZipFile(out / "test.zip") as made:
        body = json.loads(made.read("test/localization.json"))
    assert [e["bboxes"] for e in body] == [e["bboxes"] for e in plain["localization"]]


def test_processes_share_the_pieces(tmp_path, photos, monkeypatch):
    rows = [SAMPLE | {"example_id": str(k)} for k in range(4)]
    samples = read_samples(samples_file(tmp_path, rows))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert run_grit(random(), samples, photos, tmp_path / "run", shard=1) is None
    monkeypatch.setenv("RANK", "1")
    assert len(run_grit(random(), samples, photos, tmp_path / "run", shard=1)["localization"]) == 4


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
        ([*run, "--suite", "imagenet"], "grounding or grit"),
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
