"""`vislang evaluate --suite grounding|detection|grit`, engines, and what a run's report shows."""

# ruff: noqa: F811  pytest's fixtures are arguments

import json

import pytest

from localize_cases import SAMPLE, photos, samples_file, small_model  # noqa: F401  a fixture
from vislang.cli import main as cli
from vislang.errors import UserError
from vislang.localize.grit import run_grit
from vislang.localize.grit_samples import GritSample
from vislang.localize.opening import Opening, open_localizer, opened
from vislang.report.gallery import kept_gallery
from vislang.report.page import write_report


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> str:
    from vislang.models.saved import save_model

    model = small_model()
    return str(save_model(model, model.config, tmp_path_factory.mktemp("model") / "m"))


@pytest.fixture
def boxes(tmp_path):
    file = tmp_path / "f.csv"
    file.write_text('img_id,bbox,query\n123,"[1, 2, 20, 15]",a cup\n124,"[1, 2, 9, 9]",a cup\n')
    return file


def test_evaluate_judges_grounding_and_the_report_shows_it(tmp_path, photos, saved, boxes, capsys):
    out = tmp_path / "out"
    run = ["evaluate", saved, "--suite", "grounding", "--source", str(boxes), "--out", str(out)]
    options = {"images": str(photos), "format": "zsg", "options": {"levels": [5, 9]}}
    asked = ["--suite_options", json.dumps({"grounding": options}), "--device", "cpu"]
    assert cli.main([*run, *asked, "--precision", "fp32"]) == 0
    told = capsys.readouterr().out
    assert "2 phrases in 2 pictures" in told and "over_centre_iou50" in told
    body = json.loads((out / "scores/000000000/grounding.json").read_text())
    assert body["provenance"]["gallery"] == "localize/grounding/gallery.json"
    assert body["provenance"]["settings"]["options"]["levels"] == [5, 9]
    assert body["tables"] == {} and {"pointing", "random_pointing"} <= set(body["values"])
    groups = json.loads((out / "localize/grounding/gallery.json").read_text())
    assert [g["title"] for g in groups] == ["Best", "Worst", "Random", "Superpixels"]
    page = write_report([out], out / "report.html").read_text()
    assert "--suite grounding" in page and f"images&quot;: &quot;{photos}" in page  # done again
    assert "Phrase grounding" in page and page.count("data:image/") >= 8
    assert cli.main([*run, *asked, "--suite_options.grounding.limit", "1"]) == 2
    assert "other settings" in capsys.readouterr().err


def test_evaluate_judges_grit_and_detection(tmp_path, photos, saved, capsys):
    rows = [SAMPLE | {"example_id": str(k), "src": f"{s}_loc", "gt": {"bboxes": [[1, 2, 20, 15]]}}
            for k, s in enumerate(["coco", "coco", "nyuv2", "open_images"])]  # fmt: skip
    file, out = samples_file(tmp_path, rows), tmp_path / "out"
    run = ["evaluate", saved, "--suite", "grit", "--source", str(file), "--out", str(out)]
    place = {"images": str(photos), "method": "maskclip", "subset": "test"}
    assert cli.main([*run, "--suite_options", json.dumps({"grit": place})]) == 0
    assert (out / "localize/grit/test.zip").exists() and (out / "localize/grit/grit.html").exists()
    values = json.loads((out / "scores/000000000/grit.json").read_text())["values"]
    assert values["acc.any.newSrc.loc"]["n"] == values["acc.any.sameSrc.loc"]["n"] == 2
    assert values["acc.any.agg.loc"]["value"] == pytest.approx(
        7 * values["acc.any.agg.all"]["value"], abs=1e-2
    )
    coco = {"images": [{"id": 1, "file_name": "123.jpg"}],
            "categories": [{"id": 2, "name": "cup"}],
            "annotations": [{"id": 3, "image_id": 1, "category_id": 2,
                             "bbox": [0, 0, 9, 9]}]}  # fmt: skip
    (tmp_path / "i.json").write_text(json.dumps(coco))
    run = ["evaluate", saved, "--suite", "detection", "--source", str(tmp_path / "i.json")]
    place = {"images": str(photos), "method": "centre"}
    asked = ["--suite_options", json.dumps({"detection": place}), "--out", str(out)]
    assert cli.main([*run, *asked]) == 0
    assert "AP50" in json.loads((out / "scores/000000000/detection.json").read_text())["values"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--suite", "grit"], "--suite_options.grit.images"),
        (["--suite", "grounding,zeroshot"], "by itself"),
        (["--suite", "grit", "--source", "a", "--suite_options.grit.images", "b",
          "--suite_options.grit.shards", "3"], "Did you mean --shard"),
        (["--suite", "grit", "--source", "a", "--suite_options.grit.images", "b",
          "--suite_options.grit.domains", "blur"], "--suite grounding"),
    ],
)  # fmt: skip
def test_what_evaluate_cannot_do_is_said(arguments, words, saved, tmp_path, capsys):
    assert cli.main(["evaluate", saved, *arguments, "--out", str(tmp_path)]) == 2
    assert words in capsys.readouterr().err


def test_processes_answer_as_one_process_does(tmp_path, photos, saved):
    samples = [GritSample(str(k), "123.jpg", "localization", f"cup {k}") for k in range(3)]
    localizer = open_localizer(saved, "naclip", "cpu", {"alpha": 0.6})
    plain = run_grit(localizer, samples, photos, tmp_path / "one", shard=1)
    opening = Opening.of(localizer, saved, "cpu")
    assert opening.name == "naclip" and opening.settings == localizer.settings
    several = run_grit(
        opening, samples, photos, tmp_path / "two", shard=1, engine="processes", workers=2
    )
    assert several == plain
    assert opened(opening)([], []) == []
    settings = [(tmp_path / n / "settings.json").read_text() for n in ("one", "two")]
    assert settings[0] == settings[1]  # either goes on with what the other began
    with pytest.raises(UserError, match="give an Opening"):
        run_grit(localizer, samples, photos, tmp_path / "three", engine="processes")


def test_galleries_outside_of_the_run_are_not_shown(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    card = {"picture": "https://elsewhere/a.png", "text": "<b>a</b>", "width": 9, "height": 9}
    for place in (tmp_path, run):
        (place / "gallery.json").write_text(json.dumps([{"title": "Best", "cards": [card]}]))
    (run / "broken.json").write_text("[3]")
    assert kept_gallery(run, "../gallery.json") is None
    assert kept_gallery(run, "none.json") is kept_gallery(run, "broken.json") is None
    shown = str(kept_gallery(run, "gallery.json"))
    assert "elsewhere" not in shown and "&lt;b&gt;" in shown
