"""Numbers of the originals, where they are right or where an option asks for their variant.

`tests/golden/objectives_composition.npz`: float64 losses, gradients and states of the
composition line; `steps` are consecutive calls on one object.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from objectives_cases import gradients
from vislang.config import ObjectiveConfig
from vislang.objectives.build import build_objective
from vislang.objectives.kmeans import cluster_means, nearest
from vislang.objectives.protoclip import prototype_loss
from vislang.objectives.sinkhorn import _by_logarithms, _by_vectors, assign

FILE = np.load(Path(__file__).parent / "golden" / "objectives_composition.npz")


def golden(name):
    """All arrays of one golden file, as tensors."""
    return {
        key.partition("/")[2]: torch.from_numpy(FILE[key])
        for key in FILE.files
        if key.startswith(f"{name}/")
    }


def build(name, width=12, **options):
    torch.manual_seed(0)
    return build_objective(ObjectiveConfig(name, options), width).double()


def set_scale(objective, scale):
    """Put a scale in float64 where the constructor rounds it to float32."""
    objective.log_scale.data = torch.as_tensor(scale).double().log()


def check(objective, batch, loss, tolerance=1e-10, **expected):
    """Loss and gradients by key of one call."""
    batch = {
        key: value.clone().requires_grad_(value.is_floating_point()) for key, value in batch.items()
    }
    found_loss, by_key, by_name = gradients(objective, batch)
    torch.testing.assert_close(found_loss, loss, rtol=tolerance, atol=tolerance)
    found = {**by_key, **by_name}
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("block", [0, 3])
@pytest.mark.parametrize("case", ["s1over007", "s100", "default2659"])
def test_infonce(case, block):
    numbers = golden("infonce")
    objective = build("infonce", block=block)
    set_scale(objective, numbers[f"{case}_scale"])
    check(
        objective,
        {"image": numbers["image"], "text": numbers["text"]},
        numbers[f"{case}_loss"],
        image=numbers[f"{case}_grad_image"],
        text=numbers[f"{case}_grad_text"],
        # d loss / d ln s = s · d loss / d s
        log_scale=numbers[f"{case}_scale"] * numbers[f"{case}_grad_scale"],
    )


def test_simcse():
    numbers = golden("infonce")
    objective = build("simcse", symmetric=True, temperature=1 / float(numbers["simcse_scale"]))
    check(
        objective,
        {"text": numbers["text"], "text_2": numbers["image"]},
        numbers["simcse_loss"],
        text=numbers["simcse_grad_a"],
        text_2=numbers["simcse_grad_b"],
    )


@pytest.mark.parametrize("name", ["simreg", "simreg_l1"])
def test_regression(name):
    numbers = golden(name)
    check(
        build(name, mean_over_width=True, detach=False),
        {"text": numbers["teacher"], "image": numbers["student"]},
        numbers["loss"],
        text=numbers["grad_teacher"],
        image=numbers["grad_student"],
    )


@pytest.mark.parametrize(
    ("name", "options"), [("vicreg", {"normalize": True}), ("barlow", {"original": True})]
)
def test_redundancy_reduction(name, options):
    numbers = golden(name)
    check(
        build({"barlow": "barlow_twins"}.get(name, name), **options),
        {"text": numbers["teacher"], "image": numbers["student"]},
        numbers["loss"],
        text=numbers["grad_teacher"],
        image=numbers["grad_student"],
    )


def test_original_barlow_cannot_reach_its_target_and_ours_can():
    numbers = golden("barlow_identical")
    same = {"text": numbers["teacher"], "image": numbers["teacher"]}
    check(build("barlow_twins", original=True), same, numbers["loss"])
    objective = build("barlow_twins", redundancy=1e-12)
    assert objective(**same) < 1e-4


@pytest.mark.parametrize("block", [0, 3])
@pytest.mark.parametrize("case", ["default", "distance_only", "angle_only", "paper_25_50"])
def test_rkd(case, block):
    numbers = golden("rkd")
    distance, angle = numbers[f"{case}_w"].tolist()
    check(
        build("rkd", normalize=True, detach=False, distance=distance, angle=angle, block=block),
        {"text": numbers["teacher"], "image": numbers["student"]},
        numbers[f"{case}_loss"],
        tolerance=1e-9,
        text=numbers[f"{case}_grad_teacher"],
        image=numbers[f"{case}_grad_student"],
    )


def test_compress_with_one_queue():
    numbers = golden("compress_1q")
    objective = build("compress_1q", queue=20, detach=False)
    objective.queue.rows.copy_(numbers["state0_teacher_memory"])
    for step in range(3):
        _check_step(objective, numbers, step)
        objective.after_step()
        after = numbers[f"step{step}_state_after_teacher_memory"]
        torch.testing.assert_close(objective.queue.rows, after)
        assert objective.queue.position == numbers[f"step{step}_state_after_index"]


@pytest.mark.parametrize(("name", "teacher"), [("seed", 1e-4), ("seed_temp005", 0.05)])
def test_seed(name, teacher):
    numbers = golden(name)
    objective = build("seed", queue=16, temperature=0.07, teacher_temperature=teacher, detach=False)
    objective.queue.rows.copy_(numbers["state0_queue"].T)
    for step in range(3):
        _check_step(objective, numbers, step, tolerance=1e-8 if teacher < 1e-3 else 1e-10)
        objective.after_step()
        after = numbers[f"step{step}_state_after_queue"]
        torch.testing.assert_close(objective.queue.rows.T, after)
        assert objective.queue.position == int(numbers[f"step{step}_state_after_queue_ptr"])


def _check_step(objective, numbers, step, tolerance=1e-10):
    check(
        objective,
        {"text": numbers[f"step{step}_teacher"], "image": numbers[f"step{step}_student"]},
        numbers[f"step{step}_loss"],
        tolerance,
        text=numbers[f"step{step}_grad_teacher"],
        image=numbers[f"step{step}_grad_student"],
    )


@pytest.mark.parametrize(("name", "state"), [("dino", "center"), ("protocpc", "prior")])
def test_prototype_distillation(name, state):
    """The golden inputs are prototype logits already."""
    numbers = golden(name)
    objective = build(name, teacher="text", prototypes=40, layers=0)
    for step in range(3):
        teacher, student = (
            numbers[f"step{step}_{side}"].clone().requires_grad_()
            for side in ("teacher", "student")
        )
        loss = objective.compare([student], [teacher])
        found = torch.autograd.grad(loss, [teacher, student])
        expected = [numbers[f"step{step}_grad_{side}"] for side in ("teacher", "student")]
        torch.testing.assert_close(loss.detach(), numbers[f"step{step}_loss"])
        torch.testing.assert_close(list(found), expected, rtol=1e-10, atol=1e-10)
        objective.after_step()
        after = numbers[f"step{step}_{state}_after"]
        torch.testing.assert_close(getattr(objective, state), after, rtol=1e-12, atol=1e-12)


def test_sinkhorn_both_ways():
    numbers = golden("sinkhorn")
    scores, rounds = numbers["logits"], int(numbers["iters"])
    for found in (
        assign(scores, 1.0, rounds),
        _by_logarithms(scores.clone(), rounds),
        _by_vectors((scores - scores.max()).exp(), rounds),
    ):
        torch.testing.assert_close(found, numbers["Q"], rtol=1e-9, atol=1e-12)


def test_cross_entropy():
    numbers = golden("crossentropy")
    check(
        build("cross_entropy", sides=["image", "text"]),
        {key: numbers[key] for key in ("image", "text")} | {"label": numbers["labels"]},
        numbers["loss"],
        image=numbers["grad_image"],
        text=numbers["grad_text"],
    )


@pytest.mark.parametrize("name", ["infonce", "unicl"])
def test_two_processes_of_the_original(name):
    """Its gathered loss is ours; its gradients are W times (gather with gradient) or once
    (default, before averaging) those of the global loss."""
    numbers = golden("two_processes")
    objective = build(name)
    set_scale(objective, numbers["scale"])
    batch = {"image": numbers["image"], "text": numbers["text"]}
    if name == "unicl":
        batch["label"] = numbers["unicl_labels"]
    for mode, times in (("gather_grad", 2), ("default", 1)):
        gathered = {
            side: torch.cat([numbers[f"rank{rank}_{name}_{mode}_g{side}"] for rank in (0, 1)])
            for side in ("image", "text")
        }
        check(
            objective,
            batch,
            numbers[f"rank0_{name}_{mode}_loss"],
            image=gathered["image"] / times,
            text=gathered["text"] / times,
            log_scale=numbers["scale"] * numbers[f"rank1_{name}_{mode}_gscale"],
        )


def test_seed_queue_of_two_processes():
    numbers = golden("two_processes")
    objective = build("seed", queue=16)
    objective.queue.rows.copy_(numbers["rank0_seed_queue0"].T)
    objective(text=numbers["text"], image=numbers["image"])
    objective.after_step()
    torch.testing.assert_close(objective.queue.rows.T, numbers["rank1_seed_queue"])


# -- ProtoCLIP -----------------------------------------------------------------------------------


def test_protoclip_assignment_and_back_translation():
    numbers = golden("protoclip_clustering")
    image, text = numbers["img_feature"], numbers["text_feature"]
    for rows, side in ((image, "img"), (text, "text"), (numbers["external"].float(), "external")):
        labels, _distances = nearest(rows, numbers[f"{side}_centroids"])
        torch.testing.assert_close(labels, numbers[f"{side}_labels"])
    for rows, labels, expected in (
        (image, "text_labels", "pbt_img_from_text"),
        (text, "img_labels", "pbt_text_from_img"),
        (image, "external_labels", "pbt_img_from_ext"),
        (text, "external_labels", "pbt_text_from_ext"),
    ):
        found = cluster_means(rows, numbers[labels], 5)
        torch.testing.assert_close(found, numbers[expected])


@pytest.fixture
def protoclip():
    """The objective with the golden episode's tables, and the golden batch."""
    clusters, numbers = golden("protoclip_clustering"), golden("protoclip")
    objective = build("protoclip", width=7, clusters=5, external_weight=1.0, warmup=0)
    objective.set_prototypes(
        torch.arange(64),
        clusters["img_feature"].double(),
        clusters["text_feature"].double(),
        clusters["img_labels"],
        clusters["text_labels"],
        clusters["img_centroids"],
        clusters["text_centroids"],
        clusters["external_labels"],
    )
    objective.prototype_log_scale.data = numbers["scale"].log()
    return objective, numbers


