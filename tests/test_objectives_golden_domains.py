"""The objective of described domains against its original's numbers."""

import pytest
import torch

from domains_golden import ARRAYS
from vislang.errors import UserError
from vislang.objectives.disentangle import Disentangle


def later(name: str) -> torch.Tensor:
    return torch.from_numpy(ARRAYS[f"later.{name}"])


@pytest.mark.parametrize("orthogonal", [False, True])
def test_disentangle(orthogonal):
    rows = later("dis.embeddings").double().requires_grad_()
    label = later("dis.class") * 3 + later("dis.domain")
    objective = Disentangle(8, classes=4, domains=3, orthogonal=orthogonal).double()
    parts = {"class_part": "class_components", "domain_part": "domain_components"}
    with torch.no_grad():
        for ours, theirs in parts.items():
            getattr(objective, ours).copy_(later(f"dis.{theirs}"))
        objective.offset.copy_(later("dis.offset")[0])
    loss = objective(text=rows, label=label)
    kind = "ortho" if orthogonal else "plain"
    assert loss.item() == pytest.approx(float(later(f"dis.loss_{kind}")), rel=1e-6)
    loss.backward()
    found = {"embeddings": rows.grad, "class": objective.class_part.grad,
             "domain": objective.domain_part.grad, "offset": objective.offset.grad}  # fmt: skip
    for name, gradient in found.items():
        assert gradient is not None
        golden = later(f"dis.grad_{name}_{kind}").double().reshape(gradient.shape)
        torch.testing.assert_close(gradient, golden, rtol=1e-5, atol=1e-6)


def test_disentangle_starts_at_the_means():
    objective = Disentangle(8, classes=4, domains=3)
    objective.start(later("dis.embeddings"), later("dis.class") * 3 + later("dis.domain"))
    for part, name in ((objective.class_part, "class"), (objective.domain_part, "domain"),
                       (objective.offset[None], "offset")):  # fmt: skip
        torch.testing.assert_close(part.detach(), later(f"dis.init_{name}"), rtol=0, atol=1e-5)


def test_labels_beyond_the_pairs_are_refused():
    objective = Disentangle(8, classes=2, domains=3)
    with pytest.raises(UserError, match="2 classes x 3 domains have the pairs 0 to 5"):
        objective(text=torch.randn(2, 8), label=torch.tensor([0, 6]))
    with pytest.raises(UserError, match="at least one class"):
        Disentangle(8, classes=0)


def test_training_reaches_what_least_squares_says():
    """The learned parts of a fixed set of prompts add up to the additive model's."""
    from vislang.metrics.grid import additive

    torch.manual_seed(0)
    z = torch.nn.functional.normalize(torch.randn(12, 8, dtype=torch.double), dim=-1)
    label = torch.arange(12)
    objective = Disentangle(8, classes=4, domains=3).double()
    optimizer = torch.optim.LBFGS(objective.parameters(), max_iter=100, tolerance_grad=1e-9)
    optimizer.step(lambda: _closure(objective, optimizer, z, label))
    best = additive(z.reshape(4, 3, 8).numpy())
    made = objective.class_part[:, None] + objective.domain_part + objective.offset
    expected = best.offset + best.class_part[:, None] + best.domain_part
    torch.testing.assert_close(made.detach(), torch.from_numpy(expected), rtol=0, atol=1e-5)


def _closure(objective, optimizer, z, label):
    optimizer.zero_grad()
    loss = objective(text=z, label=label)
    loss.backward()
    return loss
