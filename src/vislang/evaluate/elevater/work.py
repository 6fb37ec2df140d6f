"""The tasks of one set: probabilities of its test samples, and what was chosen on the way.

N: test samples, n: training samples, C: classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vislang.devices import pick_device, pick_precision
from vislang.errors import UserError
from vislang.evaluate.elevater.anchored import SCALE, fit_anchored, probabilities
from vislang.evaluate.elevater.linear import Probed, train_heads
from vislang.evaluate.elevater.material import Material
from vislang.evaluate.elevater.search import EPOCHS, FINAL_EPOCHS, Chosen, Pair, search
from vislang.evaluate.elevater.settings import Task
from vislang.evaluate.elevater.subsets import divide, few_shot
from vislang.evaluate.elevater.toolkit import Toolkit
from vislang.evaluate.pictures import Pictures
from vislang.evaluate.tune import fine_tune
from vislang.metrics.elevater import elevater_metric
from vislang.metrics.features import unit

if TYPE_CHECKING:
    from jaxtyping import Float

LARGE = {"patch-camelyon": 10_000}  # samples a class in the search of a set's full training


@dataclass(frozen=True)
class Answer:
    """What a task said of the test samples.

    Args:
        rows: probabilities [N, C].
        trainable: numbers that were trained.
        extra: numbers of the classifier that the model does not have.
        chosen: what the search found, for a table.
        notes: for the reader.
    """

    rows: Float[np.ndarray, "N C"]
    trainable: int = 0
    extra: int = 0
    chosen: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Work:
    """All tasks of a set on features that are embedded once.

    Args:
        material: the set.
        tasks: what will be asked, so that only the training samples of these are embedded.
    """

    def __init__(self, material: Material, tasks: Iterable[Task]):
        self.m, self.options = material, material.options
        self.entry, self.several = material.entry, material.entry.multi_label
        self.label = material.test.targets()
        self.device = pick_device(material.how["device"])
        self.precision = pick_precision(material.how["precision"], self.device)
        self._tests: Pictures | None = None
        tasks = list(tasks)
        self.notes: list[str] = []
        if any(task.kind != "finetune" for task in tasks):
            self.x, self.kept = material.features(material.test)
            if lost := len(self.label) - len(self.kept):
                self.notes.append(f"{lost} test samples could not be used: all classes get 1 / C.")
        probed = [task for task in tasks if task.kind == "probe"]
        wanted = {p for task in probed for s in self.seeds(task)
                  for p in material.learnt(task.shots, s)}  # fmt: skip
        self.place: dict[int, int] = {}
        if wanted:
            positions = sorted(wanted)
            self.train, kept = material.features(material.train, positions)
            self.place = {positions[k]: row for row, k in enumerate(kept.tolist())}
            if lost := len(positions) - len(kept):
                self.notes.append(f"{lost} training samples could not be used.")

    def seeds(self, task: Task) -> tuple[int, ...]:
        """Few shots are drawn by several seeds."""
        return tuple(self.options.seeds) if task.shots > 0 else (0,)

    def run(self, task: Task, seed: int) -> Answer:
        """One task by one seed."""
        if task.kind == "zeroshot":
            return self._zero_shot()
        toolkit = self.options.protocol == "elevater"
        if task.kind == "probe":
            return self._probe_theirs(task, seed) if toolkit else self._probe_ours(task, seed)
        return self._tune_theirs(task, seed) if toolkit else self._tune_ours(task, seed)

    def close(self) -> None:
        """Let pictures go."""
        if self._tests is not None:
            self._tests.close()

    def _zero_shot(self) -> Answer:
        assert self.m.text is not None  # such tasks are refused at the door
        cosine = unit(self.x.astype(np.float64)) @ self.m.text.T
        if self.several and self.options.protocol != "elevater":
            return Answer(self._filled((cosine + 1) / 2, self.kept))  # ranks as the cosine does
        return Answer(self._filled(probabilities(SCALE * cosine, False), self.kept))

    def _filled(self, rows: np.ndarray, kept: Sequence[int] | np.ndarray) -> np.ndarray:
        """Probabilities of all test samples; of those that cannot be used, the same for all."""
        found = np.full((len(self.label), self.m.classes), 1 / self.m.classes, np.float32)
        found[kept] = rows
        return found

    def _target(self, positions: Sequence[int]) -> np.ndarray:
        return self.m.train.targets()[list(positions)]

    def _drawn(self, task: Task, seed: int) -> tuple[list[int], list[int], list[int]]:
        """(positions, rows of them learnt from while choosing, rows held out)."""
        positions = self.m.learnt(task.shots, seed)
        if task.kind == "probe":
            positions = [p for p in positions if p in self.place]
        learnt, held = divide(self.m.labels_of(positions), self.several)
        return positions, learnt, held

    def _last(self, task: Task, learnt: list[int], held: list[int]) -> list[int]:
        """Rows of the last training; one shot is not merged with the one held out."""
        return learnt if task.shots == 1 else [*learnt, *held]

    # --- the toolkit's ---------------------------------------------------------------------------

    def _probe_theirs(self, task: Task, seed: int) -> Answer:
        positions, learnt, held = self._drawn(task, seed)
        rows = [self.place[p] for p in positions]
        x, target = self.train[rows], self._target(positions)
        found = self._search_probe(task, seed, x, target, learnt, held)
        last = self._last(task, learnt, held)
        probed = self._probed(x[last], target[last], self.x, self.label[self.kept])
        done = train_heads(probed, [found.rate], [found.decay], FINAL_EPOCHS, keep=True)
        best = self.options.epoch == "best_on_test"
        answer = done.best_rows if best else done.last_rows
        assert answer is not None
        head = probed.start.numel() + len(probed.start)
        epoch = int(done.best_epoch[0]) if best else FINAL_EPOCHS - 1
        return Answer(
            self._filled(answer[0], self.kept), head, head + 1, self._chosen(found, epoch)
        )

    def _search_probe(self, task, seed, x, target, learnt, held) -> Chosen:
        o = self.options
        if not o.search:
            return Chosen(o.rate, o.decay, float("nan"), [])
        learnt, held = self._search_rows(task, seed, learnt, held, target)
        if not held:
            raise UserError(f"{self.entry.name}: no training sample can be held out.")
        probed = self._probed(x[learnt], target[learnt], x[held], target[held])

        def scores(pairs: list[Pair]) -> list[float]:
            rates, decays = [rate for rate, _ in pairs], [decay for _, decay in pairs]
            return train_heads(probed, rates, decays, EPOCHS).best.tolist()

        return search(scores)

    def _search_rows(self, task, seed, learnt, held, target) -> tuple[list[int], list[int]]:
        """A huge set's full training searches on a part of it."""
        most = LARGE.get(self.entry.registered)
        if task.shots > 0 or most is None or not len(target) > most * self.m.classes:
            return learnt, held
        labels = [(int(y),) for y in target]
        rows = few_shot(labels, self.m.classes, most, seed)
        parts = divide([labels[r] for r in rows], False)
        first, second = ([rows[k] for k in part] for part in parts)
        return first, second

    def _probed(self, x: np.ndarray, target: np.ndarray, judged: np.ndarray, label) -> Probed:
        o = self.options
        goal = torch.from_numpy(target)
        return Probed(
            torch.from_numpy(x), goal.float() if self.several else goal, torch.from_numpy(judged),
            label, self.entry.metric, torch.from_numpy(self.m.start()).float(),
            o.batch_norm, o.unit, o.head_scale(self.m.classes),
        )  # fmt: skip

    def _tune_theirs(self, task: Task, seed: int) -> Answer:
        o, tune = self.options, self.options.tuning
        learnt, held, pictures, target = self._pictures(task, seed)
        tests = self._test_pictures()
        made = Toolkit(
            self.m.model.side("image").to(self.device), self.m.start(), self.entry.metric,
            tune.part, tune.blocks, self.device, self.precision, batch_norm=o.batch_norm,
            unit=o.unit, scale=o.head_scale(self.m.classes),
        )  # fmt: skip
        found = Chosen(o.rate, o.decay, float("nan"), [])
        if o.search:
            found = made.search(pictures, target, learnt, held)
        done = made.final(
            pictures, target, self._last(task, learnt, held), tests, self.label[tests.kept],
            found.rate, found.decay,
        )  # fmt: skip
        pictures.close()
        best = o.epoch == "best_on_test"
        rows = done.best_rows if best else done.last_rows
        epoch = done.best_epoch if best else FINAL_EPOCHS - 1
        extra = self.m.start().size + self.m.classes + 1
        return Answer(
            self._filled(rows, tests.kept), done.trainable, extra, self._chosen(found, epoch)
        )

    def _chosen(self, found: Chosen, epoch: int) -> dict[str, Any]:
        told: dict[str, Any] = {"rate": found.rate, "weight decay": found.decay, "epoch": epoch}
        if found.visited:
            told |= {"held-out score": found.score, "trainings": len(found.visited)}
        return told

    # --- ours ------------------------------------------------------------------------------------

    def _score(self, rows: np.ndarray, target: np.ndarray) -> float:
        """What choices are made by: the set's metric, where the held-out samples allow it."""
        try:
            return elevater_metric(self.entry.metric, rows, target, "standard")
        except UserError:  # one class alone
            return elevater_metric("accuracy", rows, target) if target.ndim == 1 else 0.0

    def _probe_ours(self, task: Task, seed: int) -> Answer:
        positions, learnt, held = self._drawn(task, seed)
        x = self.train[[self.place[p] for p in positions]]
        if not held:
            raise UserError(f"{self.entry.name}: no training sample can be held out.")
        found = fit_anchored(
            x, self._target(positions), SCALE * self.m.start(), (learnt, held), self._score
        )
        rows = probabilities(found.logits(self.x), self.several)
        head = found.weight.size + len(found.bias)
        score = max(value for _, value in found.tried)
        told = {"penalty": found.penalty, "held-out score": score, "trainings": len(found.tried)}
        return Answer(self._filled(rows, self.kept), head, head, told)

    def _tune_ours(self, task: Task, seed: int) -> Answer:
        learnt, held, pictures, target = self._pictures(task, seed)
        tests = self._test_pictures()
        found = fine_tune(
            self.m.model.side("image"), pictures, target, tests, (learnt, held), self._score,
            self.m.text, self.m.classes, self.options.tuning, str(self.device), self.precision,
        )  # fmt: skip
        pictures.close()
        rows = probabilities(found.logits, self.several)
        told: dict[str, Any] = {"rate": found.rate, "share": found.alpha}
        if found.tried:
            told["held-out score"] = max(score for _, _, score in found.tried)
            told["trainings"] = len({rate for rate, _, _ in found.tried})
        extra = self.m.classes * (self.m.model.side("image").width + 1)
        return Answer(self._filled(rows, tests.kept), found.trainable, extra, told)

    # --- pictures --------------------------------------------------------------------------------

    def _pictures(self, task: Task, seed: int):
        """(rows learnt from, rows held out, pictures, target) of usable samples."""
        positions = self.m.learnt(task.shots, seed)
        pictures = self.m.pictures(self.m.train, positions)
        positions = [positions[k] for k in pictures.kept.tolist()]
        learnt, held = divide(self.m.labels_of(positions), self.several)
        return learnt, held, pictures, self._target(positions)

    def _test_pictures(self) -> Pictures:
        if self._tests is None:
            self._tests = self.m.pictures(self.m.test, range(len(self.label)))
        return self._tests
