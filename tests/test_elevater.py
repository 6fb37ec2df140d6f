"""ELEVATER's metrics: the original's numbers, and where the standard ones differ."""

from pathlib import Path

import numpy as np
import pytest

from vislang.errors import UserError
from vislang.metrics.elevater import CONVENTIONS, elevater_metric

GOLDEN = Path(__file__).parent / "golden" / "elevater_metrics.npz"

CASES = [
    ("accuracy", "mc_prob", "mc_label", "accuracy"),
    ("accuracy", "mc_prob", "mc_label_absent", "accuracy_absent"),
    ("accuracy", "ties_prob", "mc_label", "ties_accuracy"),
    ("mean-per-class", "mc_prob", "mc_label", "mean_per_class"),
    ("mean-per-class", "mc_prob", "mc_label_absent", "mean_per_class_absent"),
    ("11point_mAP", "ml_score", "ml_label", "map11_raw"),
    ("11point_mAP", "ml_softmax", "ml_label", "map11_softmax"),
    ("11point_mAP", "ml_score_ties", "ml_label", "map11_ties"),
    ("11point_mAP", "ml_score_weak", "ml_label", "map11_weak"),
    ("roc_auc", "auc_prob", "auc_label", "roc_auc"),
    ("roc_auc", "auc_prob_ties", "auc_label", "roc_auc_ties"),
]


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return {key: file[key] for key in file.files}


@pytest.mark.parametrize(("metric", "scores", "label", "expected"), CASES)
def test_the_numbers_are_elevaters(golden, metric, scores, label, expected):
    found = elevater_metric(metric, golden[scores], golden[label])
    assert found == pytest.approx(float(golden[expected]), abs=1e-12)


def test_the_standard_convention_differs_where_it_should(golden):
    scores, absent = golden["mc_prob"], golden["mc_label_absent"]
    plain = elevater_metric("mean-per-class", scores, absent, "standard")
    assert plain == pytest.approx(float(golden["mean_per_class_absent_plain_sklearn"]))
    weak = golden["ml_score_weak"], golden["ml_label"]
    own, textbook = (elevater_metric("11point_mAP", *weak, c) for c in CONVENTIONS)
    assert textbook < own - 0.05
    for metric, pair in (("accuracy", ("mc_prob", "mc_label")),
                         ("roc_auc", ("auc_prob", "auc_label"))):  # fmt: skip
        both = {elevater_metric(metric, golden[pair[0]], golden[pair[1]], c) for c in CONVENTIONS}
        assert len(both) == 1


def test_what_cannot_be_scored_is_refused():
    scores = np.full((3, 2), 0.5)
    for metric, label, why in (
        ("accuracy", np.array([0, 1, 2]), "labels in 0..1"),
        ("roc_auc", np.zeros(3, int), "both classes"),
        ("11point_mAP", np.zeros((3, 2), int), "no sample has a class"),
        ("f1", np.zeros(3, int), "No metric 'f1'"),
        ("accuracy", np.zeros((3, 2), int), "do not fit"),
    ):
        with pytest.raises(UserError, match=why):
            elevater_metric(metric, scores, label)
    with pytest.raises(UserError, match="finite"):
        elevater_metric("accuracy", scores * np.nan, np.zeros(3, int))
