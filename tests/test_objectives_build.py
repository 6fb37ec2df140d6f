"""Configs into objectives: weighted sums, checked options, and errors that say what is right."""

import pytest
import torch
import torch.nn.functional as F

from objectives_cases import NAMES, make, rows
from vislang.config import ObjectiveConfig
from vislang.errors import UserError
from vislang.objectives.build import build_objective, check_needs, parse_sum
from vislang.objectives.layers import mlp


def test_weighted_sums():
    config = ObjectiveConfig(
        "infonce:0.5 + vicreg:0.1", {"infonce": {"temperature": 1.0}, "vicreg": {"normalize": True}}
    )
    objective = build_objective(config, 6).double()
    batch = rows(objective, 8)
    loss = objective(**batch)
    one = make("infonce", temperature=1.0)(**batch)
    other = make("vicreg", normalize=True, projector=[])(**batch)
    torch.testing.assert_close(loss, 0.5 * one + 0.1 * other)
    assert {"infonce", "vicreg", "infonce/scale", "vicreg/variance"} <= set(objective.parts)
    with torch.no_grad():
        objective.terms["infonce"].log_scale.fill_(9.0)
    objective.after_step()
    assert objective.terms["infonce"].log_scale.exp().item() == pytest.approx(100)


def test_a_sum_of_everything_needs_what_its_terms_need():
    names = [name for name in NAMES if name != "protoclip"]
    objective = build_objective(
        ObjectiveConfig(" + ".join(names), {"cross_entropy": {"classes": 3}}), 8
    )
    for name in names:
        assert set(objective.terms[name].needs) <= set(objective.needs)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("infonc", {}, "Did you mean 'infonce'"),
        ("infonce", {"temprature": 1}, "Did you mean 'temperature'"),
        ("infonce", {"temperature": "warm"}, "temperature must be float, got 'warm'"),
        ("infonce", {"temperature": 0}, "temperature must be above 0"),
        ("dino", {"prototyps": 3}, "Did you mean 'prototypes'"),
        ("dino", {"teacher": "txt"}, "must be one of momentum, text, image, got 'txt'"),
        ("nnclr", {"candidates": "all"}, "candidates must be one of"),
        ("seed", {"queue": 0}, "at least 1 row"),
        ("cross_entropy", {"sides": []}, "at least one batch key"),
        ("infonce:1 + siglip", {"temperature": 1}, "none of its names"),
        ("infonce:1 + siglip", {"siglip": {"bia": 1}}, "Did you mean 'bias'"),
        ("infonce + infonce", {}, "twice"),
        ("infonce + ", {}, "no sum of objectives"),
    ],
)
def test_wrong_configs_say_what_is_right(name, options, says):
    with pytest.raises(UserError, match=says):
        build_objective(ObjectiveConfig(name, options), 6)


def test_numbers_written_as_text_are_numbers():
    objective = build_objective(ObjectiveConfig("infonce", {"temperature": "1e-1"}), 6)
    assert objective.log_scale.exp().item() == pytest.approx(10)


def test_a_registered_name_is_asked_of_untrusted_configs():
    with pytest.raises(UserError, match="must be registered"):
        build_objective(ObjectiveConfig("os:system"), 6, trusted=False)


def test_sums_are_parsed():
    assert parse_sum("a:2+b : 0.5") == {"a": 2.0, "b": 0.5}
    assert parse_sum("my.module:Loss:0.5 + b") == {"my.module:Loss": 0.5, "b": 1.0}


def test_missing_keys_are_refused_before_step_one():
    with pytest.raises(UserError, match=r"image_2 is missing\. What gives it: .*two views"):
        check_needs(make("ntxent"), {"image", "text"})
    check_needs(make("infonce"), {"image", "text", "label"})


def test_a_label_outside_the_classes_is_named():
    objective = make("cross_entropy")
    batch = rows(objective, 4)
    batch["label"] = torch.tensor([0, 1, 2, 3])
    with pytest.raises(UserError, match="label 3, but the objective has 3 classes"):
        objective(**batch)


def test_unlabelled_rows_alone_give_zero():
    objective = make("cross_entropy")
    batch = rows(objective, 4)
    batch["label"] = torch.full((4,), -1)
    assert objective(**batch) == 0


def test_rkd_of_one_row_is_refused():
    objective = make("rkd")
    with pytest.raises(UserError, match="at least 2 rows"):
        objective(**rows(objective, 1))


def test_half_precision_embeddings_are_computed_in_single():
    objective = make("infonce", dtype=torch.float32)
    batch = {key: value.bfloat16() for key, value in rows(objective, 4).items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = objective(**batch)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, objective(**{key: value.float() for key, value in batch.items()}))


def test_mlp_shapes():
    assert [type(layer).__name__ for layer in mlp([4, 8, 2], final_norm=True)] == [
        "Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"
    ]  # fmt: skip
    assert len(mlp([4])) == 0


def test_unicl_without_labels_is_infonce():
    unicl, infonce = make("unicl"), make("infonce")
    batch = rows(unicl, 6)
    batch["label"] = torch.full((6,), -1)
    torch.testing.assert_close(unicl(**batch), infonce(batch["image"], batch["text"]))


def test_unicl_is_finite_where_a_logarithm_of_a_softmax_is_not():
    objective = make("unicl", dtype=torch.float32, temperature=0.01)
    image = F.normalize(torch.randn(4, 6))
    loss = objective(image=image, text=-image, label=torch.tensor([0, 0, 1, -1]))
    assert loss.isfinite() and loss > 50
