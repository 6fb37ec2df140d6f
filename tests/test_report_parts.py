"""The report's parts: markup that nothing escapes from, scales, logs, colours for all eyes."""

import itertools
import json
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from report_html import Page
from vislang.report.collect import Run, Score
from vislang.report.evaluation import evaluation
from vislang.report.log import read_log
from vislang.report.markup import foreign, tag, visible
from vislang.report.pictures import Finder
from vislang.report.plots import Axis, Series, line_chart, log_ticks, thin, ticks, whisker
from vislang.report.scatter import points_of
from vislang.report.values import Value, aim, read_value

ANY_TEXT = st.text(alphabet=st.characters(codec=None, categories=None), max_size=40)
# What a scores file may hold in place of what was agreed.
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(ANY_TEXT)
def test_any_text_comes_back_as_the_text_of_one_element(text):
    page = Page.of(tag("p", foreign(text), title=text))
    assert page.faults == []
    paragraph, inner = page.elements
    assert (paragraph.name, inner.name) == ("p", "bdi")
    expected = visible(text)
    assert paragraph.text.replace("\r\n", "\n") == expected.replace("\r\n", "\n")
    assert paragraph.attributes == {"title": expected}
    expected.encode()  # no lone surrogate is left


@given(ANY_TEXT)
def test_nothing_that_turns_the_direction_of_writing_is_left(text):
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f]", visible(text))
    assert visible(visible(text)) == visible(text)


@settings(max_examples=100)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "values": ANY_JSON,
            "tables": ANY_JSON | st.dictionaries(st.text(max_size=4), st.fixed_dictionaries(
                {"columns": ANY_JSON, "rows": st.lists(ANY_JSON, max_size=3)}), max_size=2),
            "confusion": st.fixed_dictionaries(
                {"classes": ANY_JSON, "counts": ANY_JSON}) | ANY_JSON,
            "examples": st.lists(st.fixed_dictionaries(
                {}, optional={"kind": ANY_JSON, "query": ANY_JSON, "right": ANY_JSON,
                              "answers": ANY_JSON, "rank": ANY_JSON}), max_size=3) | ANY_JSON,
            "cosine": st.fixed_dictionaries(
                {"ids": ANY_JSON, "texts": ANY_JSON, "matrix": ANY_JSON}) | ANY_JSON,
            "map": st.fixed_dictionaries(
                {"ids": ANY_JSON, "x": st.lists(st.floats(), max_size=3), "y": ANY_JSON},
                optional={"label": ANY_JSON, "method": ANY_JSON}) | ANY_JSON,
            "provenance": ANY_JSON,
            "notes": ANY_JSON,
            "per_sample": ANY_JSON,
        },
    )
)  # fmt: skip
def test_a_scores_file_may_hold_anything_and_the_page_is_still_made(body):
    from vislang.report.collect import _score

    score = _score(Path("scores/000000001/zeroshot.json"), body)
    run = Run(Path("run"), "run", scores=[score])
    page = Page.of(evaluation(run, score, Finder(lambda *_, **__: ()), "here"))
    assert page.faults == []


def test_a_confusion_of_many_classes_keeps_those_with_most_errors():
    from vislang.report.matrices import MOST_CLASSES, confusion

    counts = (np.eye(100, dtype=int) * 50).tolist()
    counts[70][99] = 30
    page = Page.of(
        tag("div", confusion({"classes": [f"c{i}" for i in range(100)], "counts": counts}))
    )
    heads = [e.text for e in page.named("th") if e.attributes.get("scope") == "col"]
    assert "c70" in heads and "c99" in heads
    assert f"the {MOST_CLASSES} classes with most errors, of 100" in page.elements[0].text


