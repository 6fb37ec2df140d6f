"""Every localizer on real pictures, through every evaluator: finite numbers and whole files."""

import json
from dataclasses import replace

import numpy as np
import pytest

from localize_cases import model_for
from test_localize_methods import resnet_model, tiny_owl  # noqa: F401  fixtures
from vislang.localize import LOCALIZERS
from vislang.localize.detect import read_instances, run_detection
from vislang.localize.grit import grit_scores, judge_answers, run_grit
from vislang.localize.grit_format import write_submission
from vislang.localize.grit_samples import read_samples
from vislang.localize.grounding import run_grounding
from vislang.localize.phrases import Images, flickr_entities
from vislang.lookup import lookup

OPTIONS = {"slicvit": {"levels": [10, 30]}, "regionclip": {"shorter": 64}, "resnet": {"size": 64}}


@pytest.mark.parametrize("name", LOCALIZERS)
def test_real_pictures_go_through(name, resnet_model, tiny_owl, test_data, tmp_path):  # noqa: F811
    spec = model_for(name, resnet_model, tiny_owl, tmp_path)
    localizer = lookup("localizer", LOCALIZERS, name)(spec, "cpu", **OPTIONS.get(name, {}))
    images = Images(test_data / "flickr8k/images_224_sample.zip")
    phrases = flickr_entities(test_data / "flickr8k/flickr30k_entities.tar.gz", images)[:3]
    found = run_grounding(localizer, images, phrases, tmp_path / "ground")
    assert found.n == 3 and not found.notes
    assert all(np.isfinite(v.value) for v in found.values.values())
    records = json.loads((tmp_path / "ground/records.json").read_text())
    assert all(len(r["boxes"]) and r["point"] is not None for r in records)

    instances = read_instances(test_data / "coco-mini/annotations_320/instances_val2017.json")
    labelled = [a["image_id"] for a in instances.annotations]
    one = {labelled[0]: instances.images[labelled[0]]}
    classes = dict(list(instances.categories.items())[:3])
    notes = tuple(a for a in instances.annotations if a["category_id"] in classes)
    few = replace(instances, images=one, categories=classes, annotations=notes)
    pictures = Images(test_data / "coco-mini/images_320_val2017.zip")
    if few.objects():
        judged = run_detection(localizer, pictures, few, tmp_path / "detect", draws=2)
        assert 0 <= judged.values["AP"].value <= 1
    assert not [r for r in records if r["reason"]]

    folder = test_data / "grit-examples"
    samples = [s for s in read_samples(folder / "samples.json") if s.id.endswith("_0")]
    answers = run_grit(localizer, samples, folder, tmp_path / "grit")
    assert write_submission(tmp_path / "ablation.zip", answers, samples, 1).is_file()
    rows = judge_answers(answers, samples)
    assert len(rows) == 2 and grit_scores(rows).n == 2
