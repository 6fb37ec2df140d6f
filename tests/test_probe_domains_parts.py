"""Analyses of domains: properties, bad input, and promises over the registry."""

import inspect
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from vislang.errors import UserError
from vislang.evaluate.analyses import (
    ANALYSES,
    OF_DOMAINS,
    Probed,
    build_analyses,
    build_analysis,
    run_analyses,
)
from vislang.evaluate.bias import Groups, find_groups
from vislang.evaluate.domains import MemoryRows, complete, in_order
from vislang.evaluate.photos import Photos, find_photo, read_rows, score_photos
from vislang.evaluate.robustness import Robustness
from vislang.evaluate.scores import Scores, read_scores
from vislang.evaluate.subspace import Subspace
from vislang.evaluate.transfer import Transfer
from vislang.evaluate.typographic import WrittenRows
from vislang.lookup import lookup
from vislang.metrics.association import association
from vislang.metrics.classify import ranks
from vislang.metrics.grid import additive, entanglement
from vislang.metrics.paired import holm, mean_change, share_change
from vislang.metrics.true_class import true_class, unit64
from vislang.metrics.variance import PARTS, variance_shares

DOMAINS = ("noop", "blur", "tilt")


def world(n=60, classes=4, width=8, seed=0, domains=DOMAINS, **changes) -> MemoryRows:
    """Images that lean to their class, less so in each further domain; prompts of the class."""
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((classes, width))
    label = np.arange(n) % classes
    images = {
        d: centre[label] + (0.6 + 0.5 * i) * rng.standard_normal((n, width)) + 0.3 * i
        for i, d in enumerate(domains)
    }
    texts = {("own", d): centre + 0.1 * rng.standard_normal(centre.shape) for d in domains}
    texts |= {("raw", d): 3 * texts["own", d] for d in domains}
    texts["standard", ""] = texts["own", domains[0]]
    held = {"images": images, "labels": label, "classes": [f"c{c}" for c in range(classes)],
            "texts": texts, "ids": [f"{i:03d}" for i in range(n)]}  # fmt: skip
    return MemoryRows(**(held | changes))


def written(n=40, classes=4, width=8) -> WrittenRows:
    rng = np.random.default_rng(1)
    centre = rng.standard_normal((classes, width))
    label = np.arange(n) % classes
    other = (label + 1) % classes
    plain = centre[label] + 0.3 * rng.standard_normal((n, width))
    images = {"plain": plain, "blank": plain + 0.1, "own word": plain + centre[label],
              "other word": plain + 3 * centre[other]}  # fmt: skip
    names = [f"c{c}" for c in range(classes)]
    return WrittenRows([str(i) for i in range(n)], label, other, images, centre, names)


def groups() -> Groups:
    rng = np.random.default_rng(2)
    rows = lambda n: rng.standard_normal((n, 8))  # noqa: E731
    return Groups({"a": rows(6) + 1, "b": rows(7)}, {"x": rows(3) + 1, "y": rows(3)})


DATA = dict.fromkeys(OF_DOMAINS, world) | {"typographic": written, "bias": groups}
OPTIONS = {"subspace": {"resamples": 20}, "transfer": {"costs": 1.0}, "bias": {"resamples": 50}}


@pytest.mark.parametrize("name", ANALYSES)
def test_promises_of_every_analysis(name, tmp_path):
    made = lookup("analysis", ANALYSES, name)
    assert (made.__doc__ or "").split("\n")[0].endswith(".")
    analysis = build_analysis(name, OPTIONS.get(name))
    options = {key for key in inspect.signature(made).parameters if key != "self"}
    assert options == set(analysis.settings())
    json.dumps(analysis.settings())
    first, second = analysis.score(DATA[name]()), analysis.score(DATA[name]())
    assert first.evaluation == name
    assert first.values
    assert first.notes
    assert first.as_json() == second.as_json()
    for value in first.values.values():
        assert value.low <= value.value <= value.high
    for table in first.tables.values():
        assert all(len(row) == len(table["columns"]) for row in table["rows"])


