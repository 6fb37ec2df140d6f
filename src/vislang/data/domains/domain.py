"""What a described domain is: a record, nothing more; no image library is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vislang.errors import UserError

# Of the box in which GrabCut may find the foreground; "original" swaps height and width.
AXES = ("corrected", "original")


@dataclass(frozen=True)
class Domain:
    """A way in which a picture may look, and sentences that say so.

    Args:
        name: unique among the domains that are used together.
        operation: "module:function"; the function gets uint8 RGB `pixels` [H, W, 3] and returns
            such an array, of any size. Where its signature has `rng` it gets a numpy Generator
            seeded by (seed, image id, name); where it has `shared`, what several domains compute
            from the same picture (`apply.Shared`); and `parameters` by their names.
        templates: sentences with one {} each for the class word.
        parameters: further arguments of the function.
        random: whether the result depends on the seed.
        says: one sentence for `vislang list domains`.
    """

    name: str
    operation: str
    templates: tuple[str, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    random: bool = False
    says: str = ""

    def __post_init__(self) -> None:
        if not self.templates:
            raise UserError(
                f"The domain {self.name!r} has no sentences. Give at least one with {{}} for the"
                f" class word, as in 'a {self.name} photo of a {{}}'."
            )
        for template in self.templates:
            if template.count("{}") != 1:
                raise UserError(
                    f"The domain {self.name!r}: {template!r} must hold {{}} exactly once, where"
                    " the class word goes."
                )

    def described(self) -> dict[str, Any]:
        """All that embeddings under this domain depend on, for the settings of a store."""
        return {
            "name": self.name,
            "operation": self.operation,
            "templates": list(self.templates),
            "parameters": dict(self.parameters),
            "random": self.random,
        }
