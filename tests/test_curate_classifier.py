"""The domain classifier and the running top-K: goldens, properties, bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from towers_cases import VECTORS
from vislang.curate.classifier import (
    DomainClassifier,
    Fit,
    load_classifier,
    one_cycle,
    train_classifier,
)
from vislang.curate.judged import judge_classifier
from vislang.curate.sentences import (
    classifier_of_sentences,
    overlap_warning,
    reword,
    teach_sentences,
)
from vislang.curate.shards import pick_shards
from vislang.curate.topk import TopK
from vislang.data.domains import DOMAINS
from vislang.errors import UserError

GOLDEN = np.load(Path(__file__).parent / "golden" / "curate.npz")
LISTS = json.loads((Path(__file__).parent / "golden" / "curate.json").read_text())


def golden_classifier(kind: str) -> DomainClassifier:
    of = {"linear": {"skip": "linear.param.net_without_skip.0"}, "mlp": {
        "hidden": "mlp_skip.param.net_without_skip.0", "out": "mlp_skip.param.net_without_skip.2",
        "skip": "mlp_skip.param.skip_layer"}}[kind]  # fmt: skip
    made = DomainClassifier([str(c) for c in range(18)], 768, kind)
    made.load_state_dict({
        f"{ours}.{what}": torch.from_numpy(GOLDEN[f"classifier|{theirs}.{what}"].astype(np.float32))
        for ours, theirs in of.items() for what in ("weight", "bias")
    })  # fmt: skip
    return made.eval()


# -- goldens ------------------------------------------------------------------------------------


def test_golden_shard_picks():
    picks = pick_shards()
    for group, numbers in LISTS["shard_picks"].items():
        assert [p.number for p in picks if p.group == group] == numbers
    assert [p.group for p in picks] == sorted(p.group for p in picks) and len(picks) == 250


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_golden_log_probabilities(kind):
    made = golden_classifier(kind)
    x = torch.from_numpy(GOLDEN["classifier|embeddings_f16"].astype(np.float32))
    name = {"linear": "linear", "mlp": "mlp_skip"}[kind]
    with torch.no_grad():
        found = made.log_probs(x).numpy()
    np.testing.assert_allclose(found, GOLDEN[f"classifier|{name}.log_probs_f64"], atol=1e-5)


def test_golden_judgement():
    judged = judge_classifier(GOLDEN["judged|log_probs"], GOLDEN["judged|gt"], (10, 50, 10_000))
    assert judged.accuracy * 100 == pytest.approx(float(GOLDEN["judged|accuracy_percent"]))
    np.testing.assert_allclose(judged.confusion, GOLDEN["judged|confusion"], atol=1e-12)
    assert judged.ami == pytest.approx(float(GOLDEN["judged|adjusted_mutual_info"]), abs=1e-12)
    assert set(judged.makeup) == {10, 50}
    for k in (10, 50):
        np.testing.assert_allclose(judged.makeup[k], GOLDEN[f"judged|makeup_{k}"], atol=1e-12)


def test_golden_one_cycle():
    found = np.array([one_cycle(step, 400, 2e-3) for step in range(400)])
    np.testing.assert_allclose(found[:, 0], GOLDEN["onecycle_lr"], rtol=1e-12)
    np.testing.assert_allclose(found[:, 1], GOLDEN["onecycle_beta1"], rtol=1e-12)


def test_an_absent_domain_keeps_its_place_in_the_confusion():
    log_probs = np.log(np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1]]))
    assert judge_classifier(log_probs, np.array([0, 0]), (1,)).confusion.shape == (3, 3)


# -- top K ----------------------------------------------------------------------------------------


@given(st.data())
def test_running_top_k_is_a_full_sort(data):
    n, k = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 70))
    pairs = st.tuples(st.integers(-3, 3), st.integers(0, 1))
    scores = np.array(data.draw(st.lists(pairs, min_size=n, max_size=n)), np.float32)
    keys = np.array(data.draw(st.permutations(range(n))))
    top, step = TopK(2, k), data.draw(st.integers(1, 20))
    for first in range(0, n, step):
        top.add(scores[first : first + step], keys[first : first + step])
    for domain in range(2):
        score, key = top.best(domain)
        order = np.lexsort((keys, scores[:, domain]))[::-1][:k]
        assert key.tolist() == keys[order].tolist()
        assert score.tolist() == scores[order, domain].tolist()


def test_top_k_needs_memory_for_2k_rows_and_refuses_nan():
    top, rng = TopK(1, 100), np.random.default_rng(0)
    for first in range(0, 20_000, 500):
        scores = rng.normal(size=(500, 1)).astype(np.float32)
        scores[0] = [np.nan, np.inf][first % 1000 // 500]
        top.add(scores, np.arange(first, first + 500))
    assert top.nbytes <= 100 * 2 * 16 and top.refused == 40
    assert np.isfinite(top.best(0)[0]).all()


# -- the classifier -------------------------------------------------------------------------------


def separable(n: int = 240, width: int = 12, domains: int = 3):
    rng = np.random.default_rng(0)
    centres, labels = rng.normal(size=(domains, width)), np.arange(n) % domains
    rows = centres[labels] + 0.3 * rng.normal(size=(n, width))
    return rows.astype(np.float32), labels, tuple("abc"[:domains])


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_training_learns_and_saves_and_repeats(kind, tmp_path):
    rows, labels, names = separable()
    fit = Fit(kind, epochs=6, batch_size=8, lr=0.05, held_out=0.2)
    made = train_classifier(rows, labels, names, np.arange(240) // 6, fit)
    held = made.about["held_out"]
    assert held["n"] == 48 and held["accuracy"] > 0.95
    assert held["calibration_error"] <= held["calibration_error_before"] + 1e-9
    made.save(tmp_path)
    loaded = load_classifier(tmp_path)
    again = train_classifier(rows, labels, names, np.arange(240) // 6, fit)
    assert made.fingerprint == loaded.fingerprint == again.fingerprint
    assert sum(p.numel() for p in DomainClassifier(range(18), 768, kind).parameters()) == (
        164_964 if kind == "mlp" else 13_842
    )


def test_bad_rows_and_kinds_are_refused(tmp_path):
    rows, labels, names = separable()
    rows[3] = 0
    with pytest.raises(UserError, match="1 of 240 embeddings are zero or not finite, first row 3"):
        train_classifier(rows, labels, names)
    with pytest.raises(UserError, match="Did you mean 'linear'"):
        DomainClassifier(names, 4, "linaer")
    with pytest.raises(UserError, match="holds no classifier"):
        load_classifier(tmp_path)
    with pytest.raises(UserError, match="no row to learn from"):
        train_classifier(rows[:3], np.array([0, 1, 0]), names)


def test_domains_that_share_their_sentences_are_named_and_can_be_changed():
    every = list(DOMAINS.values())
    warning = overlap_warning(every)
    assert "blur and foggy share all" in warning and "sepia" not in warning
    assert not overlap_warning(reword(every, merge={"hazy": ["blur", "foggy"]}))
    assert not overlap_warning(reword(every, {"foggy": ["a {} in the mist"]}))
    with pytest.raises(UserError, match="Did you mean 'foggy'"):
        reword(every, {"fogy": ["a {}"]})
    with pytest.raises(UserError, match="already"):
        reword(every, merge={"dim": ["blur", "foggy"]})


def test_sentences_of_one_word_are_held_out_together():
    chosen = reword([DOMAINS["dim"], DOMAINS["sepia"]])
    taught = teach_sentences(f"words:{VECTORS}", chosen, ["red bird", "two cats", "three dogs"])
    assert taught.names == ("dim", "sepia") and len(taught.rows) == 12
    assert taught.groups.tolist() == [0, 1, 2] * 4
    with pytest.raises(UserError, match="at least 2"):
        teach_sentences(f"words:{VECTORS}", chosen, ["cat", " "])
    rows = np.eye(2, 4, dtype=np.float32)
    made = classifier_of_sentences(taught._replace(rows=rows, labels=np.arange(2)))
    assert made.log_probs(torch.eye(4)[:2]).argmax(1).tolist() == [0, 1]
