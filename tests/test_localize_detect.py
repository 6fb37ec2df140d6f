"""COCO's average precision of localizers, and grounding under described shifts."""

import io
import json
from contextlib import redirect_stdout
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from vislang.cli import main as cli
from vislang.data.domains import open_domains
from vislang.errors import UserError
from vislang.localize.baselines import random
from vislang.localize.detect import judge, read_instances, run_detection
from vislang.localize.phrases import Grounded, Images
from vislang.localize.protocol import Located, nothing
from vislang.localize.shifts import Shifted, run_shifts
from vislang.metrics.detection import Detections, Matches, Objects, average_precision

BOX = (20, 10, 50, 30)  # of the red thing in a picture of 60 x 80


class Red:
    """Finds what is red, whatever it is asked for."""

    name, settings = "red", {}

    def __call__(self, images, phrases):
        return [[self.find(image)] * len(some) for image, some in zip(images, phrases)]

    def find(self, image):
        red = (image[..., 0] > 150) & (image[..., 1] < 100)
        if not red.any():
            return nothing()
        rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
        box = [[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]]
        return Located(np.array(box, np.float32), np.array([0.9], np.float32))


@pytest.fixture
def coco(tmp_path):
    """Three pictures of which one is missing, with a red thing each, and a file of COCO's."""
    (tmp_path / "pictures").mkdir()
    pixels = np.full((60, 80, 3), (30, 60, 30), np.uint8)
    pixels[BOX[1] : BOX[3], BOX[0] : BOX[2]] = (230, 20, 20)
    for name in "ab":
        Image.fromarray(pixels).save(tmp_path / f"pictures/{name}.png")
    x1, y1, x2, y2 = BOX
    body = {
        # The file's sizes are twice those of the pictures, and so are its boxes.
        "images": [{"id": i, "file_name": f"{n}.png", "width": 160, "height": 120}
                   for i, n in enumerate("abc")],
        "categories": [{"id": 5, "name": "mug"}],
        "annotations": [{"id": 10 + i, "image_id": i, "category_id": 5, "area": 2400, "iscrowd": 0,
                         "bbox": [2 * x1, 2 * y1, 2 * (x2 - x1), 2 * (y2 - y1)]}
                        for i in range(3)],
    }  # fmt: skip
    (tmp_path / "instances.json").write_text(json.dumps(body))
    return tmp_path


def test_every_picture_counts_also_the_one_that_is_missing(coco):
    instances = read_instances(coco / "instances.json")
    scores = run_detection(Red(), Images(coco / "pictures"), instances, coco / "out", shard=2)
    # Two of three found: precision is 1 up to recall 2/3, which 67 of the 101 recalls are.
    assert scores.values["AP"].value == pytest.approx(67 / 101)
    assert scores.values["AR100"].value == pytest.approx(2 / 3) and "AP_large" not in scores.values
    low, high = scores.values["AP"].low, scores.values["AP"].high
    assert low < scores.values["AP"].value < high <= 1
    assert "1 pictures could not be read" in scores.notes[0]
    assert json.loads((coco / "out/unread.json").read_text())[0]["image_id"] == 2
    found = json.loads((coco / "out/detections.json").read_text())
    assert [f["bbox"] for f in found] == [[40, 20, 60, 40]] * 2
    assert scores.tables["per_category"]["rows"] == [["mug", 3, pytest.approx(67 / 101)]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: b.pop("categories"), "not a COCO instances file"),
        (lambda b: b["images"].append(b["images"][0]), "an image id occurs twice"),
        (lambda b: b["annotations"][1].update(image_id=9), "1 annotations have no box.*is 11"),
        (lambda b: b["annotations"][2].update(bbox=[1, 2, 3]), "1 annotations have no box.*is 12"),
        (lambda b: b["annotations"].clear(), "no average precision"),
    ],
)
def test_bad_files_are_named(coco, change, words):
    body = json.loads((coco / "instances.json").read_text())
    change(body)
    (coco / "instances.json").write_text(json.dumps(body))
    with pytest.raises(UserError, match=words):
        judge(read_instances(coco / "instances.json"), [])