def test_the_cosine_matrix_rings_the_highest_caption_of_each_picture():
    from vislang.report.matrices import cosine
    from vislang.report.pictures import Pictures

    part = {
        "ids": ["a", "b"],
        "texts": ["x", "y", "z"],
        "matrix": [[0.1, 0.9, 0.2], [0.3, 0.1, 0.2]],
    }
    page = Page.of(tag("div", cosine(part, Pictures())))
    rows = [e.text for e in page.named("tr")][1:]
    assert rows == ["x0.100.30", "y0.900.10", "z0.200.20"]  # rows are captions, columns pictures
    assert [e.text for e in page.classed("best")] == ["0.30", "0.90"]


def test_points_are_kept_when_their_labels_do_not_fit_and_dropped_when_not_finite():
    part = {"ids": ["a", "b", "c"], "x": [0, 1, float("nan")], "y": [0, 1, 2], "label": ["k"]}
    assert points_of(part) == ([("a", 0.0, 0.0, ""), ("b", 1.0, 1.0, "")], 2)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_round_and_inside(low, span):
    high = low + span
    marks = ticks(low, high)
    if not high > low:
        return
    assert 2 <= len(marks) <= 9
    slack = 1e-6 * max(span, abs(low) * 1e-9 + 1e-12) + abs(low) * 1e-9
    assert all(low - slack <= mark <= high + slack for mark in marks)


@given(st.floats(1e-12, 1e6), st.floats(100, 1e9))
def test_log_ticks_are_powers_of_ten_inside(low, ratio):
    marks = log_ticks(low, low * ratio)
    assert 1 <= len(marks) <= 5
    assert all(low * 0.999 <= mark <= low * ratio * 1.001 for mark in marks)


def test_a_long_curve_is_thinned_to_means_with_their_range():
    points = [(i, float(i % 2), None, None) for i in range(1000)]
    thinned, k = thin(points, 100)
    assert k == 10 and len(thinned) == 100
    assert thinned[0] == (9, 0.5, 0.0, 1.0)


def test_the_curve_lies_where_its_values_say():
    text = line_chart("loss", [Series("loss", [(0, 0.0, None, None), (100, 10.0, None, None)])])
    (line,) = Page.of(text).classed("line")
    start, end = (tuple(map(float, place.split())) for place in line.attributes["d"][1:].split("L"))
    assert start[0] < end[0] and start[1] > end[1]  # up is smaller y in SVG
    assert Axis(0, 10, 100, 0).at(2.5) == 75 and Axis(1, 100, 0, 200, log=True).at(10) == 100


def test_curves_without_points_draw_nothing_and_wide_ranges_are_logarithmic():
    assert line_chart("loss", [Series("loss", [])]) == ""
    wide = line_chart("x", [Series("x", [(1, 1e-3, None, None), (2, 10.0, None, None)])])
    assert "log scale" in wide
    one = line_chart("x", [Series("x", [(5, 2.0, None, None)])])
    assert Page.of(one).faults == []


def test_the_interval_mark_spans_the_interval():
    page = Page.of(whisker(Value(0.5, 0.25, 0.75), 0.0, 1.0))
    (bar,) = page.named("rect")
    assert float(bar.attributes["x"]) == 32 and float(bar.attributes["width"]) == 56
    assert whisker(Value(None), 0, 1) == ""


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ({"value": 0.5, "low": 0.4, "high": 0.6, "n": 10, "interval": "wilson 95%"},
         Value(0.5, 0.4, 0.6, 10, "wilson 95%", "higher")),
        (0.5, Value(0.5, better="higher")),
        ({"value": "0.5"}, Value(None, better="higher")),
        ({"value": float("nan"), "low": float("-inf")}, Value(None, better="higher")),
        ({"value": 0.5, "better": "lower"}, Value(0.5, better="lower")),
    ],
)  # fmt: skip
def test_values_are_read_with_care(raw, value):
    assert read_value("accuracy", raw) == value


def test_an_interval_that_does_not_hold_its_value_is_none():
    assert not Value(0.9, 0.1, 0.5).has_interval and not Value(0.9, None, 1.0).has_interval


