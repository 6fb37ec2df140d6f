"""Runs ranked over all their results: places, tests, what is left out, and the drawings."""

import json
from typing import Any

import numpy as np
import pytest
from scipy import stats

from report_html import Page
from report_run import make_run, open_drawn
from test_report import self_contained, well_made
from vislang.report import write_report
from vislang.report.collect import read_runs
from vislang.report.drift import Outcomes
from vislang.report.ranked import bars, radar, span
from vislang.report.ranking import Result, p_of, rank, results_of
from vislang.report.values import Value


def value(v: float, half: float = 0.02, better: str = "higher") -> Value:
    return Value(v, v - half, v + half, 100, "wilson 95%", better)


def result(metric: str = "accuracy", better: str = "higher", half: float = 0.02, **runs: float):
    return Result("T", metric, {name: value(v, half, better) for name, v in runs.items()})


def test_places_share_ranks_and_know_what_is_better():
    assert result(a=0.9, b=0.8, c=0.9).places() == {"a": 1.5, "b": 3, "c": 1.5}
    assert result(better="lower", a=0.9, b=0.8).places() == {"a": 2, "b": 1}
    assert span(result(better="lower", a=0.9, b=0.8)) == (0.9, 0.8)


def test_paired_answers_are_tested_by_mcnemar_and_others_by_their_intervals():
    ids = tuple(map(str, range(40)))
    one = Outcomes(ids, (1.0,) * 30 + (0.0,) * 10)
    two = Outcomes(ids[::-1], (0.0,) * 10 + (1.0,) * 20 + (0.0,) * 10)  # wrong on the first ten
    values = {"a": value(0.75, 0.2), "b": value(0.5, 0.2)}
    exact = stats.binomtest(0, 10, 0.5).pvalue
    assert p_of(Result("T", "m", values, {"a": one, "b": two}), "a", "b") == pytest.approx(exact)
    unpaired = p_of(Result("T", "m", values, {"a": one}), "a", "b")
    error = np.hypot(0.4, 0.4) / (2 * 1.96)
    assert unpaired == pytest.approx(2 * stats.norm.sf(0.25 / error)) and unpaired > 0.05
    bare = {"a": Value(0.9, better="higher"), "b": value(0.1)}
    assert np.isnan(p_of(Result("T", "m", bare), "a", "b"))


def test_the_pairs_are_corrected_over_all_results():
    results = [result(f"m{i}", a=0.9, b=0.8 - 0.01 * i, c=0.795 - 0.01 * i) for i in range(8)]
    found = rank(results)
    assert list(found.ranks) == ["a", "b", "c"] and found.ranks["a"] == 1
    pairs = {(p.one, p.other): p for p in found.pairs}
    assert pairs["a", "b"].better == 8 and pairs["b", "c"].level == 8
    assert pairs["a", "b"].p == pytest.approx(3 * 2 / 2**8)  # all eight one way; Holm over three
    assert rank(results[:5]).pairs[0].p is None  # five results cannot tell
    close = [result("m", half=0.06, a=0.5, b=0.4), *[result(half=0.1, a=0.5, b=0.5)] * 9]
    assert rank(close[:1]).pairs[0].better == 1 and rank(close).pairs[0].better == 0


def test_what_was_taken_in_another_way_is_left_out(tmp_path):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=1)]
    results, left = results_of(read_runs(runs))
    assert ("Zero-shot classification", "accuracy") in {(r.title, r.metric) for r in results}
    path = runs[1] / "scores/000000400/zeroshot.json"
    body = json.loads(path.read_text())
    body["provenance"]["settings"]["prompts"] = "others"
    path.write_text(json.dumps(body))
    results, left = results_of(read_runs(runs))
    assert "Zero-shot classification" not in {r.title for r in results}
    assert "Zero-shot classification: not comparable, setting prompts" in left[0]
    path.unlink()
    (runs[1] / "scores/000000200/zeroshot.json").unlink(missing_ok=True)
    assert "not scored for b" in " ".join(results_of(read_runs(runs))[1])


def sentences(run: Any, skill: float) -> None:
    """Scores of a suite with many sets, whose names do not say what is better."""
    values = {
        name: {"value": skill + at / 100, "low": skill - 0.02, "high": skill + 0.1, "n": 90,
               "interval": "fisher 95%", "better": "higher"}
        for at, name in enumerate(["STS12", "STS13", "MR", "CR", "SUBJ", "similarity_mean"])
    }  # fmt: skip
    body = {"evaluation": "sentences", "n": 90, "values": values,
            "provenance": {"source": "s", "source_fingerprint": "f", "settings": {}}}  # fmt: skip
    folder = run / "scores/000000400"
    (folder / "sentences.json").write_text(json.dumps(body))


def test_the_page_has_ranks_radar_and_bars(tmp_path):
    runs = [make_run(tmp_path / name, seed=i) for i, name in enumerate(("a", "b"))]
    for place, run in enumerate(runs):
        sentences(run, 0.5 + 0.2 * place)
    page = Page.of(
        write_report(runs, tmp_path / "r.html", open_source=open_drawn).read_text(encoding="utf-8")
    )
    self_contained(page)
    well_made(page)
    part = page.by_id("compare-ranks").text
    assert "Holm" in part and "STS12" in part and "similarity_mean" not in part
    assert len(page.classed("radar")) == 1 and len(page.classed("ranks")) == 1
    assert "mean rank" in part and "not told apart" in part


def test_few_results_make_no_radar_and_negative_values_have_bars():
    few = [result(a=-0.2, b=0.4), result("m", a=0.1, b=0.1)]
    assert radar(few, {"a": 0, "b": 1}) is None
    drawn = bars(few, {"a": 0, "b": 1})
    assert drawn.count("<rect") == 4 and 'width="-' not in drawn
    assert radar([*few, result("n", a=0.0, b=1.0)], {"a": 0, "b": 1}) is not None
