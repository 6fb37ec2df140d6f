"""Pictures, phrases and files that are not as they should be, through whole suites."""

# ruff: noqa: F811  pytest's fixtures are arguments

import json

import numpy as np
import pytest
import torch
from PIL import Image

from localize_cases import SAMPLE, photos, picture, samples_file, small_model  # noqa: F401  a fixture
from vislang.data.domains import open_domains
from vislang.errors import UserError
from vislang.localize.dense import Dense
from vislang.localize.grit import grit_scores, judge_answers, run_grit
from vislang.localize.grit_format import write_submission
from vislang.localize.grit_samples import read_samples
from vislang.localize.grounding import ground, judge
from vislang.localize.phrases import Grounded, Images, read_phrases
from vislang.localize.segments import embed_segments, pair_up
from vislang.localize.shifts import Shifted
from vislang.localize.slicvit import SlicVit
from vislang.localize.superpixels import label_maps

BOX = ((0.0, 0.0, 10.0, 10.0),)


@pytest.fixture
def strange(photos):
    """The photos, and one of 108 million pixels that is only some kilobytes."""
    Image.new("1", (12_000, 9_000)).save(photos / "200.png")
    return photos


@pytest.mark.parametrize("name", ["slicvit", "naclip"])
def test_a_localizer_meets_every_kind_of_picture(strange, name):
    localizer = (
        SlicVit(small_model(), levels=(5, 9)) if name == "slicvit" else Dense(small_model(), name)
    )  # fmt: skip
    names = ["123.jpg", "124_abc.jpg", "125.jpg", "126.png", "127.jpg", "200.png", "none.jpg"]
    phrases = [Grounded(n, n, "a cup", BOX) for n in names]
    phrases += [
        Grounded("empty", "123.jpg", "", BOX),
        Grounded("long", "123.jpg", "cup " * 90, BOX),
    ]
    outside = ((900.0, 900.0, 950.0, 950.0),)
    phrases += [Grounded("outside", "123.jpg", "a cup", outside),
                Grounded("flat", "124_abc.jpg", "a cup", ((5.0, 5.0, 5.0, 9.0),)),
                Grounded("partly", "123.jpg", "a cup", ((-5.0, -5.0, 900.0, 900.0),))]  # fmt: skip
    records = {r["id"]: r for r in ground(localizer, Images(strange), phrases)}
    assert len(records) == len(phrases)
    reasons = {id: r["reason"] for id, r in records.items() if r["reason"]}
    assert set(reasons) == {"127.jpg", "200.png", "none.jpg", "empty"}
    assert "pixels" in reasons["200.png"] and reasons["empty"] == "the phrase is empty"
    for id, r in records.items():
        if not r["reason"]:
            height, width = r["size"]
            x1, y1, x2, y2 = r["boxes"][0]
            assert 0 <= x1 < x2 <= width + 1e-3 and 0 <= y1 < y2 <= height + 1e-3, id
    assert records["125.jpg"]["size"] == [30, 20] and records["126.png"]["size"] == [1, 30]
    assert "cut" in records["long"]["notes"][0]
    scores = judge(list(records.values()))
    assert any("1 phrases were as long as" in note for note in scores.notes)
    assert any("2 phrases have no true box within" in note for note in scores.notes)
    lost = scores.per_sample["iou"]
    assert dict(zip(lost["ids"], lost["values"]))["outside"] == 0


def test_grit_has_an_entry_for_every_picture(strange, tmp_path):
    names = ["123.jpg", "124_abc.jpg", "125.jpg", "126.png", "127.jpg", "200.png", "none.jpg"]
    rows = [SAMPLE | {"example_id": n, "image_id": n} for n in names]
    rows[0]["task_query"] = "cup " * 90
    rows.append(SAMPLE | {"example_id": "other", "task_name": "vqa"})  # not asked for
    rows.append(SAMPLE | {"example_id": "none", "task_query": None})
    samples = read_samples(samples_file(tmp_path, rows), ("localization",))
    answers = run_grit(Dense(small_model(), "maskclip"), samples, strange, tmp_path / "run")
    entries = {e["example_id"]: e for e in answers["localization"]}
    assert list(entries) == [*names, "none"]
    empty = {id for id, e in entries.items() if not e["bboxes"]}
    assert empty == {"127.jpg", "200.png", "none.jpg", "none"}
    assert all(entries[id]["confidence"] == 0 and entries[id]["reason"] for id in empty)
    assert write_submission(tmp_path / "test.zip", answers, samples, 1).is_file()
    assert grit_scores(judge_answers(answers, samples)).values == {}  # no truth is known


def test_repeated_ids_are_refused(tmp_path, photos):
    refs = [{"ref_id": 1, "bbox": [1, 2, 3, 4], "file_name": "123.jpg", "sentences": ["a man"]}] * 2
    (tmp_path / "r.json").write_text(json.dumps({"refs": refs}))
    with pytest.raises(UserError, match=r"the id '1/0' occurs twice"):
        read_phrases("refcoco", tmp_path / "r.json", Images(photos))


def test_grits_samples_can_be_grounded_under_corruptions(tmp_path, photos):
    rows = [SAMPLE | {"example_id": k, "gt": {"bboxes": [[1, 2, 20, 15]] * (k != "none")}}
            for k in ("a", "b", "none")]  # fmt: skip
    found = read_phrases("grit", samples_file(tmp_path, rows), Images(photos))
    assert [p.id for p in found] == ["a", "b"]
    assert found[0] == Grounded("a", "123.jpg", "cup", ((1, 2, 20, 15),), "localization")
    elastic, fog = open_domains(["imagenet_c/elastic", "imagenet_c/fog"])[1:]
    moved = Shifted(Images(photos), elastic).truth(found[0])
    assert moved is not None and moved.boxes != found[0].boxes  # the truth goes with the content
    assert Shifted(Images(photos), fog).truth(found[0]) == found[0]


def test_segments_are_the_same_compiled():
    localizer = SlicVit(small_model(), levels=(5, 9))
    image = torch.from_numpy(np.ascontiguousarray(picture("coffee_wide")[:32, :32]))
    maps = label_maps(image.numpy(), (5, 9))
    pairs, batch = [pair_up(maps, (8, 8), "area")], image.permute(2, 0, 1)[None]
    with torch.no_grad():
        plain = embed_segments(localizer.vit, batch, pairs)[0]
        compiled = torch.compile(embed_segments, backend="eager")(localizer.vit, batch, pairs)[0]
    torch.testing.assert_close(plain, compiled)
