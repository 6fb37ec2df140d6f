"""Numbers of the language-guided line's trainers: SimCLR, SimSiam, NNCLR, SwAV, CLIP, SLIP, DeCLIP.

`tests/golden/objectives_language.npz`: losses and gradients of the losses alone (float64), and
whole steps of trainers with a linear tower (10 -> 12) and small heads (float32, train mode).
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vislang.config import ObjectiveConfig
from vislang.objectives.build import build_objective
from vislang.objectives.ntxent import two_view_contrast
from vislang.objectives.sinkhorn import assign

FILE = np.load(Path(__file__).parent / "golden" / "objectives_language.npz")


def golden(prefix):
    """Arrays below a prefix, floats in float64."""
    found = {
        key.removeprefix(f"{prefix}/"): torch.from_numpy(FILE[key])
        for key in FILE.files
        if key.startswith(f"{prefix}/")
    }
    return {k: v.double() if v.is_floating_point() else v for k, v in found.items()}


def build(name, width, **options):
    return build_objective(ObjectiveConfig(name, options), width).double()


def fill(module, numbers, prefix):
    """Weights of one trainer's module (its other keys are batch statistics)."""
    kept = {key.removeprefix(prefix): v for key, v in numbers.items() if key.startswith(prefix)}
    unexpected = module.load_state_dict(kept, strict=False).unexpected_keys
    assert kept and not unexpected


def close(found, expected, tolerance=1e-4):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


# -- losses alone --------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_ntxent(temperature):
    numbers = golden("losses")
    first, second = (numbers[key].requires_grad_() for key in ("in_a", "in_b"))
    loss, _right = two_view_contrast(first, second, temperature)
    name = f"simclr_tau{temperature}_f64"
    found = torch.autograd.grad(loss, [first, second])
    close(loss.detach(), numbers[f"{name}_loss"], 1e-9)
    close(list(found), [numbers[f"{name}_ga"], numbers[f"{name}_gb"]], 1e-9)


def test_clip():
    numbers = golden("losses")
    objective = build("infonce", 8)
    objective.log_scale.data = torch.tensor(1 / 0.07, dtype=torch.float64).log()
    image, text = (numbers[key].requires_grad_() for key in ("in_a", "in_b"))
    loss = objective(image, text)
    found = torch.autograd.grad(loss, [image, text, objective.log_scale])
    close(loss.detach(), numbers["clip_f64_loss"], 1e-9)
    expected = [numbers[f"clip_f64_{key}"] for key in ("gimg", "gtxt", "glogscale")]
    close(list(found), expected, 1e-9)


def test_nnclr_matching():
    """The golden loss is given its neighbours (c... are predictions)."""
    numbers = golden("losses")
    objective = build("nnclr", 8, queue=4, candidates="neighbours", projector=[], predictor=4)
    first, second = (F.normalize(numbers[key], dim=-1) for key in ("in_a", "in_b"))
    predictions = [numbers[key].requires_grad_() for key in ("in_c", "in_d")]
    loss = (objective._match(first, predictions[1]) + objective._match(second, predictions[0])) / 2
    found = torch.autograd.grad(loss, predictions)
    close(loss.detach(), numbers["nnclr_f64_loss"], 1e-9)
    close(list(found), [numbers["nnclr_f64_gpred_a"], numbers["nnclr_f64_gpred_b"]], 1e-9)


@pytest.mark.parametrize(
    ("scores", "expected", "epsilon", "rounds"),
    [
        ("in", "out_it1_eps0.05", 0.05, 1),
        ("in", "out_it3_eps0.05", 0.05, 3),
        ("in", "out_it10_eps0.05", 0.05, 10),
        ("in", "out_it3_eps0.5", 0.5, 3),
        ("in_pm1", "out_pm1", 0.05, 3),
    ],
)
def test_sinkhorn(scores, expected, epsilon, rounds):
    numbers = golden("trainers/sinkhorn")
    found = assign(numbers[scores], epsilon, rounds)
    close(found, numbers[expected])
    close(assign(numbers[scores].float(), epsilon, rounds).double(), numbers[expected])


