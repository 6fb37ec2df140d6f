"""Disentanglement of class and domain in text embeddings.

B: prompts in the global batch, C: classes, E: domains, D: width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislang.errors import UserError
from vislang.objectives.objective import Objective


class Disentangle(Objective):
    """Prompts as the sum of a class, a domain and an offset, all learned.

        loss = mean ‖a_c + b_d + o - z‖² (+ mean over all c, d of cos²(a_c, b_d))

    z: unit embedding of a prompt that names class c and domain d. The label of a prompt is the
    number of its pair, c · E + d; prompts with label -1 are left out. Beside a contrastive loss
    it is a term of a sum, 'infonce + disentangle:0.1'.

    Args:
        width: D, filled in by the builder.
        classes: C; by default ImageNet's.
        domains: E; by default the described ones.
        orthogonal: add the second term.
        side: batch key of the embeddings.
    """

    def __init__(
        self,
        width: int,
        classes: int = 1000,
        domains: int = 18,
        orthogonal: bool = False,
        side: str = "text",
    ):
        super().__init__()
        if classes < 1 or domains < 1:
            raise UserError(
                "disentangle needs at least one class and one domain,"
                f" got classes={classes}, domains={domains}."
            )
        self.needs = (side, "label")
        self.side, self.orthogonal = side, orthogonal
        self.class_part = nn.Parameter(torch.zeros(classes, width))
        self.domain_part = nn.Parameter(torch.zeros(domains, width))
        self.offset = nn.Parameter(torch.zeros(width))

    def forward(self, label: Tensor, **rows: Tensor) -> Tensor:
        """Loss of the global batch: rows [B, D], label int64 [B]."""
        pairs = len(self.class_part) * len(self.domain_part)
        if int(label.max()) >= pairs:
            raise UserError(
                f"The source has label {int(label.max())}, but {len(self.class_part)} classes x"
                f" {len(self.domain_part)} domains have the pairs 0 to {pairs - 1}: a label is"
                " class · domains + domain."
            )
        z = F.normalize(rows[self.side], dim=-1)
        known = label >= 0
        of_class, of_domain = self._places(label.clamp(min=0))
        made = self.class_part[of_class] + self.domain_part[of_domain] + self.offset
        missed = ((made - z).square().sum(1) * known).sum() / known.sum().clamp(min=1)
        self.parts = {"missed": missed.detach()}
        if not self.orthogonal:
            return missed
        a, b = F.normalize(self.class_part, dim=-1), F.normalize(self.domain_part, dim=-1)
        shared = (a @ b.T).square().mean()
        self.parts["shared"] = shared.detach()
        return missed + shared

    @torch.no_grad()
    def start(self, rows: Tensor, label: Tensor) -> None:
        """Begin at the means of all prompts: o of all, a_c and b_d of theirs, less o.

        Args:
            rows: embeddings of the whole set of prompts [n, D].
            label: numbers of their pairs [n]; a class or domain without prompts stays at 0.
        """
        z, (of_class, of_domain) = F.normalize(rows, dim=-1), self._places(label)
        self.offset.copy_(z.mean(0))
        for part, places in ((self.class_part, of_class), (self.domain_part, of_domain)):
            count = torch.bincount(places, minlength=len(part))[:, None]
            means = torch.zeros_like(part).index_add_(0, places, z.to(part.dtype)) / count.clamp(1)
            part.copy_(torch.where(count > 0, means - self.offset, 0.0))

    def _places(self, label: Tensor) -> tuple[Tensor, Tensor]:
        domains = len(self.domain_part)
        return torch.div(label, domains, rounding_mode="floor"), label % domains
