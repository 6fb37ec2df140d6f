"""Described domains against the original's numbers: metrics, tables, subspaces, probes, parts."""

import numpy as np
import pytest
import torch

from domains_golden import ARRAYS, NUMBERS, class_vectors, memory_rows
from vislang.evaluate.domain_tables import csv_tables, decrease_csv, robustness_csv
from vislang.evaluate.domains import PLAIN, complete
from vislang.evaluate.robustness import Robustness, measure
from vislang.evaluate.subspace import Subspace
from vislang.evaluate.transfer import Transfer, drawn_share
from vislang.metrics.grid import entanglement
from vislang.metrics.true_class import true_class, unit64
from vislang.models.adapter_head import AdapterHead, AdapterOptions

PRINCIPAL = {
    "class_means": "class_center", "domain_means": "aug_center", "pairs": "total",
    "residuals": "direction_residual", "classes": "class_comp", "domains": "aug_comp",
    "deviations": "deviation",
}  # fmt: skip


def small():
    return memory_rows("small", official=ARRAYS["small.official"])


@pytest.mark.parametrize("block", [7, 1024])
def test_cosines_and_places_of_every_image(block):
    rows, label = small(), ARRAYS["small.label"].astype(np.int64)
    texts = {key: unit64(value) for key, value in class_vectors("small").items()}
    standard = texts["standard", ""]
    plain = true_class(rows.rows(PLAIN), standard, label, block=block)
    cases = [(plain, "A", "D", "pred_A", ...)]
    for i, domain in enumerate(("blur", "grayscale")):
        as_standard = true_class(rows.rows(domain), standard, label, block=block)
        as_own = true_class(rows.rows(domain), texts["own", domain], label, block=block)
        cases += [(as_standard, "B", "E", "pred_B", i), (as_own, "C", "F", "pred_C", i)]
    for found, own, others, order, at in cases:
        np.testing.assert_allclose(found.own, ARRAYS[f"small.{own}"][at], rtol=0, atol=1e-12)
        np.testing.assert_allclose(found.others, ARRAYS[f"small.{others}"][at], rtol=0, atol=1e-12)
        places = np.argmax(ARRAYS[f"small.{order}"][at] == label[:, None], axis=1)
        assert found.rank.tolist() == places.tolist()


def test_robustness_and_recovery():
    found = measure(complete(small(), "robustness"))
    golden = NUMBERS["robustness"]
    for domain, numbers in golden["cossim"]["primary"].items():
        e = found.effects[domain]
        got = {
            "mean_decrease": e.decrease.interval.value, "SD_decrease": e.decrease.deviation,
            "p_decrease": e.decrease.p, "mean_recovery": e.recovery.interval.value,
            "SD_recovery": e.recovery.deviation, "p_recovery": e.recovery.p,
            "mean_decrease_diffclass": e.decrease_other,
            "mean_recovery_diffclass": e.recovery_other,
        }  # fmt: skip
        for name, value in numbers.items():
            assert got[name] == pytest.approx(value, rel=1e-12 if name[0] != "p" else 1e-9), name
    assert found.same_class.value == pytest.approx(
        golden["cossim"]["secondary"]["avg_cossim_sameclass_unaug"], abs=1e-12
    )
    assert found.other_class.value == pytest.approx(
        golden["cossim"]["secondary"]["avg_cossim_diffclass_unaug"], abs=1e-12
    )
    for k, numbers in golden["zeroshot"].items():
        for domain, one in numbers["primary"].items():
            e = found.effects[domain]
            assert 100 * e.lost[int(k)].interval.value == pytest.approx(
                one["acc_decrease_as_percentage"]
            )
            assert 100 * e.regained[int(k)].interval.value == pytest.approx(
                one["acc_recovery_as_percentage"]
            )


def test_accuracy_by_template_and_with_official_prompts():
    found = measure(complete(small(), "robustness"))
    for domain, effect in found.effects.items():
        standard = NUMBERS["checkpoint"]["standard_text_template"][domain]
        own = NUMBERS["checkpoint"]["own_domain_text_template"][domain]
        assert 100 * effect.standard[1].value == pytest.approx(standard)
        assert 100 * effect.own[1].value == pytest.approx(own)
        assert found.official is not None and effect.official is not None
        decrease = 100 * (found.official.value - effect.official.value)
        assert decrease == pytest.approx(NUMBERS["official"]["primary"][domain])


def cells(text: str) -> list[list[str]]:
    return [line.split(",") for line in text.split("\n")]


def test_the_tables_cell_by_cell():
    """The text itself is equal, so no digit is off."""
    rows = memory_rows("full")
    _, robust = Robustness().measure(rows)
    assert cells(robustness_csv(robust)) == NUMBERS["tables"]["robustness_table"]
    _, subspaces = Subspace(resamples=10).measure(rows)
    tables = csv_tables(subspaces)
    assert cells(tables["subspace_table.csv"]) == NUMBERS["tables"]["subspace_table"]
    given = NUMBERS["official_input"]
    plain = given["secondary"]["unaugmented_top1acc_as_percentage"]
    official = {PLAIN: plain} | {d: plain - v for d, v in given["primary"].items()}
    for name, percent in (("official_zeroshot_table", official),
                          ("linearprobe_table", NUMBERS["linearprobe_input"])):  # fmt: skip
        text = decrease_csv({domain: value / 100 for domain, value in percent.items()})
        assert cells(text) == NUMBERS["tables"][name]