# -- whole steps ---------------------------------------------------------------------------------


class Trainer:
    """A linear tower and an objective with one trainer's weights."""

    def __init__(self, name, objective, parts):
        self.numbers = golden(f"trainers/{name}")
        self.objective = objective
        for prefix, module in parts.items():
            fill(module, self.numbers, f"w/{prefix}.")
        self.parts = parts
        self.weight = self.numbers["w/visual_backbone.weight"].requires_grad_()
        self.bias = self.numbers["w/visual_backbone.bias"].requires_grad_()

    def embed(self, image):
        return image @ self.weight.T + self.bias

    def check_gradients(self, loss, prefix="g/", tolerance=1e-4):
        named = {"visual_backbone.weight": self.weight, "visual_backbone.bias": self.bias}
        for part, module in self.parts.items():
            named |= {f"{part}.{key}": value for key, value in module.named_parameters()}
        found = dict(zip(named, torch.autograd.grad(loss, list(named.values()))))
        assert len(found) >= 3
        for key, gradient in found.items():
            close(gradient, self.numbers[f"{prefix}{key}"], tolerance)


INPUTS = golden("trainers")


def test_simclr_step():
    objective = build("ntxent", 12, projector=[16, 16, 8])
    trainer = Trainer("simclr", objective, {"visual_project": objective.projector})
    loss = objective(trainer.embed(INPUTS["x0"]), trainer.embed(INPUTS["x1"]))
    close(loss.detach(), trainer.numbers["loss"])
    trainer.check_gradients(loss)


def test_simsiam_step():
    objective = build("simsiam", 12, projector=[16, 16, 16], predictor=8)
    parts = {"proj_mlp": objective.projector, "pred_mlp": objective.predictor}
    trainer = Trainer("simsiam", objective, parts)
    loss = objective(trainer.embed(INPUTS["x0"]), trainer.embed(INPUTS["x1"]))
    close(loss.detach(), trainer.numbers["loss"])
    trainer.check_gradients(loss)


def test_nnclr_steps():
    """The original drops what does not fit at the end of its bank; ours wraps around. Both are
    the same until then (three steps of 8 rows into 20)."""
    objective = build(
        "nnclr",
        12,
        projector=[16, 16, 8],
        predictor=32,
        queue=20,
        final_norm=False,
        candidates="neighbours",
        enqueue="second",
    )
    parts = {"proj_mlp": objective.projector, "pred_mlp": objective.predictor}
    trainer = Trainer("nnclr", objective, parts)
    numbers = trainer.numbers
    objective.queue.rows.copy_(F.normalize(numbers["bank_init"], dim=-1))
    for step in range(3):
        views = (trainer.embed(numbers[f"step{step}/x{view}"]) for view in (0, 1))
        loss = objective(*views)
        close(loss.detach(), numbers[f"step{step}/loss"])
        if step == 0:
            trainer.check_gradients(loss, "step0/g/")
        objective.after_step()
        if step < 2:
            bank = F.normalize(numbers[f"step{step}/bank_after"], dim=-1)
            close(objective.queue.rows, bank)
            assert objective.queue.position == numbers[f"step{step}/ptr_after"]


