"""Boxes against boxes, GRIT's metrics, COCO's average precision, the search for a box."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from localize_cases import GOLDEN, NUMBERS
from vislang.errors import UserError
from vislang.localize.search import boxes_of, coarse_to_fine, exact
from vislang.metrics import boxes, grit
from vislang.metrics.detection import Detections, Objects, average_precision

MAPS = np.load(GOLDEN / "localize_boxes.npz")


def test_overlaps_are_grits():
    for case in NUMBERS["grit"]["iou"]:
        found = boxes.iou_matrix([case["a"]], [case["b"]], epsilon=grit.EPSILON)
        assert found[0, 0] == pytest.approx(case["iou"], abs=1e-9)


def test_grits_metrics():
    numbers = NUMBERS["grit"]
    for case in numbers["localization"].values():
        score = grit.localization(case["pred"], case["gt"])
        assert score == pytest.approx(case["score"], abs=1e-9)
        if "pair_ids" in case:
            pairs = grit.assignment(case["pred"], case["gt"])
            assert [list(p[:2]) for p in pairs] == case["pair_ids"]
            assert [p[2] for p in pairs] == pytest.approx(case["pair_ious"], abs=1e-9)
    for case in numbers["refexp"].values():
        assert grit.refexp(case["pred"], case["gt"]) == case["score"]
    for case in numbers["categorization"]:
        assert grit.categorization(case["pred"], case["gt"]) == case["score"]
    for case in numbers["vqa"]:
        assert grit.vqa(case["pred"], case["gt"]) == pytest.approx(case["score"])
        assert grit.normalized_answer(case["pred"][0]) == case["norm_pred"]


def test_grits_report_of_two_pairs():
    judged = [
        grit.Judged(f"{i}{end}", "localization", m, 0.5, new_source=i > 1)
        for end, values in (("", (1.0, 0.5, 0.2, 0.4)), ("_dist", (0.5, 0.5, 0.2, 0.0)))
        for i, m in enumerate(values)
    ]
    rows = grit.aggregate(judged)
    assert rows["acc.any.sameSrc.loc"]["value"] == 75.0
    assert rows["acc.any.deldist.loc"]["value"] == pytest.approx(22.5)
    assert rows["acc.any.agg.loc"]["value"] == pytest.approx((75 + 30) / 2)
    assert rows["acc.any.agg.all"]["value"] == pytest.approx((75 + 30) / 14)
    assert rows["rmse.any.dist.loc"]["value"] == pytest.approx(
        100 * np.sqrt(np.mean(np.square([0, 0, 0.3, 0.5]))), abs=1e-3
    )
    assert "rmse.any.deldist.loc" not in rows


def test_zero_shot_groundings_overlap_and_hits():
    zsg = NUMBERS["zsg"]
    matched = zsg["matched_iou"]
    expected = np.array([np.nan if v is None else v for v in matched["iou"]], np.float32)
    np.testing.assert_array_equal(boxes.zsg_iou(matched["a"], matched["b"]), expected)
    for case in zsg["evaluator"]:
        iou = boxes.zsg_iou(case["pred"], case["gt"])
        np.testing.assert_array_equal(iou, np.float32(case["ious"]))
        assert boxes.hits(iou, case["iou_thresh"]).mean() == case["acc"]
    assert boxes.hits(iou, 0.5, strict=False).sum() == boxes.hits(iou, 0.5).sum() + 2


@given(st.lists(st.tuples(*[st.integers(0, 20)] * 4), min_size=1, max_size=6))
def test_overlap_is_a_similarity(rows):
    some = np.array(rows, float)
    iou = boxes.iou_matrix(some, some)
    np.testing.assert_allclose(iou, iou.T)
    assert ((iou >= 0) & (iou <= 1)).all()
    real = boxes.areas(some) > 0
    np.testing.assert_allclose(np.diag(iou), real.astype(float))


def test_pointing_and_clipping():
    heat = np.zeros((4, 4))
    heat[3, 0] = 1
    assert boxes.peak(heat, (40, 80)) == (10.0, 35.0)
    assert boxes.inside([(10, 35)], [[0, 30, 20, 40]])[0]
    assert not boxes.inside([(10, 35)], [[12, 30, 20, 40]])[0]
    assert boxes.inside([(10, 35)], [[12, 30, 20, 40]], margin=2)[0]
    outside = boxes.clip_boxes([[-5, -5, 5, 500]], (100, 50))
    assert outside.tolist() == [[0, 0, 5, 100]]
    assert boxes.areas(boxes.clip_boxes([[60, 0, 70, 10]], (100, 50)))[0] == 0


def test_average_precision_is_pycocotools(capsys):
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(0)
    images, truths, results, found, truth = [], [], [], {}, {}
    for image in range(12):
        images.append({"id": image, "width": 300, "height": 300})
        for category in (1, 2, 3):
            n = int(rng.integers(0, 5))
            corner = rng.uniform(0, 200, (n, 2))
            real = np.concatenate([corner, corner + rng.uniform(5, 120, (n, 2))], 1)
            crowd = (rng.random(n) < 0.15).astype(int)
            moved = np.concatenate([real + rng.normal(0, 6, real.shape), real[:2] + 1])
            moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
            scores = np.round(rng.random(len(moved)), 1)  # with ties
            area = (real[:, 2:] - real[:, :2]).prod(1)
            for box, is_crowd, size in zip(real, crowd, area):
                truths.append({
                    "id": len(truths) + 1, "image_id": image, "category_id": category,
                    "bbox": [*box[:2], *(box[2:] - box[:2])], "area": size,
                    "iscrowd": int(is_crowd),
                })  # fmt: skip
            for box, score in zip(moved, scores):
                results.append({
                    "image_id": image, "category_id": category, "score": float(score),
                    "bbox": [*box[:2], *(box[2:] - box[:2])],
                })  # fmt: skip
            truth[image, category] = Objects(real, crowd, area)
            found[image, category] = Detections(moved, scores)
    coco = COCO()
    coco.dataset = {"images": images, "annotations": truths,
                    "categories": [{"id": k, "name": str(k)} for k in (1, 2, 3)]}  # fmt: skip
    coco.createIndex()
    judge = COCOeval(coco, coco.loadRes(results), "bbox")
    judge.evaluate(), judge.accumulate(), judge.summarize()
    ours = average_precision(found, truth)
    np.testing.assert_allclose(list(ours.values()), judge.stats, atol=1e-12)
    assert 0.05 < ours["AP"] < 0.95


@pytest.mark.parametrize("case", NUMBERS["search"])
def test_the_searches_find_the_golden_boxes(case):
    name, alpha = case.split("|")
    numbers, heat = NUMBERS["search"][case], MAPS[name]
    assert list(coarse_to_fine(heat, float(alpha)).box) == numbers["box"]
    assert exact(heat, float(alpha)).value == pytest.approx(numbers["exact"], abs=2e-7)


def objective(heat: np.ndarray, alpha: float, box) -> float:
    x1, y1, x2, y2 = box
    area = (x2 - x1 + 1) * (y2 - y1 + 1)
    inner = heat[y1 : y2 + 1, x1 : x2 + 1].sum()
    return inner / (heat.sum() + 1e-8) - alpha * area / heat.size


@given(st.integers(0, 10_000), st.integers(2, 19), st.integers(2, 19), st.floats(0.3, 1.2))
def test_exact_search_is_no_worse_than_any_box(seed, height, width, alpha):
    heat = np.random.default_rng(seed).random((height, width)) ** 4
    found = exact(heat, alpha)
    every = [objective(heat, alpha, coarse_to_fine(heat, alpha).box)]
    if height * width < 60:
        every += [
            objective(heat, alpha, (x1, y1, x2, y2))
            for x1 in range(width)
            for x2 in range(x1 + 1, width)
            for y1 in range(height)
            for y2 in range(y1 + 1, height)
        ]
    assert found.value >= max(every) - 1e-12
    assert found.value == pytest.approx(objective(heat, alpha, found.box), abs=1e-12)


def test_several_boxes_find_both_peaks():
    heat = np.zeros((64, 64))
    heat[4:12, 4:12], heat[40:60, 40:50] = 1.0, 0.8
    found = boxes_of(heat, 0.8, most=5)
    assert [f.box for f in found] == [(40, 40, 49, 59), (4, 4, 11, 11)]
    assert found[0].value > found[1].value > 0


def test_a_map_that_is_none_is_refused():
    with pytest.raises(UserError, match="at least 2 x 2"):
        exact(np.ones((1, 5)), 0.8)
    with pytest.raises(UserError, match="not finite"):
        exact(np.full((4, 4), np.nan), 0.8)
    with pytest.raises(UserError, match="exact"):
        boxes_of(np.ones((4, 4)), 0.8, search="quick")


def test_golden_numbers_hold_no_pictures():
    assert json.loads(Path(GOLDEN / "localize.json").read_text()).keys() == {
        "search",
        "grit",
        "zsg",
    }
