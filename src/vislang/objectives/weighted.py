"""Several objectives on one batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from vislang.errors import UserError
from vislang.objectives.objective import Objective
from vislang.objectives.persample import PerSample


class WeightedSum(PerSample):
    """loss = Σ weightₖ · lossₖ; each term takes the keys that it needs.

    Args:
        terms: objectives by name.
        weights: their weights by the same names.
    """

    def __init__(self, terms: Mapping[str, Objective], weights: Mapping[str, float]):
        super().__init__()
        self.weights = dict(weights)
        self.terms = nn.ModuleDict({_key(name): term for name, term in terms.items()})
        self.needs = tuple(dict.fromkeys(key for term in terms.values() for key in term.needs))
        split = self._split().values()
        within = tuple(dict.fromkeys(key for term in split for key in term.per_sample))
        shared = {key for name in weights for key in self._gathered(name)}
        if not shared & set(within):  # else another term wants the whole batch of them
            self.per_sample = within
            self.counted = tuple(dict.fromkeys(key for term in split for key in term.counted))

    @property
    def momentum(self) -> float | None:
        """Decay of the momentum teacher that the terms share; None where none of them has one.

        Raises:
            UserError: they want different ones.
        """
        terms = {name: self._term(name) for name in self.weights}
        taught = {
            name: float(term.momentum)  # type: ignore[arg-type]
            for name, term in terms.items()
            if any(key.endswith("_teacher") for key in term.needs) and hasattr(term, "momentum")
        }
        if len(set(taught.values())) > 1:
            raise UserError(
                "The terms of a sum share one momentum teacher, but their decays differ:"
                f" {', '.join(f'{name} {value:g}' for name, value in taught.items())}."
                " Give them the same option momentum."
            )
        return next(iter(taught.values()), None)

    def forward(self, **rows: Tensor) -> Tensor:
        """The weighted sum."""
        losses = {
            name: self._term(name)(**{key: rows[key] for key in self._term(name).needs})
            for name in self.weights
        }
        return self._add(losses)

    def count(self, **rows: Tensor) -> Tensor:
        """Terms in these rows, one number for each objective that has a per-sample part."""
        counts = [
            term.count(**{key: rows[key] for key in term.counted})
            for term in self._split().values()
        ]
        return torch.stack(counts) if counts else torch.zeros(0)

    def across(self, **rows: Tensor) -> Tensor:
        """The sum of what sees the global batch."""
        losses = {}
        for name in self.weights:
            term, own = self._term(name), {key: rows[key] for key in self._gathered(name)}
            losses[name] = term.across(**own) if isinstance(term, PerSample) else term(**own)
        return self._add(losses)

    def within(self, total: Tensor, **rows: Tensor) -> Tensor:
        """The sum of the per-sample parts of these rows."""
        losses = [
            self.weights[name] * term.within(total[i], **{k: rows[k] for k in term.per_sample})
            for i, (name, term) in enumerate(self._split().items())
        ]
        return torch.stack(losses).sum()

    def after_step(self) -> None:
        """Each term's own."""
        for name in self.weights:
            self._term(name).after_step()

    def _term(self, name: str) -> Objective:
        return cast(Objective, self.terms[_key(name)])

    def _split(self) -> dict[str, PerSample]:
        terms = {name: self._term(name) for name in self.weights}
        return {name: term for name, term in terms.items() if isinstance(term, PerSample)}

    def _gathered(self, name: str) -> tuple[str, ...]:
        term = self._term(name)
        return term.gathered if isinstance(term, PerSample) else term.needs

    def _add(self, losses: Mapping[str, Tensor]) -> Tensor:
        self.parts = {}
        for name, loss in losses.items():
            self.parts[name] = loss.detach()
            inner = self._term(name).parts
            self.parts.update({f"{name}/{part}": value for part, value in inner.items()})
        return torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum()


def _key(name: str) -> str:
    return name.replace(".", "_").replace(":", "_")  # a module's name may hold no dot
