"""A run folder as plain values; whatever is missing or broken becomes a sentence in `notes`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vislang.errors import UserError
from vislang.report.log import Log, read_log
from vislang.report.values import Value, finite, read_values

PARTS = ("config.yaml", "environment.json", "log.jsonl", "scores")


@dataclass(frozen=True)
class Score:
    """One file scores/<step>/<evaluation>.json.

    Args:
        name: name of the file, which tells two runs of one evaluation apart.
        evaluation: which evaluation it is.
        step: the folder's name as a number, or None for a folder that is none ("ema").
        at: the folder's name.
        n: how many samples were scored.
        values: metric -> Value.
        body: everything else in the file, as read.
    """

    name: str
    evaluation: str
    step: int | None
    at: str
    n: int | None
    values: dict[str, Value]
    body: Mapping[str, Any] = field(default_factory=dict)

    def mapping(self, key: str) -> Mapping[str, Any]:
        """A part that must be a mapping ("confusion", "map", "provenance"); empty if it is not."""
        part = self.body.get(key)
        return part if isinstance(part, Mapping) else {}

    def items(self, key: str) -> list[Mapping[str, Any]]:
        """The mappings in a part that must be a list ("examples")."""
        part = self.body.get(key)
        if not isinstance(part, list):
            return []
        return [item for item in part if isinstance(item, Mapping)]

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Model, source, settings and versions behind the numbers."""
        return self.mapping("provenance")

    def like(self, other: "Score") -> bool:
        """Whether both were taken on the same data with the same settings."""
        keys = ("source", "source_fingerprint", "settings")
        return all(self.provenance.get(key) == other.provenance.get(key) for key in keys)


@dataclass
class Run:
    """What a run folder holds.

    Args:
        folder: where it lies.
        name: a short name, unique in the report.
        config: config.yaml as nested mappings (not validated: it may be of another version).
        environment: environment.json.
        log: log.jsonl.
        scores: all scores, oldest step first.
        notes: what is missing or unreadable, in sentences.
    """

    folder: Path
    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    log: Log = field(default_factory=Log)
    scores: list[Score] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def get(self, dotted: str, default: Any = None) -> Any:
        """A field of the config by its dotted name.

        >>> Run(Path("a"), "a", {"optim": {"lr": 0.1}}).get("optim.lr")
        0.1
        """
        inner: Any = self.config
        for part in dotted.split("."):
            if not isinstance(inner, Mapping) or part not in inner:
                return default
            inner = inner[part]
        return inner

    @property
    def latest(self) -> dict[str, Score]:
        """Name -> the score at the latest step, in the order of names."""
        return {score.name: score for score in self.scores} if self.scores else {}

    def history(self, name: str) -> dict[str, dict[int, Value]]:
        """Metric -> {step: Value} of one evaluation during training.

        Taken from the log; where that says nothing, from the score files, of which only those
        made like the latest are on one curve.
        """
        if name in self.log.evaluations:
            return self.log.evaluations[name]
        found: dict[str, dict[int, Value]] = {}
        for score in self.scores:
            if score.name == name and score.step is not None and score.like(self.latest[name]):
                for metric, value in score.values.items():
                    found.setdefault(metric, {})[score.step] = value
        return found


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read run folders; names that several share are told apart by their parent folders."""
    if not folders:
        raise UserError("A report needs at least one run folder: vislang report RUN...")
    runs = [read_run(Path(folder)) for folder in folders]
    seen: dict[str, int] = {}
    for run in runs:
        if sum(other.name == run.name for other in runs) > 1:
            seen[run.name] = seen.get(run.name, 0) + 1
    for name in seen:
        same = [run for run in runs if run.name == name]
        longer = [str(Path(run.folder.resolve().parent.name) / name) for run in same]
        unique = len(set(longer)) == len(longer)
        for place, run in enumerate(same, 1):
            run.name = longer[place - 1] if unique else f"{name} ({place})"
    return runs


def read_run(folder: Path) -> Run:
    """Read one run folder; only a folder that is no run at all is an error."""
    if not folder.is_dir():
        raise UserError(f"There is no run folder {folder}. Give the folder that `train` made.")
    if not any((folder / part).exists() for part in PARTS):
        raise UserError(
            f"{folder} is not a run folder: it holds none of {', '.join(PARTS)}."
            " Give the folder that `vislang train` or `vislang evaluate` wrote."
        )
    run = Run(folder, folder.resolve().name or str(folder))
    run.config = _read_mapping(run, "config.yaml")
    run.environment = _read_mapping(run, "environment.json")
    run.log = read_log(folder / "log.jsonl")
    run.notes += run.log.notes
    run.scores = _read_scores(run)
    if not run.scores:
        run.notes.append(
            "There are no scores: the run was not evaluated yet."
            f" Run: vislang evaluate {folder} --source SOURCE"
        )
    return run


def _read_mapping(run: Run, name: str) -> Mapping[str, Any]:
    """config.yaml or environment.json; empty with a note when it cannot be read."""
    try:
        text = (run.folder / name).read_text(encoding="utf-8", errors="replace")
    except OSError:
        run.notes.append(f"There is no {name}.")
        return {}
    try:
        value = _read_yaml(text) if name.endswith(".yaml") else json.loads(text)
    except (ValueError, RecursionError) as error:
        run.notes.append(f"{name} could not be read: {str(error).splitlines()[0]}.")
        return {}
    if not isinstance(value, Mapping):
        run.notes.append(f"{name} holds no fields.")
        return {}
    return value


def _read_yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _read_scores(run: Run) -> list[Score]:
    found = []
    for path in sorted(run.folder.glob("scores/*/*.json")):
        label = "/".join(path.parts[-3:])
        try:
            body = json.loads(path.read_text(encoding="utf-8", errors="replace"))
        except (OSError, ValueError, RecursionError) as error:
            run.notes.append(f"{label} could not be read ({error}); it is left out.")
            continue
        if not isinstance(body, Mapping):
            run.notes.append(f"{label} holds no scores; it is left out.")
            continue
        found.append(_score(path, body))
    # Folders that are no step ("ema") come first, so that `latest` prefers a step.
    return sorted(found, key=lambda score: (-1 if score.step is None else score.step, score.name))


def _score(path: Path, body: Mapping[str, Any]) -> Score:
    at = path.parent.name
    n = finite(body.get("n"))
    return Score(
        name=path.stem,
        evaluation=str(body.get("evaluation") or path.stem),
        step=int(at) if at.isascii() and at.isdigit() and len(at) < 18 else None,
        at=at,
        n=None if n is None else int(n),
        values=read_values(body.get("values")),
        body=body,
    )