def check_grid(found, prefix: str, tolerance: float = 1e-10):
    for ours, theirs in PRINCIPAL.items():
        held = getattr(found, ours)
        if held is not None:
            golden = ARRAYS[f"grid.{prefix}.{theirs}_PCA.explained_SDs"]
            # Squared: along a null direction their root of 1e-16 is noise of 1e-8.
            np.testing.assert_allclose(held.deviations**2, golden**2, rtol=0, atol=tolerance)
            spread = float(ARRAYS[f"grid.{prefix}.{theirs}_PCA.spread"])
            assert held.spread == pytest.approx(spread, abs=tolerance)
    rows, columns = found.ranks
    golden = np.abs(ARRAYS[f"grid.{prefix}.class_aug_cossims"][:rows, :columns])
    np.testing.assert_allclose(np.abs(found.cosines[:rows, :columns]), golden, atol=tolerance)
    assert (rows, columns) == (5, 4)
    assert found.model.offset == pytest.approx(ARRAYS[f"grid.{prefix}.offset"], abs=tolerance)


def test_subspaces_of_texts_images_and_an_incomplete_grid():
    text, images = ARRAYS["grid.text_pair2vec"], ARRAYS["grid.image_pair2vecs"]
    check_grid(entanglement(text), "text")
    mean = images.mean(axis=2)
    apart = (images - mean[:, :, None]).reshape(-1, images.shape[-1])
    check_grid(entanglement(mean, None, apart.T @ apart / (len(apart) - 1)), "image")
    there = np.ones(text.shape[:2], bool)
    there[tuple(ARRAYS["grid.partial_missing"].T)] = False
    check_grid(entanglement(text, there), "partial")


def test_subspaces_of_the_full_set():
    _, found = Subspace(resamples=10).measure(memory_rows("full"))
    for (norm, side), held in found.found.items():
        prefix = f"full.subspace.{norm}.{side}."
        for ours, theirs in PRINCIPAL.items():
            if getattr(held, ours) is not None:
                got, golden = getattr(held, ours).deviations, ARRAYS[f"{prefix}{theirs}_PCA.SDs"]
                np.testing.assert_allclose(got**2, golden**2, rtol=0, atol=1e-10)
        np.testing.assert_allclose(
            np.abs(held.cosines[:10, :10]), ARRAYS[f"{prefix}abs_cossims_10x10"], atol=1e-10
        )


def test_the_probe_of_one_domain():
    """scikit-learn's ten costs on the same validation rows; with its solver its cost too."""
    x, y, held = (ARRAYS[f"probe.{name}"] for name in ("X", "y", "val_indices"))
    found = Transfer(solver="sklearn", patience=0).fit(x, y, held)
    assert found.cost == pytest.approx(float(ARRAYS["probe.C_"][0]))
    tried = [row[1] for row in found.search["rows"]]
    np.testing.assert_allclose(tried, ARRAYS["probe.val_scores"][0])
    np.testing.assert_allclose(found.fit.weight, ARRAYS["probe.coef"], atol=1e-3)
    np.testing.assert_allclose(found.fit.bias, ARRAYS["probe.intercept"], atol=1e-3)
    own = Transfer(costs=found.cost, tolerance=1e-7).fit(x, y, held)
    np.testing.assert_allclose(own.fit.weight, ARRAYS["probe.coef"], atol=1e-3)
    for probe in (found, own):
        answers = probe.classes[probe.scores(ARRAYS["probe.X_test"]).argmax(axis=1)]
        assert answers.tolist() == ARRAYS["probe.pred_test"].tolist()


def test_draws_of_files_and_of_validation_rows():
    drawn = NUMBERS["drawn"]
    assert drawn_share(drawn["sizes"], 0.25) == drawn["picked"]
    y = ARRAYS["probe.y"]
    parts = drawn_share(np.bincount(y).tolist(), 0.1)
    rows = np.concatenate([np.flatnonzero(y == c)[part] for c, part in enumerate(parts)])
    assert sorted(rows) == sorted(ARRAYS["probe.val_indices"])


def later(name: str) -> torch.Tensor:
    return torch.from_numpy(ARRAYS[f"later.{name}"])


def test_clip_adapter():
    head = AdapterHead(44, 8, AdapterOptions(alpha=0.3)).double()
    state = {f"{i}.{part}": later(f"adapter.net_without_residual.{i}.{part}").double()
             for i in (0, 2) for part in ("weight", "bias")}  # fmt: skip
    assert not head.load_state_dict(state, strict=False).unexpected_keys
    made = later("adapter.in").double()
    for layer in list(head)[:3]:
        made = layer(made)
    alpha = later("adapter.residual_alpha").double()
    with torch.no_grad():
        head.alpha.copy_(alpha)
    golden = later("adapter.out").double()
    torch.testing.assert_close(head.mix(made, later("adapter.emb").double()), golden, rtol=1e-5,
                               atol=1e-6)  # fmt: skip