@pytest.mark.parametrize(
    "case", ["pbt_soft001", "pbt_soft05", "pbt_hard", "nopbt_soft05", "nopbt_hard"]
)
def test_protoclip_loss(protoclip, case):
    objective, numbers = protoclip
    objective.back_translate = case.startswith("pbt")
    objective.target_temperature = {"soft001": 0.01, "soft05": 0.5, "hard": -1}[case.split("_")[1]]
    objective.weights = (1.0, 1.0, 0.0)
    x, y = (F.normalize(numbers[side].double(), dim=-1).requires_grad_() for side in ("img", "txt"))
    loss = objective._prototype_loss(x, y, torch.arange(8))
    close = {"rtol": 1e-6, "atol": 1e-6}  # the original's features are float32
    torch.testing.assert_close(loss.detach(), numbers[f"{case}_proto"], **close)
    found = torch.autograd.grad(loss, [x, y, objective.prototype_log_scale])
    torch.testing.assert_close(found[0], numbers[f"{case}_grad_img"], **close)
    torch.testing.assert_close(found[1], numbers[f"{case}_grad_txt"], **close)
    expected = numbers["scale"] * numbers[f"{case}_grad_scale"]
    torch.testing.assert_close(found[2], expected, **close)


def test_protoclip_total(protoclip):
    objective, numbers = protoclip
    set_scale(objective, numbers["scale"])
    projections = {side: numbers[side].double() for side in ("img", "txt")}
    objective.project = lambda image, text: (projections["img"], projections["txt"])
    image, text = (numbers[f"full_{side}_feat"] for side in ("img", "txt"))
    check(
        objective,
        {"image": image, "text": text, "index": torch.arange(8)},
        numbers["full_total"],
        tolerance=1e-6,
    )
    assert float(objective.parts["external"]) == pytest.approx(float(numbers["full_ext"]), rel=1e-6)


def test_prototype_loss_leaves_unknown_rows_out():
    logits = torch.randn(4, 3, dtype=torch.float64)
    known = torch.tensor([True, False, True, False])
    labels = torch.tensor([0, 1, 2, 0])
    found = prototype_loss(logits, labels, known, None, 0.0)
    torch.testing.assert_close(found, F.cross_entropy(logits[known], labels[known]))
