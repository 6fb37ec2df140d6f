"""Several runs on one page: what may be compared, what is best, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from report_html import Page
from report_run import make_config, make_run, open_drawn, with_objective
from test_report import self_contained, well_made
from vislang.config import with_changes
from vislang.report import write_report
from vislang.report.collect import Run, Score, read_run, read_runs
from vislang.report.compare import _scale
from vislang.report.drift import Outcomes, best, drift, paired_p
from vislang.report.values import Value


def compared(runs: list[Path], out: Path) -> Page:
    return Page.of(write_report(runs, out, open_source=open_drawn).read_text(encoding="utf-8"))


def test_runs_stand_side_by_side_with_curves_and_differing_fields(tmp_path):
    a = make_run(tmp_path / "clip", n=400)
    config = with_changes(with_objective(make_config(), "siglip"), {"optim.lr": 1e-3})
    b = make_run(tmp_path / "siglip", n=400, seed=1, skill=0.6, config=config)
    page = compared([a, b], tmp_path / "report.html")
    self_contained(page)
    well_made(page)
    assert page.by_id("compare-config").text.count("siglip") == 2  # the run, and the objective
    assert "optim.lr0.0020.001" in page.by_id("compare-config").text
    assert "their losses have different scales" in page.by_id("compare-curves").text
    metrics = page.by_id("compare-metrics").text
    assert "refused" not in metrics and "higher is better" in metrics
    (badge, *_) = page.classed("badge")
    assert badge.text == "best"
    drawn = [e.text for e in page.named("figcaption")]
    assert "loss" in drawn and "zeroshot: accuracy" in drawn
    for place in (1, 2):
        assert page.by_id(f"run-{place}").name == "details"
        assert page.by_id(f"run-{place}-trained").text


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"prompts": "0000000000000000"}, "setting prompts"),
        ({"fingerprint": "0000000000000000"}, "source fingerprint"),
        ({"n": 120}, "n (one: 60; two: 120)"),
    ],
)
def test_numbers_taken_in_another_way_are_refused(tmp_path, other, says):
    one = make_run(tmp_path / "one", skill=0.99)
    two = make_run(tmp_path / "two", skill=0.2, seed=1, **other)
    page = compared([one, two], tmp_path / "report.html")
    refusals = page.classed("refused")
    assert refusals and "the comparison is refused" in refusals[0].text
    assert says in refusals[0].text
    zeroshot = [e for e in page.classed("compare") if "Zero-shot" in e.text]
    assert len(zeroshot) == 2  # each group has a table of its own
    assert not any("best" in e.text.split("metric")[1] for e in zeroshot if "best" in e.text)
    assert "zeroshot: accuracy" not in [e.text for e in page.named("figcaption")]


def scored(name: str, image: str = "vit", **provenance: Any) -> tuple[Run, Score]:
    made = {"source": "s", "source_fingerprint": "f", "settings": {"prompts": "p"}} | provenance
    score = Score("zeroshot", "zeroshot", 1, "1", 10, {}, {"provenance": made})
    run = Run(Path(name), name, {"model": {"image": {"name": image}}}, scores=[score])
    return run, score


def judged(*pairs: tuple[Run, Score]):
    return drift({run.name: run for run, _ in pairs}, {run.name: score for run, score in pairs})


def test_how_the_work_was_done_does_not_hinder_a_comparison():
    fast: dict[str, Any] = {"settings": {"prompts": "p", "batch_size": 512, "workers": 4}}
    found = judged(scored("a"), scored("b", **fast))
    assert found.groups == [["a", "b"]] and not found.refused and not found.warned


def test_another_preprocessing_of_the_same_tower_is_refused_and_of_another_flagged():
    one: dict[str, Any] = {"preprocess": {"size": [64, 64]}}
    two: dict[str, Any] = {"preprocess": {"size": [96, 96]}}
    same = judged(scored("a", **one), scored("b", **two))
    assert len(same.groups) == 2 and "preprocessing in front of the same tower" in same.refused[0]
    towers = judged(scored("a", **one), scored("b", image="resnet", **two))
    assert len(towers.groups) == 1 and "preprocessing" in towers.warned[0]


def test_what_cannot_be_checked_is_flagged():
    found = judged(scored("a", source_fingerprint=""), scored("b", source_fingerprint=""))
    assert found.groups == [["a", "b"]] and "cannot be checked" in found.warned[0]
    found = judged(
        scored("a", source_fingerprint=""), scored("b", source_fingerprint="", source="t")
    )
    assert len(found.groups) == 2


def test_another_precision_is_flagged():
    settings: dict[str, Any] = {"settings": {"prompts": "p", "precision": "bf16"}}
    found = judged(scored("a"), scored("b", **settings))
    assert len(found.groups) == 1 and "precision" in found.warned[0]


def value(v: float, half: float = 0.02, better: str = "higher") -> Value:
    return Value(v, v - half, v + half, 100, "wilson 95%", better)


def test_best_needs_intervals_that_lie_apart():
    assert best({"a": value(0.9), "b": value(0.8)}, {}) == "a"
    assert best({"a": value(0.9), "b": value(0.87)}, {}) is None
    assert best({"a": value(0.9), "b": value(0.8), "c": value(0.89)}, {}) is None
    assert best({"a": value(5, better="lower"), "b": value(4, better="lower")}, {}) == "b"
    assert best({"a": value(0.9, better=""), "b": value(0.1, better="")}, {}) is None
    assert best({"a": value(0.9), "b": Value(0.1, better="higher")}, {}) is None
    assert best({"a": value(0.9)}, {}) is None


def test_the_scale_of_a_row_holds_its_intervals_and_stays_a_share():
    assert _scale([value(0.01, 0.01), value(0.985, 0.01)]) == (0.0, 1.0)
    low, high = _scale([value(0.5), value(0.6)])
    assert 0.4 < low < 0.48 and 0.62 < high < 0.7
    assert _scale([]) == (0.0, 1.0)


def test_best_may_rest_on_a_paired_test():
    ids = tuple(map(str, range(100)))
    right = Outcomes(ids, tuple(float(i < 93) for i in range(100)))
    worse = Outcomes(ids, tuple(float(i < 85) for i in range(100)))  # wrong wherever `right` is
    values = {"a": value(0.93, 0.05), "b": value(0.85, 0.05)}
    assert best(values, {}) is None
    assert best(values, {"a": right, "b": worse}) == "a"
    assert paired_p(right, Outcomes(ids[::-1], worse.values[::-1])) == paired_p(right, worse)
    assert paired_p(right, Outcomes(ids[:50], worse.values[:50])) is None
    mixed = Outcomes(ids, tuple(float(i >= 15) for i in range(100)))  # as good, on other samples
    assert best(values, {"a": right, "b": mixed}) is None


def test_paired_outcomes_are_read_from_the_files(tmp_path):
    runs = [make_run(tmp_path / name, seed=2, n=200) for name in ("a", "b")]
    path = runs[1] / "scores/000000400/zeroshot.json"
    score = json.loads(path.read_text())
    old = score["per_sample"]["accuracy"]["values"]
    new = [0 if i < 12 else v for i, v in enumerate(old)]
    lost = sum(old) - sum(new)
    score["per_sample"]["accuracy"]["values"] = new
    for end in ("value", "low", "high"):
        score["values"]["accuracy"][end] -= lost / 200
    assert score["values"]["accuracy"]["high"] > read_run(runs[0]).latest["zeroshot"].values[
        "accuracy"].low  # the intervals overlap  # fmt: skip
    path.write_text(json.dumps(score))
    page = compared(runs, tmp_path / "report.html")
    (row,) = [
        e for e in page.named("tr") if e.text.startswith("accuracyhigher") and "best" in e.text
    ]
    assert row.text.count("best") == 1


def test_runs_of_one_name_are_told_apart(tmp_path):
    runs = [make_run(tmp_path / parent / "run") for parent in ("a", "b")]
    assert [run.name for run in read_runs(runs)] == ["a/run", "b/run"]
    assert [run.name for run in read_runs([runs[0], runs[0]])] == ["run (1)", "run (2)"]


def test_a_run_without_scores_is_named_beside_the_others(tmp_path):
    import shutil

    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    shutil.rmtree(b / "scores")
    page = compared([a, b], tmp_path / "report.html")
    assert "Not scored: b." in page.by_id("compare-metrics").text


def test_a_curve_never_joins_scores_of_different_data(tmp_path):
    run = make_run(tmp_path / "a")
    path = run / "scores/000000200/retrieval.json"
    score = json.loads(path.read_text())
    assert len(read_run(run).history("retrieval")["image_to_text@1"]) == 2
    score["provenance"]["source_fingerprint"] = "another"
    path.write_text(json.dumps(score))
    assert list(read_run(run).history("retrieval")["image_to_text@1"]) == [400]
