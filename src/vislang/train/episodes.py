"""Episodes of objectives that group their samples before they train on them (ProtoCLIP)."""

import copy
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vislang.data.batches import Batches
from vislang.data.sample import BadSample, Source
from vislang.devices import autocast, broadcast, gather, random_state, set_random_state
from vislang.errors import UserError
from vislang.files import whole_file, write_json
from vislang.models.dual import DualEncoder
from vislang.train.frozen import FrozenFeatures
from vislang.train.log import Log
from vislang.train.rows import embed_rows
from vislang.train.setup import Place

GROUPS, MEMBERS, POINTS = 12, 8, 500  # what is kept of an episode to look at


class Episodes:
    """Before the first step of each epoch: tell the objectives, and cluster where they want it.

    An objective takes part by `start_episode(number)`, `clusters_now()`, `project(image, text)`,
    `external_rows(index)` and `cluster(...)`; see `objectives/protoclip.py`. The samples of the
    episode are embedded as they will be trained on (same augmentation), in eval mode. What was
    found goes into the log and, to be looked at, into `episodes/` of the run folder.

    Args:
        objective: the run's; parts of a weighted sum are found.
        model: embeds.
        batches: the run's loader.
        frozen: stored features of frozen towers.
        source: what `batches` reads.
        place: where to compute.
        folder: the run folder.
        seed: of K-means.
    """

    def __init__(
        self,
        objective: nn.Module,
        model: DualEncoder,
        batches: Batches,
        frozen: FrozenFeatures,
        source: Source,
        place: Place,
        folder: Path,
        seed: int,
    ):
        self.objectives: list[Any] = [
            module for module in objective.modules() if hasattr(module, "start_episode")
        ]
        self.model, self.frozen, self.source = model, frozen, source
        self.place, self.folder, self.seed = place, folder, seed
        self.batches = copy.copy(batches)  # workers of its own: the run's are busy ahead
        self.batches._crew = None
        rows = len(np.unique(batches.episode_indices(0))) if self.objectives else 0
        for one in self.objectives:
            if bool(one.external) != bool(one.weights[2]):
                raise UserError(
                    f"objective.options.external is {one.external!r}, external_weight"
                    f" {one.weights[2]:g}: an external teacher needs both, its file of rows and a"
                    " weight above 0."
                )
            if one.clusters > rows:
                raise UserError(
                    f"The objective groups each episode into {one.clusters:,} clusters, but an"
                    f" episode has only {rows:,} samples. Give it fewer"
                    " (objective.options.clusters), or longer episodes (data.episode)."
                )

    def begin(self, number: int, step: int, log: Log) -> None:
        """Episode `number` (from 0) begins with `step` (from 1)."""
        for one in self.objectives:
            one.start_episode(number)
            line: dict[str, Any] = {"step": step, "episode": number, "phase": one.phase}
            if one.clusters_now():
                began = time.monotonic()
                index, image, text = self._project(one, number)
                external = one.external_rows(index)
                found = one.cluster(index, image, text, external, seed=self.seed + number)
                broadcast(list(one.buffers()))
                line |= _figures(found)
                line["seconds"] = round(time.monotonic() - began, 2)
                if self.place.group.first:
                    self._keep(number, line, index, image, text, found)
            log.add("episode", **line)

    def _project(self, one: Any, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Index [n] and unit projections [n, d] of the episode's usable samples, in order."""
        chosen = np.unique(self.batches.episode_indices(number))
        before = random_state(self.place.device)
        self.model.eval()
        one.eval()
        parts: list[tuple[Tensor, ...]] = []
        with torch.no_grad():
            for batch in self.batches.over(chosen.tolist(), number):
                tensors = self.frozen.fill(batch, self.place.device)
                rows = {key: v for key, v in tensors.items() if isinstance(v, Tensor)}
                index = rows["index"]
                if len(index):
                    made = embed_rows(self.model, rows, ("image", "text"), self._autocast)
                    own = (index, *one.project(made["image"], made["text"]))
                else:
                    own = (index, *one.project(*[index.new_zeros(0, self.model.width).float()] * 2))
                parts.append(tuple(gather(value).cpu() for value in own))
        self.batches.close()
        one.train()
        self.model.train()
        set_random_state(before, self.place.device)
        index, image, text = (torch.cat(some) for some in zip(*parts))
        return index, image, text

    def _autocast(self) -> Any:
        return autocast(self.place.device, self.place.precision)

    def _keep(
        self, number: int, line: dict[str, Any], index: Tensor, image: Tensor, text: Tensor,
        found: dict[str, Any],
    ) -> None:  # fmt: skip
        """Write a few groups of each kind, and rows for a map, to be looked at."""
        place = self.folder / "episodes"
        rows = {"image": image, "text": text}
        groups = [
            {
                "side": side,
                "cluster": cluster,
                "size": int(found[side].sizes[cluster]),
                "samples": [self._sample(int(index[i])) for i in nearest],
            }
            for side in ("image", "text")
            for cluster, nearest in _groups(rows[side], found[side])
        ]
        picked = torch.linspace(0, len(index) - 1, min(POINTS, len(index))).long()
        with whole_file(place / f"{number:05d}.npz") as file:
            np.savez(
                file,
                image=image[picked].numpy().astype(np.float16),
                text=text[picked].numpy().astype(np.float16),
                image_labels=found["image"].labels[picked].numpy(),
                text_labels=found["text"].labels[picked].numpy(),
            )
        ids = [self._sample(int(i))["id"] for i in index[picked]]
        write_json(place / f"{number:05d}.json", {**line, "groups": groups, "ids": ids})

    def _sample(self, index: int) -> dict[str, str]:
        try:
            sample = self.source[index]
        except BadSample as bad:
            return {"id": bad.id, "text": ""}
        return {"id": sample.id, "text": sample.texts[0] if sample.texts else ""}


def _figures(found: dict[str, Any]) -> dict[str, Any]:
    """Errors, sizes and agreement of what K-means found."""
    from sklearn.metrics import normalized_mutual_info_score

    sides = {
        name: {
            "errors": [round(error, 6) for error in made.errors],
            "clusters": len(made.centroids),
            "not_empty": int((made.sizes > 0).sum()),
            "used": _used(made.sizes),
            "smallest": int(made.sizes.min()),
            "largest": int(made.sizes.max()),
        }
        for name, made in found.items()
    }
    labels = [found[side].labels.cpu().numpy() for side in ("image", "text")]
    return {
        "sides": sides,
        "image_text_nmi": round(float(normalized_mutual_info_score(*labels)), 6),
    }


def _used(sizes: Tensor) -> float:
    """exp of the entropy of the clusters' shares: K when all are alike, 1 when one has all."""
    share = sizes[sizes > 0].double() / sizes.sum()
    return round(math.exp(float(-(share * share.log()).sum())), 3)


def _groups(rows: Tensor, made: Any) -> Sequence[tuple[int, list[int]]]:
    """Clusters picked evenly from the largest to the smallest, with their most typical members."""
    by_size = made.sizes.argsort(descending=True, stable=True)
    by_size = by_size[made.sizes[by_size] > 1]
    picked = by_size[torch.linspace(0, len(by_size) - 1, min(GROUPS, len(by_size))).long()]
    groups = []
    for cluster in picked.tolist():
        members = (made.labels == cluster).nonzero()[:, 0]
        distance = (rows[members].cpu() - made.centroids[cluster].cpu()).square().sum(1)
        groups.append((cluster, members[distance.argsort()[:MEMBERS]].tolist()))
    return groups