@pytest.mark.parametrize(
    ("metric", "better"),
    [
        ("accuracy", "higher"), ("accuracy@5", "higher"), ("mean_recall", "higher"),
        ("image_to_text@1", "higher"), ("text_to_image_r@10", "higher"), ("nmi", "higher"),
        ("knn/accuracy", "higher"), ("map", "higher"), ("mean_rank", "lower"), ("loss", "lower"),
        ("modality_gap", ""), ("uniformity", ""), ("k", ""), ("gradient_norm", ""), ("remap", ""),
    ],
)  # fmt: skip
def test_the_aim_of_a_metric_is_told_by_its_name_or_not_at_all(metric, better):
    assert aim(metric) == better


def test_a_log_is_read_across_sessions_and_rejections_are_counted_by_sample(tmp_path):
    lines = [
        {"kind": "start", "time": 100.0, "step": 0, "parameters": 5},
        {"kind": "train", "time": 110.0, "step": 10, "loss": 3.0},
        {"kind": "rejected", "time": 111.0, "step": 10, "id": "a", "reason": "torn"},
        {"kind": "stop", "time": 112.0, "step": 10, "why": "signal SIGTERM"},
        {"kind": "start", "time": 900.0, "step": 10, "parameters": 5},
        {"kind": "rejected", "time": 901.0, "step": 12, "id": "a", "reason": "torn"},
        {"kind": "train", "time": 905.0, "step": 20, "loss": 2.0, "parts": {"x": 1.0}},
        {"kind": "end", "time": 907.0, "step": 20, "seconds": 7.0},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    log = read_log(tmp_path / "log.jsonl")
    assert log.seconds == 12.0 + 7.0
    assert log.curve("loss") == [(10, 3.0), (20, 2.0)] and log.curve("parts.x") == [(20, 1.0)]
    assert log.rejected["torn"].count == 1
    assert log.stop is None and log.end is not None and log.last_step == 20 and not log.notes


@settings(max_examples=60)
@given(
    st.lists(st.binary(max_size=40) | ANY_JSON.map(lambda v: json.dumps(v).encode()), max_size=6)
)
def test_any_bytes_are_a_log(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(b"\n".join(lines))
    assert read_log(path).lines <= sum(line.count(b"\n") + line.count(b"\r") + 1 for line in lines)


def test_scores_of_a_folder_that_is_no_step_do_not_stand_before_a_step():
    scores = [Score("a", "a", None, "ema", 1, {}), Score("a", "a", 5, "000000005", 1, {})]
    assert Run(Path("r"), "r", scores=scores).latest["a"].step == 5


# Severity 1.0 of Machado, Oliveira & Fernandes 2009, IEEE TVCG 15(6), in linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    levels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    share = TO_XYZ @ np.clip(rgb, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(share > 0.008856, np.cbrt(share), 7.787 * share + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: str, other: str) -> float:
    light, dark = sorted((TO_XYZ[1] @ linear(one), TO_XYZ[1] @ linear(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def palette(theme: int) -> dict[str, str]:
    css = (files("vislang.report") / "page.css").read_text(encoding="utf-8")
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", css)
    return {name: colours[theme] for name, *colours in pairs}


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("sight", SIGHT)
def test_any_two_colours_of_classes_differ_for_every_eye(theme, sight):
    seen = [lab(SIGHT[sight] @ linear(palette(theme)[f"c{i}"])) for i in range(10)]
    for (i, one), (j, other) in itertools.combinations(enumerate(seen), 2):
        assert np.linalg.norm(one - other) > 18, (i, j)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_has_the_contrast_that_wcag_asks_for(theme):
    colours = palette(theme)
    for text in ("ink", "soft", "accent", "right", "wrong"):
        for ground in ("paper", "panel", "faint"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for ground in ("note", "stop"):
        assert contrast(colours["ink"], colours[ground]) >= 4.5