@pytest.mark.parametrize("name", ANALYSES)
def test_wrong_options_are_named(name):
    with pytest.raises(UserError, match=f"analysis '{name}' has no option 'sede'"):
        build_analysis(name, {"sede": 1})
    with pytest.raises(UserError, match="options for 'nothing'"):
        build_analyses([name], {"nothing": {}})


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(2, 70), st.integers(0, 99))
def test_the_true_class_is_what_the_whole_matrix_says(n, classes, width, seed):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, width)).astype(np.float32)
    weight = unit64(rng.standard_normal((classes, width)))
    if classes > 2:
        weight[1] = weight[0]  # equal classes: a tie counts against the model
    label = rng.integers(0, classes, n)
    found = true_class(rows, weight, label, block=7, threads=2)
    scores = unit64(rows) @ weight.T
    own = scores[np.arange(n), label]
    np.testing.assert_allclose(found.own, own, atol=1e-14)
    if classes > 1:
        others = (scores.sum(axis=1) - own) / (classes - 1)
        np.testing.assert_allclose(found.others, others, atol=1e-13)
    assert found.rank.tolist() == ranks(scores.round(13), label).tolist()


def test_an_embedding_that_is_no_number_is_last():
    rows = np.array([[np.nan, 1.0], [1.0, 0.0]])
    assert true_class(rows, np.eye(2), np.array([0, 0])).rank.tolist() == [1, 0]


@settings(max_examples=25)
@given(st.integers(2, 7), st.integers(2, 6), st.integers(0, 99))
def test_an_additive_grid_leaves_nothing_and_gaps_change_nothing(classes, domains, seed):
    """Also with pairs missing, as long as every class and domain is tied to the others."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((classes, 5)), rng.standard_normal((domains, 5))
    cells = a[:, None] + b[None]
    there = rng.random((classes, domains)) < 0.6
    there[0] = there[:, 0] = True
    whole, part = additive(cells), additive(np.where(there[..., None], cells, 9e9), there)
    for found in (whole, part):
        np.testing.assert_allclose(found.residual, 0, atol=1e-9)
        np.testing.assert_allclose(found.class_part.sum(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(part.class_part, whole.class_part, atol=1e-9)


def test_angles_tell_shared_directions_from_separate_ones():
    rng = np.random.default_rng(0)
    apart = np.zeros((5, 4, 12))
    apart[..., :4] += rng.standard_normal((5, 1, 4))
    apart[..., 6:9] += rng.standard_normal((1, 4, 3))
    assert entanglement(apart).angles() == pytest.approx([90, 90, 90], abs=1e-4)
    assert entanglement(apart).overlap()[0] == pytest.approx(0, abs=1e-9)
    together = np.zeros((5, 4, 12))
    together[..., :3] = rng.standard_normal((5, 1, 3)) + rng.standard_normal((1, 4, 3))
    assert entanglement(together).angles() == pytest.approx([0, 0, 0], abs=1e-4)


@settings(max_examples=15)
@given(st.integers(2, 5), st.integers(2, 4), st.integers(0, 99), st.booleans())
def test_variance_shares_add_up_and_follow_the_definition(classes, domains, seed, few):
    import vislang.metrics.variance as variance

    rng = np.random.default_rng(seed)
    label = np.concatenate([np.arange(classes), rng.integers(0, classes, 20)])
    x = rng.standard_normal((domains, len(label), 6)) + rng.standard_normal((classes, 6))[label]
    small, variance.SMALL = variance.SMALL, 512 if few else 2  # both ways to the same sums
    try:
        found = variance_shares(lambda d: x[d], range(domains), label, normalise=False,
                                resamples=20)  # fmt: skip
    finally:
        variance.SMALL = small
    shares = [found[name].value for name in PARTS]
    assert sum(shares) == pytest.approx(1, abs=1e-6)
    mean, of_class = x.mean((0, 1)), np.stack([x[:, label == c].mean((0, 1))
                                               for c in range(classes)])  # fmt: skip
    total = ((x - mean) ** 2).sum()
    by_class = domains * ((of_class[label] - mean) ** 2).sum() / total
    by_domain = len(label) * ((x.mean(1) - mean) ** 2).sum() / total
    assert shares[:2] == pytest.approx([by_class, by_domain], abs=1e-5)
    assert all(v.low <= v.value <= v.high for v in found.values())


def test_paired_tests():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 30))
    expected = ttest_rel(a, b, alternative="greater")
    assert mean_change(a - b).p == pytest.approx(float(expected.pvalue), rel=1e-12)
    assert mean_change(np.ones(5)).p == 0
    assert math.isnan(mean_change(np.ones(1)).p)
    same = np.array([True, False] * 5)
    assert share_change(same, same).p == 1
    up = share_change(np.zeros(50, bool), np.arange(50) < 20)
    assert up.interval.value == 0.4
    assert 0.2 < up.interval.low < 0.4 < up.interval.high < 0.55
    assert holm([0.01, float("nan"), 0.02])[0] == 0.02


def test_the_interval_of_a_change_covers():
    """Bonett and Price's interval holds the truth in about 95% of many small studies."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        draw = rng.random(40)
        before, after = draw < 0.6, (draw > 0.5) & (rng.random(40) < 0.8)
        found = share_change(before, after).interval
        hits += found.low <= 0.5 * 0.8 - 0.6 <= found.high
    assert 0.92 <= hits / 400 <= 0.99