def test_weights_are_repetitions():
    rng = np.random.default_rng(0)
    found, truth = {}, {}
    for image in range(6):
        real = rng.uniform(0, 50, (3, 2))
        real = np.concatenate([real, real + rng.uniform(20, 90, (3, 2))], 1)
        truth[image, 0] = Objects(real, np.zeros(3, int), (real[:, 2:] - real[:, :2]).prod(1))
        near = real + rng.normal(0, 4, real.shape)
        found[image, 0] = Detections(near, rng.random(3))
    weights = np.array([2, 0, 1, 3, 0, 1])
    copies = [(i, k) for i in range(6) for k in range(weights[i])]
    again = [{(i * 10 + k, 0): part[i, 0] for i, k in copies} for part in (found, truth)]
    ours, theirs = Matches(found, truth).summary(weights), average_precision(*again)
    assert ours == pytest.approx(theirs, nan_ok=True) and 0.1 < ours["AP"] < 1


def test_real_pictures_are_judged_as_pycocotools_judges(test_data, tmp_path):
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    folder = test_data / "coco-mini"
    file = folder / "annotations_320/instances_val2017.json"
    instances = read_instances(file)
    pictures = Images(folder / "images_320_val2017.zip")
    some = dict(list(instances.images.items())[:40])
    instances = replace(instances, images=some)
    scores = run_detection(random(), pictures, instances, tmp_path / "out", draws=2)
    with redirect_stdout(io.StringIO()):
        theirs = COCO(str(file))
        answers = theirs.loadRes(json.loads((tmp_path / "out/detections.json").read_text()))
        judged = COCOeval(theirs, answers, "bbox")
        judged.params.imgIds = list(some)
        judged.evaluate(), judged.accumulate(), judged.summarize()
    ours = [scores.values[n].value for n in scores.values]
    np.testing.assert_allclose(ours, judged.stats, atol=1e-12)
    assert ours[8] > 0.001  # AR100: random boxes meet some objects


def test_boxes_move_with_the_picture(coco, tmp_path):
    pictures, phrase = Images(coco / "pictures"), Grounded("0", "a.png", "a red mug", (BOX,))
    domains = {d.name: d for d in open_domains()}
    turned = Shifted(pictures, domains["upside_down"]).truth(phrase)
    assert turned.boxes == ((80 - BOX[2], 60 - BOX[3], 80 - BOX[0], 60 - BOX[1]),)
    assert Shifted(pictures, domains["sepia"]).truth(phrase) == phrase
    corner = Grounded("0", "a.png", "a red mug", ((0, 0, 4, 4),))
    assert Shifted(pictures, domains["closeup"]).truth(corner) is None
    phrases = [Grounded(n, f"{n}.png", "a red mug", (BOX,)) for n in "ab"]
    asked = []

    class Listens(Red):
        def __call__(self, images, phrases):
            asked.extend(p for some in phrases for p in some)
            return super().__call__(images, phrases)

    some = [domains[n] for n in ("upside_down", "grayscale", "noop", "sideways", "closeup")]
    scores = run_shifts(Listens(), pictures, phrases, tmp_path / "out", some, named=True)
    rows = {row[0]: row for row in scores.tables["domains"]["rows"]}
    assert next(iter(rows)) == "noop"
    for name in ("noop", "upside_down", "sideways", "closeup"):
        assert rows[name][2] == 1 and rows[name][7] == 0, name
    assert rows["grayscale"][2] == 0 and rows["grayscale"][7] == -1
    assert "a black and white photo of a red mug" in asked
    with pytest.raises(UserError, match="must hold noop"):
        run_shifts(Red(), pictures, phrases, tmp_path / "o", some[:1])


def test_the_command_detects_shifts_and_calibrates(coco, capsys):
    place = ["--images", str(coco / "pictures"), "--method", "centre"]
    file = ["localize", "none", str(coco / "instances.json")]
    detect = [*file, "--suite", "detection", *place, "--out", str(coco / "d")]
    assert cli.main(detect) == 0
    assert "AP50" in capsys.readouterr().out and (coco / "d/detection.html").exists()
    ground = [*file, "--suite", "grounding", "--format", "coco", *place]
    assert cli.main([*ground, "--domains", "noop,blur", "--out", str(coco / "s")]) == 0
    assert "blur" in capsys.readouterr().out and (coco / "s/shifts.html").exists()
    assert cli.main([*detect, "--domains", "blur"]) == 2
    assert cli.main([*detect, "--calibrate", str(coco)]) == 2
    grit = [*file, "--suite", "grit", *place, "--out", str(coco / "g")]
    assert cli.main([*grit, "--calibrate", str(coco)]) == 2
    assert "no grounding.json" in capsys.readouterr().err