def test_swav_steps_with_a_queue():
    """The golden `loss_softmax_over_prototypes` is the paper's; the original took the softmax over
    the batch."""
    objective = build("swav", 12, projector=[16, 8], prototypes=10, queue=24, queue_start=1)
    trainer = Trainer("swav", objective, {"visual_project": objective.projector})
    numbers = trainer.numbers
    objective.prototypes.data.copy_(numbers["w/prototypes.weight"])
    objective.after_step()  # the original renormalises at the start of a step
    objective.clock.done.zero_()
    close(objective.prototypes.data, numbers["prototypes_after_norm"])
    for step in range(5):
        views = [trainer.embed(numbers[f"step{step}/x{view}"]) for view in (0, 1)]
        unit = [F.normalize(objective.projector(view), dim=-1) for view in views]
        for view in (0, 1):
            close(unit[view].detach(), numbers[f"step{step}/embed{view}"], 1e-3)
            scores = (unit[view] @ objective.prototypes.T).detach()
            close(objective._assign(view, scores), numbers[f"step{step}/q{view}"], 1e-3)
        loss = objective(*views)
        close(loss.detach(), numbers[f"step{step}/loss_softmax_over_prototypes"], 1e-3)
        objective.after_step()
        stored = torch.stack([queue.rows for queue in objective.queues])
        if step == 3:  # ours is a ring, the original shifts: the same rows in another order
            expected = numbers["step3/queue_after"].view(2, 3, 8, 8).flip(1).reshape(2, 24, 8)
            close(stored, expected, 1e-3)


def _clip_parts(name):
    numbers = golden(f"trainers/{name}")
    return numbers, numbers["text_features"] @ numbers["w/language_project.weight"].T


def test_clip_step():
    numbers, text = _clip_parts("clip")
    objective = build("infonce", 8)
    project = torch.nn.Linear(12, 8, bias=False).double()
    trainer = Trainer("clip", objective, {"visual_project": project})
    objective.log_scale.data = numbers["w/clip_scale"]
    loss = objective(project(trainer.embed(INPUTS["x0"])), text)
    close(loss.detach(), numbers["loss"])
    trainer.check_gradients(loss)


def test_declip_step():
    numbers, text = _clip_parts("declipnns")
    objective = build("declip", 8, queue=20)
    project = torch.nn.Linear(12, 8, bias=False).double()
    trainer = Trainer("declipnns", objective, {"visual_project": project})
    objective.log_scale.data.copy_(numbers["w/clip_scale"])
    objective.queue.rows.copy_(F.normalize(numbers["bank_init"], dim=-1))
    loss = objective(project(trainer.embed(INPUTS["x0"])), text)
    close(loss.detach(), numbers["loss"])
    slope = torch.autograd.grad(loss, objective.log_scale, retain_graph=True)[0]
    close(slope, numbers["g/clip_scale"])
    trainer.check_gradients(loss)
    objective.after_step()
    close(objective.queue.rows, F.normalize(numbers["bank_after"], dim=-1))


def test_slip_step():
    numbers, text = _clip_parts("slip")
    objective = build("slip", 12, projector=[16, 16, 8])
    project = torch.nn.Linear(12, 8, bias=False).double()
    parts = {"clip_vis_project": project, "visual_project": objective.projector}
    trainer = Trainer("slip", objective, parts)
    objective.log_scale.data.copy_(numbers["w/clip_scale"])
    loss = objective(
        image=project(trainer.embed(INPUTS["x2"])),
        text=text,
        image_2_features=trainer.embed(INPUTS["x0"]),
        image_3_features=trainer.embed(INPUTS["x1"]),
    )
    close(loss.detach(), numbers["loss"])
    slope = torch.autograd.grad(loss, objective.log_scale, retain_graph=True)[0]
    close(slope, numbers["g/clip_scale"])
    trainer.check_gradients(loss)


def test_language_guided_slip_step():
    """One head for both losses, the second view being a language neighbour."""
    numbers, text = _clip_parts("lgslip")
    objective = build("slip", 8, projector=[], first="image", second="image_2")
    head = build("ntxent", 12, projector=[16, 16, 8]).projector
    trainer = Trainer("lgslip", objective, {"visual_project": head})
    objective.log_scale.data.copy_(numbers["w/clip_scale"])
    image, neighbour = (head(trainer.embed(INPUTS[key])) for key in ("x0", "x1"))
    loss = objective(image=image, text=text, image_2=neighbour)
    close(loss.detach(), numbers["loss"])
    trainer.check_gradients(loss)