def test_association_is_exact_for_few_and_even_under_the_null():
    exact = association(np.arange(3.0), np.arange(3.0) + 5)
    assert exact.exact
    assert exact.p == pytest.approx(2 / 20)
    assert association(np.arange(5.0), np.arange(5.0)).p == 1
    rng = np.random.default_rng(0)
    drawn = association(rng.standard_normal(30) + 2, rng.standard_normal(30), resamples=50)
    assert not drawn.exact
    assert drawn.p < 0.001
    with pytest.raises(ValueError, match="at least two"):
        association(np.ones(1), np.ones(5))


def test_missing_pairs_are_left_out_and_counted():
    whole = world()
    keep = np.setdiff1d(np.arange(60), [3, 7, 9])
    gaps = world(gaps={"blur": [3, 7], "tilt": [7, 9]})
    few = world(images={d: x[keep] for d, x in whole.images.items()},
                labels=whole.labels[keep], ids=[whole.ids[i] for i in keep])  # fmt: skip
    for name in OF_DOMAINS:
        analysis = build_analysis(name, OPTIONS.get(name))
        found, expected = analysis.score(gaps), analysis.score(few)
        assert found.values == expected.values
        assert any("3 images that lack a domain" in note for note in found.notes)


def test_images_without_a_label_are_left_out_and_counted():
    labels = world().labels.copy()
    labels[:5] = -1
    part = complete(world(labels=labels), "x")
    assert len(part.labels) == 55
    assert part.notes == ["5 images without a label were left out."]


def test_one_class_has_cosines_and_nothing_to_tell_apart():
    one = world(classes=1)
    found = Robustness().score(one)
    assert set(found.values) == {"cosine_own_class"}
    assert "one class only" in found.notes[-1]
    for analysis in (Transfer(), Subspace()):
        with pytest.raises(UserError, match="two classes"):
            analysis.score(one)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"domains": ("blur", "tilt")}, "unchanged images"),
        ({"domains": ("noop",)}, "at least two domains"),
        ({"labels": np.full(60, -1)}, "none has a label"),
        ({"gaps": {"tilt": np.arange(60)}}, "of 60 images none"),
        ({"texts": {}}, "no standard prompts"),
    ],
)
def test_what_robustness_cannot_do_is_said(changes, message):
    with pytest.raises(UserError, match=message):
        Robustness().score(world(**changes))


def test_a_class_without_a_usable_prompt_is_named():
    rows = world()
    rows.texts["own", "blur"][2] = 0
    with pytest.raises(UserError, match=r"1 classes have no usable own prompt \(c2\)"):
        Robustness().score(rows)


