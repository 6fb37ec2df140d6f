"""Relational knowledge distillation: distances and angles.  B: pairs, D: width."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from vislang.errors import UserError
from vislang.objectives.distillation import Distillation

NOTHING = 1e-12  # share of the mean squared distance below which two rows are the same point


class RKD(Distillation):
    """Give the student's embeddings the distances and angles that the teacher's have.

        loss = w_d mean_ij h(d(s)_ij - d(t)_ij) + w_a mean_ijk h(a(s)_ijk - a(t)_ijk)
        d_ij = |x_i - x_j| / mean of all such over i ≠ j
        a_ijk = cos of the angle at x_i between x_j and x_k;  h: Huber's function with β = 1

    Zero terms (i = j, ...) count in the means, as in the authors' code. Distances and angles
    come from Gram matrices in float64, angles for one block of corners x_i at a time:
    O(B² + block · B²) numbers instead of O(B³ + B² D), and no factor D in the B³ operations.
    RKD, Park et al. 2019, arXiv:1904.05068, equations (6)-(10).

    Args:
        teacher, student, detach: see `Distillation`.
        distance: w_d.
        angle: w_a; 0 leaves the angles out.
        normalize: unit rows first (the original of the golden numbers; there with 0.5 and 1).
        block: corners at a time; 0 chooses blocks of about 4 MB.
    """

    def __init__(
        self,
        teacher: str = "text",
        student: str = "",
        detach: bool = True,
        distance: float = 25.0,
        angle: float = 50.0,
        normalize: bool = False,
        block: int = 0,
    ):
        super().__init__(teacher, student, detach)
        self.weights, self.normalize, self.block = (distance, angle), normalize, block

    def forward(self, **rows: Tensor) -> Tensor:
        """Loss of the global batch, [B, D] each (widths may differ); B at least 2."""
        teacher, student = self.sides(rows)
        if len(student) < 2:
            raise UserError("RKD compares pairs: the global batch must have at least 2 rows.")
        dtype = student.dtype
        grams = [gram(part, self.normalize) for part in (student, teacher)]
        parts: dict[str, Tensor] = {}
        if self.weights[0]:
            parts["distance"] = F.smooth_l1_loss(
                relative_distances(grams[0]), relative_distances(grams[1])
            )
        if self.weights[1]:
            block = self.block or max(1, 2**19 // len(student) ** 2)
            parts["angle"] = _AngleLoss.apply(*grams, block)
        self.parts = {name: value.detach().to(dtype) for name, value in parts.items()}
        weights: dict[str, float] = {"distance": self.weights[0], "angle": self.weights[1]}
        total = [weights[name] * value for name, value in parts.items()]
        return torch.stack(total).sum().to(dtype) if total else student.sum() * 0


def gram(rows: Tensor, normalize: bool) -> Tensor:
    """Products of centred rows, [B, B] in float64: all that distances and angles depend on."""
    rows = F.normalize(rows, dim=-1) if normalize else rows
    rows = rows.double()
    rows = rows - rows.mean(0)
    return rows @ rows.T


def squared_distances(products: Tensor) -> Tensor:
    """[B, B] from a Gram matrix; exactly 0 on the diagonal, never below 0."""
    own = products.diagonal()
    squares = (own[:, None] + own - 2 * products).clamp_min(0)
    return squares * (1 - torch.eye(len(own), dtype=squares.dtype, device=squares.device))


def relative_distances(products: Tensor) -> Tensor:
    """Distances divided by their mean over i ≠ j; all 0 where all rows are one point."""
    count = len(products)
    squares = squared_distances(products)
    apart = squares > NOTHING * squares.mean()
    distances = torch.where(apart, torch.where(apart, squares, 1.0).sqrt(), 0.0)
    mean = distances.sum() / (count * (count - 1))
    return distances / torch.where(mean > 0, mean, 1.0)


class _AngleLoss(torch.autograd.Function):
    """Huber loss of all B³ angles of two Gram matrices; the gradient is made on the way.

    With K the Gram matrix, u_j = x_j - x_i and w_j = 1/|u_j| (0 where x_j = x_i):
        N_jk = u_j·u_k = K_jk - K_ij - K_ik + K_ii,      A = w wᵀ ∘ N
        G = dL/dA,   dL/dN = H = G ∘ w wᵀ,   dL/d|u_j|² = -q_j = -w_j² Σ_k G_jk A_jk
    and the chain rule through N and |u_j|² = K_jj - 2 K_ij + K_ii gives dL/dK.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, block: int) -> Tensor:
        count = len(student)
        wanted = ctx.needs_input_grad[:2]
        slopes = [torch.zeros_like(student) if want else None for want in wanted]
        total = student.new_zeros(())
        inverse = [_inverse_distances(products) for products in (student, teacher)]
        for start in range(0, count, block):
            corners = slice(start, min(start + block, count))
            angles = [
                _angles(products, weight, corners)
                for products, weight in zip((student, teacher), inverse)
            ]
            gap = angles[0] - angles[1]
            slope = gap.clamp(-1, 1)  # Huber's derivative; the loss is slope · (gap - slope / 2)
            total += torch.dot(slope.flatten(), (gap - slope / 2).flatten())
            for side, sign in ((0, 1.0), (1, -1.0)):
                if (sum_ := slopes[side]) is not None:
                    _add_slope(sum_, slope * sign, angles[side], inverse[side], corners)
        ctx.slopes = [None if slope is None else slope / count**3 for slope in slopes]
        return total / count**3

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        return (*(None if slope is None else incoming * slope for slope in ctx.slopes), None)


def _inverse_distances(products: Tensor) -> Tensor:
    squares = squared_distances(products)
    apart = squares > NOTHING * squares.mean()
    return torch.where(apart, torch.where(apart, squares, 1.0).rsqrt(), 0.0)


def _angles(products: Tensor, inverse: Tensor, corners: slice) -> Tensor:
    """Cosines at each corner i of the block between all j and k: [block, B, B]."""
    own = products[corners]  # K_ij, of the corner with everything
    left = own - products.diagonal()[corners, None]
    weight = inverse[corners]
    inner = products - left[:, :, None]
    inner -= own[:, None, :]
    return inner.mul_(weight[:, :, None]).mul_(weight[:, None, :])


def _add_slope(
    total: Tensor, slope: Tensor, angles: Tensor, inverse: Tensor, corners: slice
) -> None:
    """Add dL/dK of one block of corners."""
    weight = inverse[corners]
    by_length = weight.square() * (slope * angles).sum(2)  # q
    by_product = slope.mul_(weight[:, :, None]).mul_(weight[:, None, :])  # H
    rows = by_product.sum(2)
    total += by_product.sum(0)
    total[corners] += 2 * (by_length - rows)
    own = total.diagonal()
    own -= by_length.sum(0)
    own[corners] += rows.sum(1) - by_length.sum(1)
