"""ProtoCLIP: InfoNCE plus cross-modal prototypes of an episode.

B: rows of the global batch, D: width, d: projected width, n: samples of the episode, K: clusters.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vislang.errors import UserError
from vislang.objectives.infonce import symmetric_contrast
from vislang.objectives.kmeans import Clusters, cluster_means, kmeans
from vislang.objectives.layers import mlp
from vislang.objectives.objective import Objective, clamp_log_scale, new_log_scale, positive
from vislang.objectives.soft import soft_cross_entropy

LABELS = ("image_labels", "text_labels", "external_labels")  # int64 [n], clusters
ROWS = (  # [K, d]; a_from_b: mean of the projected a of each cluster of b
    *("image_centroids", "text_centroids", "image_from_text", "text_from_image"),
    *("image_from_external", "text_from_external"),
)
TABLES = ("samples", *LABELS, *ROWS)  # samples: int64 [n], sorted positions in the source


class ProtoCLIP(Objective):
    """Match images with texts, and with the clusters that their texts fall into.

        loss = w_c InfoNCE(I, T) + w_p ½ [P(x, S_I, c^T, ℓ^T) + P(y, S_T, c^I, ℓ^I)]
                                 + w_e ½ [P(x, E_I, -, ℓ^E) + P(y, E_T, -, ℓ^E)]
        P(z, S, c, ℓ) = mean_b of CE( softmax_k(c_ℓ·c_k/τ), softmax_k(a z·S_k) )

    x, y [B, d]: unit rows of MLPs over image and text; every episode, K-means groups the
    episode's x and y (centroids c, labels ℓ); S: back-translated prototypes, the mean x of each
    text cluster (S_I) and the mean y of each image cluster (S_T); E: the same for clusters of an
    external teacher, with one-hot targets; a: a second learned scale.
    ProtoCLIP, Chen et al. 2022, arXiv:2206.10996, section 3, equations (3)-(9), algorithm 1.

    Before each episode: `start_episode(number)`, and unless `clusters_now()` is False, embed the
    episode's samples, collect `project(image, text)` in eval mode and call `cluster`.
    Rows whose sample is not in the tables only take part in InfoNCE.

    Args:
        width: D, filled in by the builder.
        clusters: K.
        projector: hidden widths of the MLPs; empty for a single linear layer.
        projection: d.
        temperature, learn, max_scale, block: of InfoNCE, as there.
        prototype_temperature: start of 1/a.
        target_temperature: τ; 0 for one-hot targets (the original's default, -1).
        clip_weight, prototype_weight, external_weight: w_c, w_p, w_e.
        back_translate: whether S is back-translated; else S_I = c^T, S_T = c^I.
        warmup: episodes at the start with InfoNCE only.
        lit_start: first episode (from 0) of the last phase, InfoNCE only with the image side
            locked; 0 for none. (The original's --lit-start-epoch counts from 1.)
        every: episodes between clusterings.
        iterations, repetitions, backend: of K-means.
        external: .npy file of the external teacher's rows, one for each sample of the source.
    """

    needs = ("image", "text", "index")
    episode: Tensor
    samples: Tensor
    image_labels: Tensor
    text_labels: Tensor
    external_labels: Tensor
    image_centroids: Tensor
    text_centroids: Tensor
    image_from_text: Tensor
    text_from_image: Tensor
    image_from_external: Tensor
    text_from_external: Tensor

    def __init__(
        self,
        width: int,
        clusters: int = 20000,
        projector: tuple[int, ...] = (2048,),
        projection: int = 128,
        temperature: float = 0.07,
        learn: bool = True,
        max_scale: float = 100.0,
        block: int = 0,
        prototype_temperature: float = 0.07,
        target_temperature: float = 0.01,
        clip_weight: float = 1.0,
        prototype_weight: float = 1.0,
        external_weight: float = 0.0,
        back_translate: bool = True,
        warmup: int = 1,
        lit_start: int = 0,
        every: int = 1,
        iterations: int = 20,
        repetitions: int = 1,
        backend: str = "auto",
        external: str = "",
    ):
        super().__init__()
        positive(temperature=temperature, prototype_temperature=prototype_temperature)
        positive(max_scale=max_scale, clusters=clusters, every=every)
        if external_weight and not back_translate:
            raise UserError("external_weight needs back_translate: there are no other prototypes.")
        self.external = external
        self.clusters, self.target_temperature = clusters, target_temperature
        self.weights = (clip_weight, prototype_weight, external_weight)
        self.back_translate, self.block, self.max_scale = back_translate, block, max_scale
        self.warmup, self.lit_start, self.every = warmup, lit_start, every
        self.kmeans_options = {
            "iterations": iterations, "repetitions": repetitions, "backend": backend
        }  # fmt: skip
        self.log_scale = new_log_scale(1 / temperature, learn)
        self.prototype_log_scale = new_log_scale(1 / prototype_temperature, learn)
        self.image_projector = mlp([width, *projector, projection], bias=True)
        self.text_projector = mlp([width, *projector, projection], bias=True)
        self.register_buffer("episode", torch.zeros((), dtype=torch.int64))
        for name in TABLES:
            kind = torch.float32 if name in ROWS else torch.int64
            self.register_buffer(name, torch.zeros(0, dtype=kind))

    # -- the episode ------------------------------------------------------------------------------

    @property
    def phase(self) -> str:
        """Of this episode: "clip" (warm-up), "prototypes" or "lit" (image side to be locked)."""
        episode = int(self.episode)
        if self.lit_start and episode >= self.lit_start:
            return "lit"
        return "clip" if episode < self.warmup else "prototypes"

    def start_episode(self, number: int) -> None:
        """Say which episode (from 0) begins."""
        self.episode.fill_(number)

    def clusters_now(self) -> bool:
        """Whether this episode begins with a clustering."""
        return self.phase == "prototypes" and int(self.episode) % self.every == 0

    def project(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Unit projections x, y [B, d] of embeddings [B, D]."""
        return (
            F.normalize(self.image_projector(image), dim=-1),
            F.normalize(self.text_projector(text), dim=-1),
        )

    def external_rows(self, index: Tensor) -> Tensor | None:
        """The external teacher's rows of these samples [n, E]; None without one."""
        if not self.external:
            return None
        try:
            rows = np.load(self.external, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(
                f"objective.options.external: {self.external} cannot be read ({error})."
                " Give a .npy file of numbers [samples of the source, width]."
            ) from error
        if rows.ndim != 2 or len(rows) <= int(index.max()):
            raise UserError(
                f"objective.options.external: {self.external} holds {list(rows.shape)}, but needs"
                f" one row for each sample of the source, at least {int(index.max()) + 1:,}."
            )
        return torch.from_numpy(np.asarray(rows[index.cpu().numpy()], np.float32))

    def cluster(
        self, index: Tensor, image: Tensor, text: Tensor, external: Tensor | None = None, seed=1234
    ) -> dict[str, Clusters]:
        """Group an episode and keep its prototypes; the same result on every process.

        Args:
            index: int64 [n], position of each sample in its source. A sample drawn more than
                once keeps its first row.
            image, text: [n, d], what `project` gave, of the whole episode.
            external: [n, E], rows of an external teacher.
            seed: of K-means.

        Returns:
            Clusters by name ("image", "text", "external"), for the log.
        """
        kept = _first_of_each(index)
        given = {"image": image[kept], "text": text[kept]}
        if external is not None:
            given["external"] = external[kept]
        found = {
            name: kmeans(rows, self.clusters, seed=seed, **self.kmeans_options)
            for name, rows in given.items()
        }
        labels = {f"{name}_labels": made.labels for name, made in found.items()}
        self.set_prototypes(
            index[kept], image[kept], text[kept],
            image_centroids=found["image"].centroids, text_centroids=found["text"].centroids,
            **labels,
        )  # fmt: skip
        return found

    @torch.no_grad()
    def set_prototypes(
        self,
        index: Tensor,
        image: Tensor,
        text: Tensor,
        image_labels: Tensor,
        text_labels: Tensor,
        image_centroids: Tensor,
        text_centroids: Tensor,
        external_labels: Tensor | None = None,
    ) -> None:
        """Take labels and centroids made elsewhere; prototypes are back-translated here.

        Args:
            index: int64 [n], different positions in the source.
            image, text: [n, d], unit projections of those samples.
            *_labels: int64 [n].
            *_centroids: [K, d].
        """
        count = len(image_centroids)
        image, text = torch.nan_to_num(image), torch.nan_to_num(text)
        order = index.argsort()
        self._set("samples", index[order])
        self._set("image_labels", image_labels[order])
        self._set("text_labels", text_labels[order])
        self._set("image_centroids", image_centroids)
        self._set("text_centroids", text_centroids)
        self._set("image_from_text", cluster_means(image, text_labels, count))
        self._set("text_from_image", cluster_means(text, image_labels, count))
        if external_labels is not None:
            self._set("external_labels", external_labels[order])
            self._set("image_from_external", cluster_means(image, external_labels, count))
            self._set("text_from_external", cluster_means(text, external_labels, count))

    def _set(self, name: str, value: Tensor) -> None:
        old = getattr(self, name)
        setattr(self, name, value.to(old.device, old.dtype).clone())

    # -- the step ---------------------------------------------------------------------------------

    def forward(self, image: Tensor, text: Tensor, index: Tensor) -> Tensor:
        """Loss of the global batch: [B, D] twice, int64 [B]."""
        unit = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
        scale = self.log_scale.exp()
        clip = symmetric_contrast(*unit, scale, self.block)
        self.parts = {"infonce": clip.detach(), "scale": scale.detach()}
        loss = self.weights[0] * clip
        if self.phase != "prototypes" or not (self.weights[1] or self.weights[2]):
            return loss
        if not len(self.samples):
            raise UserError(
                "ProtoCLIP has no prototypes yet: cluster the episode (`cluster` or"
                " `set_prototypes`) before its first step, or raise the option warmup."
            )
        return loss + self._prototype_loss(*self.project(image, text), index)

    def _prototype_loss(self, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        place = torch.searchsorted(self.samples, index).clamp(max=len(self.samples) - 1)
        known = self.samples[place] == index
        a = self.prototype_log_scale.exp()
        tau = self.target_temperature

        def term(z: Tensor, student: Tensor, labels: Tensor, teacher: Tensor | None) -> Tensor:
            return prototype_loss(a * z @ student.to(z.dtype).T, labels[place], known, teacher, tau)

        image_side = self.image_from_text if self.back_translate else self.text_centroids
        text_side = self.text_from_image if self.back_translate else self.image_centroids
        image_term = term(x, image_side, self.text_labels, self.text_centroids)
        text_term = term(y, text_side, self.image_labels, self.image_centroids)
        loss = self.weights[1] * (image_term + text_term) / 2
        self.parts |= {
            "image_prototypes": image_term.detach(),
            "text_prototypes": text_term.detach(),
            "prototype_scale": a.detach(),
            "labelled": known.to(x.dtype).mean(),
        }
        if self.weights[2]:
            if not len(self.external_labels):
                raise UserError(
                    "external_weight is above 0, but the episode was clustered without the"
                    " external teacher's rows."
                )
            external = (
                term(x, self.image_from_external, self.external_labels, None)
                + term(y, self.text_from_external, self.external_labels, None)
            ) / 2
            self.parts["external"] = external.detach()
            loss = loss + self.weights[2] * external
        return loss

    def after_step(self) -> None:
        """Hold both scales in [1, max_scale]."""
        clamp_log_scale(self.log_scale, self.max_scale)
        clamp_log_scale(self.prototype_log_scale, self.max_scale)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        for name in TABLES:  # tables have the sizes of the episode that was saved
            if prefix + name in state_dict:
                old = getattr(self, name)
                setattr(self, name, old.new_empty(state_dict[prefix + name].shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


def prototype_loss(
    logits: Tensor, labels: Tensor, known: Tensor, teacher: Tensor | None, temperature: float
) -> Tensor:
    """Cross-entropy of prototype logits with their target, mean over the known rows.

    Args:
        logits: [B, K].
        labels: int64 [B], the row's cluster.
        known: bool [B], rows that count.
        teacher: [K, d], centroids whose similarity softens the target; None: one-hot.
        temperature: of that similarity; 0 or below: one-hot.
    """
    if teacher is None or temperature <= 0:
        each = F.cross_entropy(logits, labels, reduction="none")
    else:
        teacher = teacher.to(logits.dtype)
        target = (teacher[labels] @ teacher.T / temperature).softmax(1)
        each = soft_cross_entropy(logits, target)
    return (each * known).sum() / known.sum().clamp(min=1)


def _first_of_each(index: Tensor) -> Tensor:
    """Places of the first row of every different number, in the order of the rows."""
    order = index.argsort(stable=True)
    fresh = torch.ones_like(order, dtype=torch.bool)
    fresh[1:] = index[order][1:] != index[order][:-1]
    return order[fresh].sort().values
