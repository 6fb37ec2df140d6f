"""SLIP: CLIP and SimCLR on one image tower.  B: pairs in the global batch, D: width."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vislang.objectives.infonce import symmetric_contrast
from vislang.objectives.layers import mlp
from vislang.objectives.ntxent import two_view_contrast
from vislang.objectives.objective import Objective, clamp_log_scale, new_log_scale, positive


class SLIP(Objective):
    """InfoNCE of image and text, plus NT-Xent of two more views of the image.

        loss = InfoNCE(I, T) + w NT-Xent(g(f₂), g(f₃))

    f₂, f₃: the image tower's output for two strongly augmented views, *before* its head onto the
    joint space; g: the self-supervised projector, owned by the objective.
    SLIP, Mu et al. 2022, arXiv:2112.12750, algorithm 1 and section 3.

    Args:
        image_width: width of f₂ and f₃, filled in by the builder.
        weight: w.
        temperature, learn, max_scale, block: as of InfoNCE.
        ssl_temperature: of NT-Xent.
        projector: widths of g; empty for none.
        first, second: batch keys of the two views. With ["image", "image_2"] and no projector
            both losses share the head (LG-SLIP, whose view 2 is a language neighbour).
    """

    def __init__(
        self,
        image_width: int,
        weight: float = 1.0,
        temperature: float = 0.07,
        learn: bool = True,
        max_scale: float = 100.0,
        block: int = 0,
        ssl_temperature: float = 0.1,
        projector: tuple[int, ...] = (4096, 4096, 256),
        first: str = "image_2_features",
        second: str = "image_3_features",
    ):
        super().__init__()
        positive(temperature=temperature, ssl_temperature=ssl_temperature, max_scale=max_scale)
        self.first, self.second = first, second
        self.needs = tuple(dict.fromkeys(("image", "text", first, second)))
        self.weight, self.max_scale, self.block = weight, max_scale, block
        self.ssl_temperature = ssl_temperature
        self.log_scale = new_log_scale(1 / temperature, learn)
        self.projector = mlp([image_width, *projector])

    def forward(self, **rows: Tensor) -> Tensor:
        """Loss of the global batch."""
        image, text = F.normalize(rows["image"], dim=-1), F.normalize(rows["text"], dim=-1)
        scale = self.log_scale.exp()
        clip = symmetric_contrast(image, text, scale, self.block)
        ssl, right = two_view_contrast(
            self.projector(rows[self.first]),
            self.projector(rows[self.second]),
            self.ssl_temperature,
        )
        self.parts = {
            "infonce": clip.detach(),
            "ntxent": ssl.detach(),
            "ssl_accuracy": right,
            "scale": scale.detach(),
        }
        return clip + self.weight * ssl

    def after_step(self) -> None:
        """Hold the scale in [1, max_scale]."""
        clamp_log_scale(self.log_scale, self.max_scale)