def test_without_prompts_images_alone_are_analysed():
    rows = world(texts={})
    assert Subspace(resamples=10).score(rows).values["class_share"].value > 0.1
    assert "zero-shot" not in Transfer(costs=1.0).score(rows).tables["decrease"]["columns"]


def test_probes_are_scored_on_images_that_none_has_seen():
    """Every image has the one feature of its own: memory helps, but not on other images."""
    x = np.eye(60)
    rows = world(images=dict.fromkeys(DOMAINS, x), texts={})
    found = Transfer(costs=1.0).score(rows)
    assert found.values["fitted_on_own_domain_accuracy"].value < 0.5


def test_domains_stand_in_presentation_order():
    assert in_order(["tilt", "zoom/2", "noop", "blur", "sketchify", "blur"]) == (
        "noop", "sketchify", "blur", "tilt", "zoom/2",
    )  # fmt: skip


def test_the_written_word_is_seen_to_win():
    found = build_analysis("typographic").score(written())
    assert found.values["word_wins"].value > 0.9
    assert found.values["word_wins_blank"].value < 0.1
    assert found.values["margin_lost_to_word"].low > 0
    assert "the model reads" in found.notes[1]


def test_photos_with_and_without_words():
    photos = Photos(["1", "2", "3"], ["pear", "pear", "tv"], ["", "TV", ""],
                    np.array([[1.0, 0.0], [0.2, 1.0], [0.0, 1.0]]), ["pear", "TV"],
                    np.eye(2))  # fmt: skip
    values, tables, said = score_photos(photos)
    assert values["photos_accuracy_without_word"].value == 1
    assert values["photos_word_wins"].value == 1
    assert values["photos_margin_with_word"].value < 0 < values["photos_margin_without_word"].value
    assert [row[5] for row in tables["photos"]["rows"]] == pytest.approx([1, 0.2 / 1.04**0.5, 1])
    assert tables["photo_cosines"]["columns"] == ["photo", "pear", "TV"]
    assert "wins 1 times" in said[0]


def test_tables_of_photos_that_cannot_be_read(tmp_path):
    table = tmp_path / "photos.csv"
    with pytest.raises(UserError, match="no table of photos"):
        read_rows(table)
    table.write_text("file,object\n1.jpg,pear\n")
    with pytest.raises(UserError, match="lacks written_word"):
        read_rows(table)
    table.write_text("file,object,written_word\n1.jpg,,TV\n")
    with pytest.raises(UserError, match="no object"):
        read_rows(table)
    with pytest.raises(UserError, match="does not lie beside it"):
        find_photo(table, "1.jpg")


def test_bias_needs_two_groups_of_each(tmp_path):
    with pytest.raises(UserError, match="There is no folder"):
        find_groups(tmp_path / "none")
    (tmp_path / "a").mkdir()
    (tmp_path / "x.txt").write_text("a person\n")
    with pytest.raises(UserError, match="it holds 1 and 1"):
        find_groups(tmp_path)
    lone = Groups({"a": np.ones((1, 3)), "b": np.ones((3, 3))}, groups().captions)
    with pytest.raises(UserError, match="'a' has fewer than two"):
        build_analysis("bias").score(lone)


class Broken:
    """An analysis that cannot be done."""

    name = "robustness"

    def settings(self):
        return {}

    def measure(self, rows):
        raise UserError("no prompts")


def test_one_that_fails_does_not_stop_the_others(tmp_path):
    probed = Probed(None, None, world(), None, {})  # type: ignore[arg-type]
    found, failures = run_analyses([Broken(), Subspace(10)], probed, tmp_path)  # type: ignore[list-item]
    assert failures == ["robustness: no prompts"]
    assert [scores.evaluation for scores in found] == ["subspace"]
    read = read_scores(tmp_path / "scores" / "000000000" / "subspace.json")
    assert isinstance(read, Scores)
    assert (tmp_path / "tables" / "subspace_table.csv").exists()
