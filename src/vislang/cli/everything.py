"""vislang evaluate --suite all: everything that a model's sides, a source and folders allow."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislang.errors import UserError

if TYPE_CHECKING:
    from vislang.evaluate.scores import Scores

# source and its options, training source and its options
Given = tuple[str, dict[str, Any] | None, str, dict[str, Any] | None]
LEARNING = ("elevater", "finetune")


@dataclass
class _Asked:
    """A model, where its scores go, and what could not be done with it."""

    model: str
    sides: tuple[str, ...]
    out: Path
    options: dict[str, Any]
    how: dict[str, Any]
    left: list[str] = field(default_factory=list)

    def of(self, names: Any) -> dict[str, Any]:
        """Options of these evaluations."""
        return {name: each for name, each in self.options.items() if name in names}

    @property
    def step(self) -> int:
        from vislang.cli.evaluate import step_of

        return step_of(self.model)

    def attempt(self, what: str, make: Callable[[], list["Scores"]]) -> list["Scores"]:
        """What `make` gives; nothing, and a line in `left`, if it fails."""
        try:
            return make()
        except UserError as error:
            self.left.append(f"{what}: {error}")
            return []


def evaluate_everything(
    model: str,
    given: Given,
    texts: Path | None,
    data_root: Path,
    out: Path,
    options: dict[str, Any] | None,
    how: dict[str, Any],
) -> None:
    """One pass over the images for all evaluations of the source, one over the texts of a folder.

    Args:
        model: a MODEL of the commands.
        given: the sources; of a run without one those that it names.
        texts: folder of text suites.
        data_root: ELEVATER's sets that lie below it are evaluated.
        out: folder for scores and stores.
        options: evaluation -> arguments of its constructor.
        how: batch_size, workers, device, precision.
    """
    from vislang.cli.evaluate import run_folder, sides_of, sources_of, step_of, table

    asked = _Asked(model, sides_of(model), out, _checked(dict(options or {})), how)
    run = run_folder(model)
    if not given[0] and run is not None and "image" in asked.sides:
        given = sources_of(run, given[2], given[3])
    scores: list[Scores] = []
    if given[0] and "image" in asked.sides:
        scores += asked.attempt(f"the source {given[0]}", lambda: _of_source(asked, given))
    elif given[0]:
        asked.left.append(f"the source {given[0]}: the model has no image side")
    if texts is not None and "text" in asked.sides:
        scores += asked.attempt(f"the texts of {texts}", lambda: _of_texts(asked, texts))
    elif texts is not None:
        asked.left.append(f"the texts of {texts}: the model has no text side")
    if "image" in asked.sides:
        scores += asked.attempt("elevater", lambda: _of_elevater(asked, data_root))
        scores += asked.attempt("finetune", lambda: _of_tuning(asked, given))
    if not scores:
        raise UserError(
            f"Nothing can be evaluated: {model} has the side {' and '.join(asked.sides)}."
            " Give --source SOURCE for an image side, --texts FOLDER for a text side."
            + "".join(f" Left out: {why.rstrip('.')}." for why in asked.left)
        )
    print(table(scores))
    for why in asked.left:
        print(f"left out: {why}")
    print(f"Scores: {out / 'scores' / f'{step_of(model):09d}'}")
    print(f"Next: vislang report {out}")


def _of_source(asked: _Asked, given: Given) -> list["Scores"]:
    """Scores of all evaluations that fit the source."""
    from vislang.cli.evaluate import fitting, lacking
    from vislang.data.sources import open_source
    from vislang.evaluate import EVALUATIONS, evaluate

    source, source_options, train, train_options = given
    opened = open_source(source, **(source_options or {}))
    names, options = fitting(opened, asked.sides, asked.of(EVALUATIONS))
    asked.left += [
        f"{name}: {why}" for name, why in lacking(opened, (), asked.sides).items() if why
    ]
    if not names:
        raise UserError("no evaluation can be made of it with this model")
    return evaluate(
        asked.model, source, names, asked.out, step=asked.step,
        options={name: options[name] for name in options if name in names},
        source_options=source_options, train_source=train or None, train_options=train_options,
        failures=asked.left, **asked.how,
    )  # fmt: skip


def _of_texts(asked: _Asked, texts: Path) -> list["Scores"]:
    """Scores of every text suite that has files below a folder."""
    from vislang.evaluate.text_suites import TEXT_SUITES, evaluate_texts

    how = {key: asked.how[key] for key in ("batch_size", "device", "precision")}
    return evaluate_texts(
        asked.model, texts, ["all"], asked.out, options=asked.of(TEXT_SUITES), step=asked.step,
        failures=asked.left, **how,
    )  # fmt: skip


def _of_elevater(asked: _Asked, root: Path) -> list["Scores"]:
    """The table of ELEVATER's sets, where any lies below the root."""
    from vislang.data.elevater_sets import chosen_sets, set_folder
    from vislang.evaluate.elevater.settings import TASKS
    from vislang.evaluate.elevater.suite import evaluate_elevater

    own = dict(asked.options.get("elevater", {}))
    sets = chosen_sets(["all"], own.get("registry", ""))
    there = [entry.name for entry in sets if set_folder(entry, root).is_dir()]
    if not there:
        raise UserError(
            f"none of its {len(sets)} sets lies below {root}: give the folder that holds"
            " classification/ (--data_root)"
        )
    if "text" not in asked.sides:
        own.setdefault("tasks", [task for task in TASKS if task != "zeroshot"])
    found = evaluate_elevater(
        asked.model, there, root, asked.out, options=own, step=asked.step, **asked.how
    )
    if absent := [entry.name for entry in sets if entry.name not in there]:
        asked.left.append(f"elevater: not below {root}: {', '.join(absent)}")
    missing = found.tables.get("missing", {}).get("rows", ())
    asked.left += [f"elevater, {name}: {why}" for name, why in missing]
    return [found]


def _of_tuning(asked: _Asked, given: Given) -> list["Scores"]:
    """Fine-tuning on the source, where it was asked for by options: it takes the longest."""
    from vislang.evaluate.finetune import evaluate_finetune

    if "finetune" not in asked.options:
        raise UserError("trains the tower, so only with options, as in --suite_options.finetune {}")
    source, source_options, train, train_options = given
    if not source:
        raise UserError("needs test samples: --source SOURCE")
    return [evaluate_finetune(
        asked.model, source, train or None, asked.out, options=asked.options["finetune"],
        step=asked.step, source_options=source_options, train_options=train_options, **asked.how,
    )]  # fmt: skip


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """Options by evaluation; an unknown name is an error."""
    from vislang.evaluate import EVALUATIONS
    from vislang.evaluate.text_suites import TEXT_SUITES
    from vislang.lookup import nearest

    known = [*EVALUATIONS, *TEXT_SUITES, *LEARNING]
    for name in options:
        if name not in known:
            raise UserError(
                f"There are options for {name!r}, which is no evaluation.{nearest(name, known)}"
                f" Known: {', '.join(known)}."
            )
    return options
