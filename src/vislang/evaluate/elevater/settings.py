"""What is asked of a model on ELEVATER's sets, and by which protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from vislang.errors import UserError
from vislang.evaluate.elevater import PROTOCOLS
from vislang.evaluate.tune import TuneOptions
from vislang.lookup import check_options, nearest

KINDS = ("zeroshot", "probe", "finetune")
TASKS = ("zeroshot", "probe:5", "probe:full")
EPOCHS = ("last", "best_on_test")
SCALES = ("none", "ln_cls", "clip")


@dataclass(frozen=True)
class Task:
    """One task: what learns, and from how many samples of each class.

    Args:
        kind: zeroshot, probe or finetune.
        shots: 0 of zero-shot, -1 for all samples.
    """

    kind: str
    shots: int

    @property
    def slug(self) -> str:
        """As in file names: zeroshot, probe-5, finetune-full."""
        return self.kind if not self.shots else f"{self.kind}-{self._count}"

    @property
    def name(self) -> str:
        """As it was asked for: zeroshot, probe:5, finetune:full."""
        return self.slug.replace("-", ":")

    @property
    def _count(self) -> str:
        return "full" if self.shots < 0 else str(self.shots)


def read_task(text: str) -> Task:
    """A task from its name.

    >>> read_task("probe:full"), read_task("finetune:5").slug
    (Task(kind='probe', shots=-1), 'finetune-5')
    """
    kind, _, count = text.partition(":")
    if kind not in KINDS or (kind == "zeroshot") == bool(count):
        raise UserError(
            f"A task is zeroshot, probe:SHOTS or finetune:SHOTS with SHOTS full or a number, as in"
            f" {', '.join(TASKS)}; got {text!r}.{nearest(kind, KINDS)}"
        )
    if kind == "zeroshot":
        return Task(kind, 0)
    if count != "full" and not (count.isdigit() and int(count)):
        raise UserError(f"The shots of {text!r} must be full or a number of at least 1.")
    return Task(kind, -1 if count == "full" else int(count))


@dataclass(frozen=True)
class ElevaterOptions:
    """Options of the evaluation `elevater`.

    Args:
        tasks: zeroshot, probe:5, probe:20, probe:50, probe:full, finetune:5 ...
        protocol: elevater (the toolkit's, to reproduce its leaderboard) or validated (ours: chosen
            on held-out training samples, test samples asked once).
        seeds: of few shots.
        words: class names and templates: auto, labels, or a JSON file (see data/elevater_words).
        knowledge: any of wiki, wordnet, hierarchy, gpt3, put into the prompts.
        knowledge_folder: with NAME_knowledge.tsv and GPT3_NAME.tsv of each registered name.
        gpt3_items: strings of GPT-3 to take.
        gpt3_besides: take them besides the dictionary's; False only where that has no entry.
        start: the head begins as the class prompts (text) or at 0 (zero).
        epoch: of the toolkit's last training: last, or best_on_test, which is the toolkit's own and
            chooses on the test samples.
        search: look for rate and weight decay; False takes `rate` and `decay`.
        rate, decay: of SGD without a search.
        batch_norm, unit: the toolkit's head normalises features by the batch, and to length 1.
        scale: what multiplies its logits: none, ln_cls (ln C) or clip (1 / 0.07).
        tune: options of fine-tuning (`TuneOptions`): part, blocks, adapter, start, rates, wise ...
        registry: JSON of the toolkit's form that describes other sets.
        model_name: in predictions; by default what the model was called.
    """

    tasks: Sequence[str] = TASKS
    protocol: str = "elevater"
    seeds: Sequence[int] = (0, 1, 2)
    words: str = "auto"
    knowledge: Sequence[str] = ()
    knowledge_folder: str = ""
    gpt3_items: int = 1
    gpt3_besides: bool = True
    start: str = "text"
    epoch: str = "last"
    search: bool = True
    rate: float = 0.1
    decay: float = 1e-6
    batch_norm: bool = True
    unit: bool = False
    scale: str = "none"
    tune: Mapping[str, Any] = field(default_factory=dict)
    registry: str = ""
    model_name: str = ""

    def __post_init__(self) -> None:
        for name, known in (("protocol", PROTOCOLS), ("start", ("text", "zero")),
                            ("epoch", EPOCHS), ("scale", SCALES)):  # fmt: skip
            value = getattr(self, name)
            if value not in known:
                raise UserError(
                    f"elevater: {name} must be one of {', '.join(known)}, got {value!r}."
                    f"{nearest(str(value), known)}"
                )
        if isinstance(self.tasks, str):
            raise UserError("elevater: tasks must be a list, as in [zeroshot, probe:5].")
        if not self.tasks or not self.seeds:
            raise UserError("elevater: name at least one task and one seed.")
        check_options("elevater: tune", self.tune, list(TuneOptions.__dataclass_fields__))
        self.tuning  # noqa: B018  its values are checked now

    @property
    def asked(self) -> list[Task]:
        """The tasks."""
        return list(dict.fromkeys(read_task(task) for task in self.tasks))

    @property
    def tuning(self) -> TuneOptions:
        """Options of fine-tuning."""
        return TuneOptions(**self.tune)

    def head_scale(self, classes: int) -> float:
        """What multiplies the logits of the toolkit's head."""
        return {"none": 1.0, "ln_cls": math.log(classes), "clip": 1 / 0.07}[self.scale]

    def as_settings(self) -> dict[str, Any]:
        """All options."""
        return asdict(self)


def make_options(given: Mapping[str, Any] | None) -> ElevaterOptions:
    """Options from a mapping; an unknown one is an error that names the known ones."""
    known = list(ElevaterOptions.__dataclass_fields__)
    check_options("The evaluation 'elevater'", given or {}, known)
    return ElevaterOptions(**(given or {}))
